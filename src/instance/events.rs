//! What a running instance waits for, and what it does meanwhile.

use super::host::{HostChange, HostChanges};
use super::poll::readable;
use super::replace::{Clients, Request};
use super::rules::{Rules, RulesError};
use super::signals::Signals;
use crate::config::Config;
use crate::lock::Holder;
use crate::nftables::NftablesError;
use std::os::fd::AsFd;
use std::time::Instant;

/// The sources of events.
pub struct Events<'a> {
    signals: &'a Signals,
    clients: Clients,
    rules: Rules<'a>,
    host: HostChanges,
}

/// What the caller must act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A signal to end has come; [`Signals::wait`] takes it.
    Signal,
    /// This process has replaced the instance.
    Replaced(Holder),
    /// The file of options is to be read again.
    Reload,
    /// This host has changed.
    Host(HostChange),
    /// The deadline has come.
    TimeUp,
}

impl<'a> Events<'a> {
    /// Waits for signals, for changes of rules without an owner, for clients of the lock, and for changes
    /// of this host.
    pub fn new(
        signals: &'a Signals,
        clients: Clients,
        rules: Rules<'a>,
        host: HostChanges,
    ) -> Self {
        Events {
            signals,
            clients,
            rules,
            host,
        }
    }

    /// The signals that it waits for.
    pub fn signals(&self) -> &'a Signals {
        self.signals
    }

    /// Sleeps until something happens that the caller must act on.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Event, RulesError> {
        loop {
            let files = [
                self.rules.changes(),
                Some(self.signals.as_fd()),
                Some(self.clients.as_fd()),
                self.host.events(),
                self.signals.reloads(),
            ];
            let own = [self.clients.deadline(), self.host.deadline()];
            let wake = deadline.into_iter().chain(own.into_iter().flatten()).min();
            let [changes, signal, client, host, reload] = readable(files, wake)?;
            // First, so that the rules are in place for whatever follows.
            if changes {
                self.rules.restore_if_changed()?;
            }
            if signal {
                return Ok(Event::Signal);
            }
            if client || self.clients.deadline().is_some() {
                match self.clients.serve(&self.rules, self.signals)? {
                    Some(Request::Replaced(process)) => return Ok(Event::Replaced(process)),
                    Some(Request::Reload) => return Ok(Event::Reload),
                    None => {}
                }
            }
            if reload {
                self.signals.take_reload()?;
                return Ok(Event::Reload);
            }
            if host {
                self.host.read()?;
            }
            if let Some(change) = self.host.next(Instant::now()) {
                return Ok(Event::Host(change));
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Event::TimeUp);
            }
        }
    }

    /// Tells those that have asked for a reload what came of it.
    pub fn answer_reload(&mut self, outcome: Result<(), &str>) {
        self.clients.answer_reload(outcome);
    }

    /// Has status show that the last reload has failed, until the rules change.
    pub fn mark_failed_reload(&mut self) -> Result<(), NftablesError> {
        self.rules.mark_failed_reload()
    }

    /// Puts the rules for another config in their place.
    pub fn change_rules(&mut self, config: &Config) -> Result<(), RulesError> {
        self.rules.change(config)
    }

    /// Empties the chains that new connections come in through. Running connections go on.
    pub fn close(&mut self) -> Result<(), NftablesError> {
        self.rules.close()
    }
}
