//! `nodefwd status --ready`: whether an instance forwards. It reads no more than that takes.

use super::forwards::{self, MAX_ROWS, accepts_connections};
use super::{StatusError, forwarding};
use crate::config::Name;
use crate::lock::Holder;
use crate::nftables::list::{Table, TableInfo};
use crate::nftables::{Nftables, NftablesError};
use crate::siblings;

/// Fails unless the instance, or any if no name is given, runs and accepts connections.
pub fn check(nftables: &Nftables, name: Option<&Name>) -> Result<(), StatusError> {
    let tables = tables(nftables, name)?;
    // A table without an owner outlives its process; the lock does not.
    let is_dead =
        |table: &TableInfo| table.owner.is_none() && Holder::of(&table.name) == Holder::None;
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

/// Why this host does not forward what the table has rules for.
fn not_forwarding(nftables: &Nftables, table: &str) -> Result<Option<String>, NftablesError> {
    let table = Table::inet(table);
    let forwards = nftables.list(|socket| forwards::forwards(socket, &table, MAX_ROWS))?;
    let families = forwarding::families(nftables, &table, &forwards.unwrap_or_default())?;
    let reasons: Vec<String> = families.into_iter().filter_map(|it| it.reason).collect();
    Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
}

/// Whether the table of this name lets new connections in.
pub fn accepts(nftables: &Nftables, table: &str) -> Result<bool, NftablesError> {
    nftables.list(|socket| accepts_connections(socket, &Table::inet(table)))
}

/// The table of this name, or those of all instances.
fn tables(nftables: &Nftables, name: Option<&Name>) -> Result<Vec<TableInfo>, NftablesError> {
    Ok(match name {
        Some(name) => nftables.table(&name.table())?.into_iter().collect(),
        None => siblings::instances(nftables)?,
    })
}
