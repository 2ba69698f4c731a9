//! An instance's rules in the kernel: put there, kept as they should be, and closed.
//!
//! A kernel before 5.12 lets others change them. There they are watched, and installed again.

use crate::netfilter::{Changed, Connection, Existing, NetfilterError, Ownership, TableEvents};
use crate::ruleset::Ruleset;
use crate::signals::Signals;
use log::{info, warn};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why the rules cannot be kept.
#[derive(Debug, Error)]
pub enum RulesError {
    /// The kernel tells nothing of changes.
    #[error("cannot wait for the kernel's news of changes to nftables")]
    Events(#[from] io::Error),
    /// The rules cannot be installed.
    #[error("cannot install the rules")]
    Install(#[from] NetfilterError),
}

/// Rules that others have changed are installed again at most this often, lest two programs fight at
/// full speed.
const INTERVAL: Duration = Duration::from_secs(1);

/// An instance's rules in the kernel.
pub struct Rules<'a> {
    connection: &'a Connection,
    /// As they are to be.
    ruleset: Ruleset,
    ownership: Ownership,
    /// News of changes that others make, where the kernel does not keep them from it.
    changes: Option<TableEvents>,
    /// The ruleset's, behind the last change of this instance's.
    generation: Cell<Option<u32>>,
    restored: Option<Instant>,
}

impl<'a> Rules<'a> {
    /// Installs the rules, with this ownership if the kernel can do that.
    pub fn install(
        connection: &'a Connection,
        ruleset: Ruleset,
        ownership: Ownership,
        existing: Existing<'_>,
    ) -> Result<Self, RulesError> {
        let mut rules = Rules {
            connection,
            ruleset,
            ownership,
            changes: None,
            generation: Cell::new(None),
            restored: None,
        };
        if ownership == Ownership::Kernel {
            let installed = rules.put(existing);
            if !rules.lack_ownership(&installed) {
                return installed.map(|()| rules).map_err(RulesError::Install);
            }
            warn!(
                "this kernel (before 5.12) lets others remove the rules: if they do, they are installed again"
            );
        }
        rules.ownership = Ownership::Nobody;
        // Before they are there, so that no change goes unnoticed.
        rules.changes = Some(TableEvents::open(&rules.ruleset.table, connection)?);
        rules.put(existing)?;
        Ok(rules)
    }

    /// Whether the kernel refused them because it knows no owners.
    fn lack_ownership(&self, installed: &Result<(), NetfilterError>) -> bool {
        match installed {
            Err(NetfilterError::NoOwnership) => true,
            // That may be a dead instance's.
            Err(NetfilterError::TableExists { owner: None, .. }) => {
                !self.connection.supports_ownership(&self.ruleset.table)
            }
            _ => false,
        }
    }

    fn put(&self, existing: Existing<'_>) -> Result<(), NetfilterError> {
        let connection = self.connection;
        let generation = connection.install(&self.ruleset, self.ownership, existing)?;
        self.generation.set(generation);
        Ok(())
    }

    /// What the rules belong to.
    pub fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// The name of their table.
    pub fn table(&self) -> &str {
        &self.ruleset.table
    }

    /// Can be read from when others may have changed the rules; nothing if they cannot.
    pub fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(AsFd::as_fd)
    }

    /// Installs the rules anew if somebody else has changed them: at once when a signal comes, which
    /// is left to be waited for.
    pub fn restore_if_changed(&mut self, signals: &Signals) -> Result<(), RulesError> {
        let Some(changes) = &self.changes else {
            return Ok(());
        };
        let table = self.table();
        match changes.changed()? {
            Changed::No => return Ok(()),
            // That is older than the rules.
            _ if self.is_last_to_change()? => return Ok(()),
            Changed::Yes => {
                warn!("somebody else has changed table inet {table}: installing it again");
            }
            Changed::Unknown => warn!(
                "the kernel had more news of nftables than it could keep: installing table inet {table} again, in case it was changed"
            ),
        }
        let since = self.restored.map(|at| at.elapsed());
        let pause = since.map_or(Duration::ZERO, |since| INTERVAL.saturating_sub(since));
        signals.sleep(pause)?;
        self.restore()?;
        self.restored = Some(Instant::now());
        info!("installed table inet {} again", self.table());
        Ok(())
    }

    fn is_last_to_change(&self) -> Result<bool, NetfilterError> {
        let generation = self.connection.generation()?;
        Ok(generation.is_some() && generation == self.generation.get())
    }

    /// Installs the rules anew, whatever has become of them.
    pub fn restore(&self) -> Result<(), RulesError> {
        Ok(self.put(Existing::Replace(&|| true))?)
    }

    /// Takes no new connections any more. Those that run go on as they are.
    pub fn close(&mut self) -> Result<(), NetfilterError> {
        self.ruleset.close();
        self.connection.close(&self.ruleset)
    }
}
