//! An instance's rules in the kernel: installed, kept as they should be, and closed.
//!
//! On a kernel before 5.12 other processes can change them. There changes are noticed, and the rules
//! installed again.

use super::fast_path::Interfaces;
use super::install::{IfExists, InstallError, install};
use super::signals::Signals;
use crate::config::{Config, Down, InterfaceName};
use crate::fast_path::{Device, forget_missing};
use crate::logging::with_causes;
use crate::nftables::{Changed, Nftables, NftablesError, TableEvents};
use crate::rtnetlink::RtnetlinkError;
use crate::ruleset::{Flowtable, Ruleset};
use crate::siblings::{Claims, SiblingError};
use log::{debug, info, warn};
use std::cell::Cell;
use std::io;
use std::mem::replace;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why the rules cannot be installed or kept.
#[derive(Debug, Error)]
pub enum RulesError {
    #[error("cannot wait for the kernel's events of changes to nftables")]
    Events(#[from] io::Error),
    #[error(transparent)]
    Interfaces(#[from] RtnetlinkError),
    #[error("cannot install the rules")]
    Install(#[from] InstallError),
}

impl From<NftablesError> for RulesError {
    fn from(error: NftablesError) -> Self {
        RulesError::Install(error.into())
    }
}

/// Rules that another process has changed are installed again at most this often, lest two programs
/// fight at full speed.
const RESTORE_INTERVAL: Duration = Duration::from_secs(1);

/// What has become of interfaces that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// The fast path takes them, if there were any.
    Done,
    /// It must be made first.
    NeedsRules,
}

fn names(devices: &[Device]) -> Vec<InterfaceName> {
    devices.iter().map(|device| device.name).collect()
}

/// An instance's rules in the kernel.
pub struct Rules<'a> {
    nftables: &'a Nftables,
    signals: &'a Signals,
    /// As they should be.
    ruleset: Ruleset,
    /// Whether the last reload has failed, which the rules are to show.
    reload_failed: bool,
    claims: Claims,
    /// Of the fast path.
    interfaces: Interfaces,
    /// Events of changes by other processes, if the table has no owner.
    changes: Option<TableEvents>,
    /// The generation after this instance's last change.
    generation: Cell<Option<u32>>,
    restored: Option<Instant>,
}

impl<'a> Rules<'a> {
    /// Installs the rules that do what `config` asks for, but lead to no destination that is down, and defers
    /// signals before anything is changed.
    /// If the kernel has no tables with an owner, the table gets none.
    pub fn install(
        nftables: &'a Nftables,
        signals: &'a Signals,
        config: &Config,
        down: &Down,
        if_exists: IfExists<'_>,
    ) -> Result<Self, RulesError> {
        let mut interfaces = Interfaces::default();
        let devices = interfaces.look(config, nftables);
        let mut ruleset = Ruleset::without(config, down);
        ruleset.add_fast_path(config, names(&devices));
        let mut rules = Rules {
            nftables,
            signals,
            ruleset,
            reload_failed: false,
            claims: Claims::of(config),
            interfaces,
            changes: None,
            generation: Cell::new(None),
            restored: None,
        };
        if rules.ruleset.owner {
            let installed = rules.put(if_exists);
            if !rules.kernel_lacks_owner(&installed) {
                installed?;
                rules.applied(devices);
                return Ok(rules);
            }
            warn!(
                "this kernel (before 5.12) lets other processes remove the rules: if one does, they are installed again"
            );
        }
        rules.ruleset.owner = false;
        // Before the rules are there, so that no change goes unnoticed.
        rules.changes = Some(TableEvents::open(&rules.ruleset.table, nftables)?);
        rules.put(if_exists)?;
        rules.applied(devices);
        Ok(rules)
    }

    /// Whether the kernel refused the rules because it has no tables with an owner.
    fn kernel_lacks_owner(&self, installed: &Result<(), RulesError>) -> bool {
        let Err(RulesError::Install(InstallError::Sibling(error))) = installed else {
            return false;
        };
        match error {
            SiblingError::Nftables(NftablesError::NoOwner) => true,
            // An instance that died may have left that table.
            SiblingError::TableExists { owner: None, .. } => {
                !self.nftables.supports_owner(&self.ruleset.table)
            }
            _ => false,
        }
    }

    /// The rules in the kernel have been made for these interfaces, and may do without.
    fn applied(&mut self, mut devices: Vec<Device>) {
        if self.ruleset.flowtable.is_none() {
            devices.clear();
        }
        self.interfaces.apply(devices);
    }

    /// Installs the rules; without a fast path if the kernel refuses that, and it need not be: in one transaction
    /// that is carried out.
    fn put(&mut self, if_exists: IfExists<'_>) -> Result<(), RulesError> {
        if let Some(flowtable) = &mut self.ruleset.flowtable {
            // For one that is gone, kernels up to 6.12 refuse all rules.
            forget_missing(&mut flowtable.devices)?;
            if flowtable.devices.is_empty() {
                self.ruleset.remove_fast_path();
            }
        }
        match self.try_to_put(if_exists) {
            Err(RulesError::Install(InstallError::Sibling(SiblingError::Nftables(error))))
                if error.is_of_fast_path() && self.interfaces.give_up(&error) =>
            {
                self.ruleset.remove_fast_path();
                self.try_to_put(if_exists)
            }
            put => put,
        }
    }

    fn try_to_put(&self, if_exists: IfExists<'_>) -> Result<(), RulesError> {
        let defer = || self.signals.defer();
        let generation = install(
            self.nftables,
            &self.ruleset,
            &self.claims,
            if_exists,
            &defer,
        )?;
        self.generation.set(generation);
        Ok(())
    }

    /// The socket that they belong to.
    pub fn nftables(&self) -> &'a Nftables {
        self.nftables
    }

    /// The name of their table.
    pub fn table(&self) -> &str {
        &self.ruleset.table
    }

    /// Readable when another process may have changed the rules; `None` if none can.
    pub fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(AsFd::as_fd)
    }

    /// Installs the rules again if another process has changed them: at once when a signal comes, which
    /// is left to be waited for.
    pub fn restore_if_changed(&mut self) -> Result<(), RulesError> {
        let Some(changes) = &self.changes else {
            return Ok(());
        };
        let table = self.table();
        match changes.changed()? {
            Changed::No => return Ok(()),
            // The events are older than the rules.
            _ if self.is_last_to_change()? => return Ok(()),
            Changed::Yes => {
                warn!("another process has changed table inet {table}: installing it again");
            }
            Changed::Unknown => warn!(
                "the kernel had more events of nftables than it could keep: installing table inet {table} again, in case it was changed"
            ),
        }
        let since = self.restored.map(|at| at.elapsed());
        let pause = since.map_or(Duration::ZERO, |since| {
            RESTORE_INTERVAL.saturating_sub(since)
        });
        self.signals.sleep(pause)?;
        self.restore()?;
        self.restored = Some(Instant::now());
        info!("installed table inet {} again", self.table());
        Ok(())
    }

    fn is_last_to_change(&self) -> Result<bool, NftablesError> {
        let generation = self.nftables.generation()?;
        Ok(generation.is_some() && generation == self.generation.get())
    }

    /// Installs the rules again, whatever has become of them.
    pub fn restore(&mut self) -> Result<(), RulesError> {
        self.put(IfExists::Replace(&|| true))
    }

    /// Puts the rules that do what another config asks for in their place, in one transaction: with or without
    /// [that the last reload has failed](Self::mark_failed_reload). If that fails, they stay.
    pub fn change(
        &mut self,
        config: &Config,
        down: &Down,
        reload_failed: bool,
    ) -> Result<(), RulesError> {
        let devices = self.interfaces.look(config, self.nftables);
        let mut ruleset = Ruleset::without(config, down);
        ruleset.add_fast_path(config, names(&devices));
        ruleset.owner = self.ruleset.owner;
        if reload_failed {
            ruleset.mark_failed_reload();
        }
        let before = (
            replace(&mut self.ruleset, ruleset),
            replace(&mut self.claims, Claims::of(config)),
        );
        let changed = self.restore();
        if changed.is_err() {
            (self.ruleset, self.claims) = before;
        } else {
            self.reload_failed = reload_failed;
            self.applied(devices);
        }
        changed
    }

    /// Has the fast path take the interfaces that have come. Those that are gone are forgotten, as the kernel does.
    pub fn follow_interfaces(&mut self, config: &Config) -> Result<Followed, RulesError> {
        if !config.wants_fast_path() {
            return Ok(Followed::Done);
        }
        let (kept, new) = self.interfaces.changes(config, self.nftables)?;
        let all = [kept.clone(), new.clone()].concat();
        let Some(flowtable) = &mut self.ruleset.flowtable else {
            return Ok(if new.is_empty() {
                Followed::Done
            } else {
                Followed::NeedsRules
            });
        };
        flowtable.devices = names(&kept);
        self.interfaces.apply(kept);
        if !new.is_empty() {
            let more = Flowtable {
                devices: names(&new),
                ..flowtable.clone()
            };
            self.nftables.add_interfaces(&self.ruleset.table, &more)?;
            flowtable.devices = names(&all);
            self.interfaces.apply(all);
        }
        Ok(Followed::Done)
    }

    /// Leaves destinations that fail out of new connections, and takes in the others: changes only the chains of
    /// their forwards, in one transaction. If that fails, the rules stay.
    pub fn leave_out(&mut self, config: &Config, down: &Down) -> Result<(), RulesError> {
        let mut ruleset = Ruleset::without(config, down);
        let flowtable = self.ruleset.flowtable.as_ref();
        let devices = flowtable.map(|flowtable| flowtable.devices.clone());
        ruleset.add_fast_path(config, devices.unwrap_or_default());
        ruleset.owner = self.ruleset.owner;
        if self.reload_failed {
            ruleset.mark_failed_reload();
        }
        let before = replace(&mut self.ruleset, ruleset);
        let changed = self.nftables.change(&before, &self.ruleset);
        // Without an owner, another process may have changed the chains.
        let changed = changed.or_else(|error| {
            debug!("{}", with_causes(&error));
            self.restore()
        });
        if changed.is_err() {
            self.ruleset = before;
        }
        changed
    }

    /// Whether the last reload has failed.
    pub fn has_failed_reload(&self) -> bool {
        self.reload_failed
    }

    /// Adds the chain by which `status` tells that the last reload has failed. If that fails, the next change does.
    pub fn mark_failed_reload(&mut self) -> Result<(), NftablesError> {
        self.reload_failed = true;
        let mut marked = self.ruleset.clone();
        if marked.mark_failed_reload() {
            self.nftables.change(&self.ruleset, &marked)?;
            self.ruleset = marked;
        }
        Ok(())
    }

    /// Empties the chains that new connections come in through. Running connections go on.
    pub fn close(&mut self) -> Result<(), NftablesError> {
        self.nftables.close(&self.ruleset)?;
        self.ruleset.close();
        Ok(())
    }
}
