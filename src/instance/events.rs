//! What a running instance waits for, and what it does meanwhile.

use super::poll::readable;
use super::replace;
use super::rules::{Rules, RulesError};
use super::signals::Signals;
use crate::conntrack::FlowEvents;
use crate::lock::{Holder, Lock};
use crate::nftables::NftablesError;
use std::os::fd::AsFd;
use std::time::Instant;

/// The sources of events.
pub struct Events<'a> {
    signals: &'a Signals,
    lock: &'a Lock,
    rules: Rules<'a>,
}

/// What the caller must act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A signal to end has come; [`Signals::wait`] takes it.
    Signal,
    /// This process has replaced the instance.
    Replaced(Holder),
    /// There are events of flows.
    Flows,
    /// The deadline has come.
    TimeUp,
}

impl<'a> Events<'a> {
    /// Waits for signals, for changes of rules without an owner, and for clients of the lock.
    pub fn new(signals: &'a Signals, lock: &'a Lock, rules: Rules<'a>) -> Self {
        Events {
            signals,
            lock,
            rules,
        }
    }

    /// Sleeps until something happens that the caller must act on.
    pub fn next(
        &mut self,
        flows: Option<&FlowEvents>,
        deadline: Option<Instant>,
    ) -> Result<Event, RulesError> {
        loop {
            let files = [
                self.rules.changes(),
                Some(self.signals.as_fd()),
                Some(self.lock.as_fd()),
                flows.map(AsFd::as_fd),
            ];
            let [changes, signal, client, flows] = readable(files, deadline)?;
            // First, so that the rules are in place for whatever follows.
            if changes {
                self.rules.restore_if_changed()?;
            }
            if signal {
                return Ok(Event::Signal);
            }
            if client {
                let successor = replace::serve(self.lock, &self.rules, self.signals)?;
                if let Some(process) = successor {
                    return Ok(Event::Replaced(process));
                }
            }
            if flows {
                return Ok(Event::Flows);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Event::TimeUp);
            }
        }
    }

    /// Empties the chains that new connections come in through. Running connections go on.
    pub fn close(&mut self) -> Result<(), NftablesError> {
        self.rules.close()
    }
}
