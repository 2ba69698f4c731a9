//! What a running instance waits for, and what it does meanwhile.

use super::forwarding::in_table;
use super::health::Health;
use super::host::{HostChange, HostChanges};
use super::names::Names;
use super::poll::readable;
use super::replace::Clients;
use super::rules::{Followed, Rules, RulesError};
use super::signals::Signals;
use super::watch::FileWatch;
use crate::config::{Answer, Config, Down, first_few};
use crate::lock::Holder;
use crate::logging::with_causes;
use crate::nftables::NftablesError;
use log::warn;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long requests to read the file of options again wait after the last one was carried out. Those that
/// come meanwhile are carried out together.
const RELOAD_INTERVAL: Duration = Duration::from_millis(250);

/// How many sources can be readable.
const SOURCES: usize = 8;

/// The sources of events.
pub struct Events<'a> {
    signals: &'a Signals,
    clients: Clients,
    rules: Rules<'a>,
    host: HostChanges,
    /// Of the options.
    file: Option<FileWatch>,
    /// `None` if no destination is tried.
    health: Option<Health>,
    /// `None` if no destination has a name.
    names: Option<Names>,
    /// When the file of options may be read again.
    next_reload: Option<Instant>,
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
    /// Other destinations fail than before.
    Health,
    /// Names have been looked up.
    Names,
    /// The deadline has come.
    TimeUp,
}

impl<'a> Events<'a> {
    /// Waits for signals, for changes of rules without an owner, for clients of the lock, and for changes
    /// of this host, of the file, of destinations and of names.
    pub fn new(
        signals: &'a Signals,
        clients: Clients,
        rules: Rules<'a>,
        host: HostChanges,
        file: Option<FileWatch>,
        health: Option<Health>,
        names: Option<Names>,
    ) -> Self {
        Events {
            signals,
            clients,
            rules,
            host,
            file,
            health,
            names,
            next_reload: None,
        }
    }

    /// The signals that it waits for.
    pub fn signals(&self) -> &'a Signals {
        self.signals
    }

    /// Sleeps until something happens that the caller must act on.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Event, RulesError> {
        loop {
            let ready = self.wait(deadline)?;
            if let Some(event) = self.act(ready)? {
                return Ok(event);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Event::TimeUp);
            }
        }
    }

    /// Sleeps until there is something to do. Gives which of the sources are readable.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<[bool; SOURCES], RulesError> {
        self.next_reload = self.next_reload.filter(|next| *next > Instant::now());
        let rests = self.next_reload.is_some();
        let files = [
            self.rules.changes(),
            Some(self.signals.as_fd()),
            Some(self.clients.as_fd()),
            self.host.events(),
            self.signals.reloads().filter(|_| !rests),
            self.file.as_ref().map(AsFd::as_fd),
            self.health.as_ref().map(AsFd::as_fd),
            self.names.as_ref().and_then(Names::as_fd),
        ];
        let pending = (!rests && self.clients.want_reload()).then(Instant::now);
        let own = [
            pending,
            self.next_reload,
            self.clients.deadline(),
            self.host.deadline(),
            self.file.as_ref().and_then(FileWatch::deadline),
            self.health.as_ref().map(Health::deadline),
            self.names.as_ref().and_then(Names::deadline),
        ];
        let wake = deadline.into_iter().chain(own.into_iter().flatten()).min();
        Ok(readable(files, wake)?)
    }

    /// Does what can be done here. Gives what the caller must act on, one thing at a time.
    fn act(&mut self, ready: [bool; SOURCES]) -> Result<Option<Event>, RulesError> {
        let [changes, signal, client, host, reload, file, _, names] = ready;
        // First, so that the rules are in place for whatever follows.
        if changes {
            self.rules.restore_if_changed()?;
        }
        if signal {
            return Ok(Some(Event::Signal));
        }
        if client || self.clients.deadline().is_some() {
            if let Some(process) = self.clients.serve(&mut self.rules, self.signals)? {
                return Ok(Some(Event::Replaced(process)));
            }
        }
        if self.next_reload.is_none() && (reload || self.clients.want_reload()) {
            self.signals.take_reload()?;
            return Ok(Some(Event::Reload));
        }
        if let Some(watch) = &mut self.file {
            if file {
                watch.read()?;
            }
            if watch.is_due(Instant::now()) {
                return Ok(Some(Event::Reload));
            }
        }
        if host {
            self.host.read()?;
        }
        if let Some(change) = self.host.next(Instant::now()) {
            return Ok(Some(Event::Host(change)));
        }
        if let Some(health) = &mut self.health {
            if health.step(Instant::now())? {
                return Ok(Some(Event::Health));
            }
        }
        let own = self.names.as_mut();
        let changed = own.is_some_and(|own| own.step(names, Instant::now()));
        Ok(changed.then_some(Event::Names))
    }

    /// Tells those that have asked for a reload what came of it. The next one waits a moment.
    pub fn answer_reload(&mut self, outcome: Result<(), &str>) {
        self.next_reload = Some(Instant::now() + RELOAD_INTERVAL);
        self.clients.answer_reload(outcome);
    }

    /// Has status show that the last reload has failed, until one succeeds.
    pub fn mark_failed_reload(&mut self) -> Result<(), NftablesError> {
        self.rules.mark_failed_reload()
    }

    /// Whether the last reload has failed, which a change that is no reload leaves as it is.
    pub fn has_failed_reload(&self) -> bool {
        self.rules.has_failed_reload()
    }

    /// Puts the rules for another config in their place, and has status show that the last reload has failed, or
    /// that it has not.
    pub fn change_rules(&mut self, config: &Config, reload_failed: bool) -> Result<(), RulesError> {
        let mut health = Health::new(config, self.health.as_ref())?;
        let none = Down::default();
        let down = health.as_ref().map_or(&none, Health::applied);
        self.rules.change(config, down, reload_failed)?;
        if let (Some(health), Some(before)) = (&mut health, self.health.take()) {
            health.take_attempts(before);
        }
        self.health = health;
        self.names = Names::new(config);
        Ok(())
    }

    /// The answers of the last look-up of names.
    pub fn take_answers(&mut self) -> Option<Vec<Answer>> {
        self.names.as_mut().map(Names::take_answers)
    }

    /// Has names looked up again when these answers are over, which leave the rules as they are.
    pub fn schedule(&mut self, answers: &[Answer]) {
        if let Some(names) = &mut self.names {
            names.schedule(answers);
            names.refuse(None);
        }
    }

    /// Has the names of these answers looked up again later, as they could not be carried out; says why, once.
    pub fn refuse_answers(&mut self, answers: &[Answer], again: Instant, reason: String) {
        let Some(names) = &mut self.names else { return };
        let expires = again;
        let later = |answer: &Answer| Answer {
            expires,
            ..answer.clone()
        };
        names.schedule(&answers.iter().map(later).collect::<Vec<_>>());
        if names.refuse(Some(reason.clone())) {
            warn!("{reason}");
        }
    }

    /// Leaves the destinations that fail out of new connections. Gives those that did before, and those that
    /// do now, if that has changed.
    pub fn leave_out_failed(&mut self, config: &Config) -> Option<(Down, Down)> {
        let health = self.health.as_mut()?;
        let down = health.down();
        if let Err(error) = self.rules.leave_out(config, &down) {
            let causes = with_causes(&error);
            warn!("cannot change which destinations get connections, trying again later: {causes}");
            health.retry_later();
            return None;
        }
        Some((health.set_applied(down.clone()), down))
    }

    /// Has the fast path take the interfaces that have come.
    pub fn follow_interfaces(&mut self, config: &Config) {
        let followed = match self.rules.follow_interfaces(config) {
            // Until now there was no interface that it could take.
            Ok(Followed::NeedsRules) => self.change_rules(config, self.has_failed_reload()),
            Ok(Followed::Done) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = followed {
            let causes = with_causes(&error);
            warn!("the fast path does not take new interfaces: {causes}");
        }
    }

    /// What is forwarded, and what is not since its destination fails, or a reload.
    pub fn summary(&self, config: &Config) -> String {
        let mut summary = in_table(config);
        let down = self.health.as_ref().map(Health::applied);
        if let Some(down) = down.filter(|down| !down.is_empty()) {
            let failed = first_few(down.iter());
            summary.push_str(&format!("; destinations that fail: {failed}"));
        }
        if self.rules.has_failed_reload() {
            summary.push_str("; the last reload has failed");
        }
        summary
    }

    /// Empties the chains that new connections come in through. Running connections go on.
    pub fn close(&mut self) -> Result<(), NftablesError> {
        (self.health, self.names) = (None, None);
        self.rules.close()
    }
}
