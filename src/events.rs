//! What a running instance waits for, and what it sees to meanwhile.

use crate::lock::{Holder, Lock};
use crate::netfilter::{FlowEvents, NetfilterError};
use crate::poll::readable;
use crate::replace::{self, Answered};
use crate::rules::{Rules, RulesError};
use crate::signals::Signals;
use std::os::fd::AsFd;
use std::time::Instant;

/// Where news comes from.
pub struct Events<'a> {
    signals: &'a Signals,
    lock: &'a Lock,
    rules: Rules<'a>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A signal to end has come; it is left to be waited for.
    Signal,
    /// This process has taken the instance's place.
    Replaced(Holder),
    /// There is news of flows.
    Flows,
    /// The deadline has come.
    TimeUp,
}

impl<'a> Events<'a> {
    /// Listens to signals, keeps the rules where nobody else does, and answers who asks for the lock.
    pub fn new(signals: &'a Signals, lock: &'a Lock, rules: Rules<'a>) -> Self {
        Events {
            signals,
            lock,
            rules,
        }
    }

    /// Sleeps until something happens that the caller must see to.
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
            // First, so that whatever follows finds the rules in place.
            if changes {
                self.rules.restore_if_changed(self.signals)?;
            }
            if signal {
                return Ok(Event::Signal);
            }
            if client {
                let answered = replace::answer(self.lock, &self.rules, self.signals)?;
                if let Answered::Replaced(process) = answered {
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

    /// Takes no new connections any more. Those that run go on as they are.
    pub fn close(&mut self) -> Result<(), NetfilterError> {
        self.rules.close()
    }
}
