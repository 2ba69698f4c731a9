//! Keeping rules that nobody protects: on kernels before 5.12, where a table has no owner.

use crate::netfilter::{Connection, NetfilterError, Ownership, TableEvents};
use crate::ruleset::Ruleset;
use crate::signals::Signals;
use log::{info, warn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why the rules cannot be kept.
#[derive(Debug, Error)]
pub enum GuardError {
    /// The kernel tells nothing of changes.
    #[error("cannot wait for the kernel's news of changes to nftables")]
    Events(#[from] io::Error),
    /// The rules cannot be installed again.
    #[error("cannot install the rules again")]
    Install(#[from] NetfilterError),
}

/// The rules are installed again at most this often, lest two programs fight at full speed.
const INTERVAL: Duration = Duration::from_secs(1);

/// What keeps the rules.
pub struct Guard<'a> {
    connection: &'a Connection,
    events: TableEvents,
    ruleset: Ruleset,
    restored: Option<Instant>,
}

impl<'a> Guard<'a> {
    /// Begins to listen for changes, and installs the rules then: no change goes unnoticed.
    pub fn install(connection: &'a Connection, ruleset: Ruleset) -> Result<Self, GuardError> {
        let events = TableEvents::open(&ruleset.table, connection)?;
        connection.install(&ruleset, Ownership::Nobody)?;
        Ok(Guard {
            connection,
            events,
            ruleset,
            restored: None,
        })
    }

    /// Installs the rules anew if somebody else has changed them: at once when a signal comes, which
    /// is left to be waited for.
    pub fn restore(&mut self, signals: &Signals) -> Result<(), GuardError> {
        if !self.events.changed()? {
            return Ok(());
        }
        let table = &self.ruleset.table;
        warn!("somebody else has changed table inet {table}: installing it again");
        let since = self.restored.map(|at| at.elapsed());
        let pause = since.map_or(Duration::ZERO, |since| INTERVAL.saturating_sub(since));
        signals.sleep(pause)?;
        self.connection.install(&self.ruleset, Ownership::Nobody)?;
        self.restored = Some(Instant::now());
        info!("installed table inet {table} again");
        Ok(())
    }

    /// From now on the rules are to take no new connections.
    pub fn keep_closed(&mut self) {
        self.ruleset.close();
    }
}

impl AsFd for Guard<'_> {
    /// Can be read from when the rules may have been changed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
