//! What a running instance waits for, and what it sees to meanwhile.

use crate::guard::{Guard, GuardError};
use crate::netfilter::FlowEvents;
use crate::poll::readable;
use crate::signals::Signals;
use std::os::fd::AsFd;
use std::time::Instant;

/// Where news comes from.
pub struct Events<'a> {
    signals: &'a Signals,
    guard: Option<Guard<'a>>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A signal to end has come; it is left to be waited for.
    Signal,
    /// There is news of flows.
    Flows,
    /// The deadline has come.
    TimeUp,
}

impl<'a> Events<'a> {
    /// Listens to signals, and has `guard` keep the rules where nobody else does.
    pub fn new(signals: &'a Signals, guard: Option<Guard<'a>>) -> Self {
        Events { signals, guard }
    }

    /// Sleeps until something happens that the caller must see to.
    pub fn next(
        &mut self,
        flows: Option<&FlowEvents>,
        deadline: Option<Instant>,
    ) -> Result<Event, GuardError> {
        loop {
            let files = [
                Some(self.signals.as_fd()),
                self.guard.as_ref().map(AsFd::as_fd),
                flows.map(AsFd::as_fd),
            ];
            let [signal, table, flows] = readable(files, deadline)?;
            // First, so that whatever follows finds the rules in place.
            if let (true, Some(guard)) = (table, &mut self.guard) {
                guard.restore(self.signals)?;
            }
            if signal {
                return Ok(Event::Signal);
            }
            if flows {
                return Ok(Event::Flows);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Event::TimeUp);
            }
        }
    }

    /// From now on the rules are kept in the state in which they take no new connections.
    pub fn keep_closed(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.keep_closed();
        }
    }
}
