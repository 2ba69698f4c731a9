//! `nodefwd status --ready`, a readiness probe: whether an instance forwards. It reads no more than that takes.

use super::forwards::MAX_ROWS;
use super::options::{self, Lists};
use super::{StatusError, accepts, forwarding, forwards_of, tables};
use crate::config::Name;
use crate::lock::Holder;
use crate::nftables::list::{Table, TableInfo};
use crate::nftables::{Nftables, NftablesError};

/// Fails unless the instance, or any if no name is given, runs, accepts connections, and has its families
/// forwarded by the kernel.
pub fn check(name: Option<&Name>) -> Result<(), StatusError> {
    let nftables = &Nftables::open()?;
    let tables = tables(nftables, name)?;
    let mut unmet = None;
    for table in &tables {
        if !is_dead(table) && accepts(nftables, &table.name)? {
            match not_forwarding(nftables, &table.name)? {
                None => return Ok(()),
                reason => unmet = reason,
            }
        }
    }
    if let Some(reason) = unmet {
        return Err(StatusError::NotForwarding(reason));
    }
    Err(match (name, &tables[..]) {
        (None, _) => StatusError::NoneReady,
        (Some(name), []) => StatusError::Missing(name.table()),
        (Some(name), [table, ..]) if is_dead(table) => StatusError::Dead(name.table()),
        (Some(name), _) => StatusError::Closed(name.table()),
    })
}

/// Whether an instance that died has left the table.
fn is_dead(table: &TableInfo) -> bool {
    holder(table) == Some(Holder::None)
}

/// The process that has the lock of a table without an owner, which outlives its process; the lock does not.
pub fn holder(table: &TableInfo) -> Option<Holder> {
    let has_none = table.owner.is_none();
    has_none.then(|| Holder::of(&table.name))
}

/// Why this host does not forward what the table has rules for.
fn not_forwarding(nftables: &Nftables, table: &str) -> Result<Option<String>, NftablesError> {
    let table = Table::inet(table);
    let forwards = forwards_of(&table, MAX_ROWS)?.unwrap_or_default();
    let lists = Lists::read(&table)?.unwrap_or_default();
    let sources = options::sources(nftables, &table, &forwards, &lists)?;
    let families = forwarding::families(&lists.listening, &sources, &forwards);
    let reasons: Vec<String> = families.into_iter().filter_map(|it| it.reason).collect();
    Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
}
