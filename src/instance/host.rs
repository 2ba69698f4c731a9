//! Changes of this host that a running instance reacts to: forwarding that is switched off or on, new local
//! addresses, and interfaces that come and go. They can come faster than they are worth reacting to.

use crate::logging::with_causes;
use crate::rtnetlink::{Changes, HostEvents};
use log::warn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// What the instance must look at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostChange {
    /// Families that were off may be on now.
    ForwardingOn,
    /// What this host forwards.
    Forwarding,
    /// This host's own addresses.
    Addresses,
    /// Its interfaces.
    Interfaces,
}

/// The changes since they were looked at last.
pub struct HostChanges {
    events: Option<HostEvents>,
    forwarding_on: bool,
    forwarding: Throttle,
    addresses: Throttle,
    interfaces: Throttle,
}

impl HostChanges {
    /// Notices changes from now on. Forwarding does not depend on it, so a failure is worth a warning.
    pub fn open() -> Self {
        let events = HostEvents::open();
        let events = events
            .inspect_err(|error| {
                let causes = with_causes(error);
                warn!("changes of forwarding and of addresses go unnoticed: {causes}");
            })
            .ok();
        HostChanges {
            events,
            forwarding_on: false,
            forwarding: Throttle::default(),
            addresses: Throttle::default(),
            interfaces: Throttle::default(),
        }
    }

    /// Readable when there are events.
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(AsFd::as_fd)
    }

    /// Takes up the events that have come.
    pub fn read(&mut self) -> io::Result<()> {
        if let Some(events) = &self.events {
            let Changes {
                forwarding_off,
                forwarding_on,
                interfaces,
                addresses,
            } = events.read()?;
            self.forwarding_on |= forwarding_on;
            self.forwarding.pending |= forwarding_off || forwarding_on;
            self.addresses.pending |= addresses;
            self.interfaces.pending |= interfaces;
        }
        Ok(())
    }

    /// The next change that is to be looked at now.
    pub fn next(&mut self, now: Instant) -> Option<HostChange> {
        if std::mem::take(&mut self.forwarding_on) {
            return Some(HostChange::ForwardingOn);
        }
        if self.addresses.is_due(now) {
            return Some(HostChange::Addresses);
        }
        if self.interfaces.is_due(now) {
            return Some(HostChange::Interfaces);
        }
        let due = self.forwarding.is_due(now);
        due.then_some(HostChange::Forwarding)
    }

    /// When a change is to be looked at that has come already.
    pub fn deadline(&self) -> Option<Instant> {
        let throttles = [&self.forwarding, &self.addresses, &self.interfaces];
        throttles.into_iter().filter_map(Throttle::deadline).min()
    }
}

/// How long nothing is looked at again after a look; twice as long each time while changes go on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Lets the first of many changes through at once, and those that follow in a pause together after it.
#[derive(Default)]
struct Throttle {
    pending: bool,
    /// The last pause and its end.
    last: Option<(Duration, Instant)>,
}

impl Throttle {
    /// Whether a change is to be looked at now, which it then is.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.pending && self.last.is_none_or(|(_, end)| end <= now);
        if due {
            let pause = match self.last {
                Some((pause, end)) if now < end + pause => (2 * pause).min(LONGEST_PAUSE),
                _ => FIRST_PAUSE,
            };
            self.last = Some((pause, now + pause));
            self.pending = false;
        }
        due
    }

    fn deadline(&self) -> Option<Instant> {
        let now = Instant::now;
        self.pending
            .then(|| self.last.map_or_else(now, |(_, end)| end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(changes: impl Iterator<Item = u64>) -> Vec<u64> {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let mut looks = Vec::new();
        for second in changes {
            throttle.pending = true;
            if throttle.is_due(start + Duration::from_secs(second)) {
                looks.push(second);
            }
        }
        looks
    }

    #[test]
    fn the_first_change_is_looked_at_at_once_and_many_more_and_more_seldom() {
        assert_eq!(looks([5].into_iter()), [5]);
        let many = looks([0, 0, 0].into_iter().chain(0..70));
        assert_eq!(many, [0, 1, 3, 7, 15, 31, 47, 63]);
        // Changes with long pauses in between are no flood.
        assert_eq!(looks((0..100).step_by(40)), [0, 40, 80]);
    }

    #[test]
    fn a_change_in_a_pause_is_looked_at_when_it_is_over() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.deadline(), None);
        throttle.pending = true;
        assert!(throttle.is_due(Instant::now()));
        assert_eq!(throttle.deadline(), None);
        throttle.pending = true;
        assert!(throttle.deadline() >= Some(now + FIRST_PAUSE));
    }
}
