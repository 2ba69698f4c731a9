//! What runs in this network namespace, as the kernel has it. Nothing here asks the instances
//! themselves, so it works for anyone who may read nftables.

use crate::cli::StatusOptions;
use crate::config::Name;
use crate::netfilter::{Connection, NetfilterError, TableInfo};
use crate::ruleset::TABLE_PREFIX;
use std::io::{self, Write};
use thiserror::Error;

/// Why there is no status, or why it is bad.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The kernel did not say.
    #[error("cannot read the rules")]
    Read(#[from] NetfilterError),
    /// The rules of an instance are missing.
    #[error("not ready: the kernel has no table inet {0}")]
    NotReady(String),
    /// The rules of every instance are missing.
    #[error("not ready: the kernel has no table inet {TABLE_PREFIX}*")]
    NoneReady,
    /// There is no instance of this name.
    #[error("there is no instance '{0}' here: nodefwd status lists those that there are")]
    Unknown(Name),
    /// The status was not taken.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Shows what the options ask for.
pub fn run(options: &StatusOptions) -> Result<(), StatusError> {
    let connection = Connection::open()?;
    let mut instances = connection.instances()?;
    if let Some(name) = &options.name {
        let table = name.table();
        instances.retain(|instance| instance.name == table);
    }
    match (instances.is_empty(), &options.name) {
        (true, Some(name)) if options.ready => Err(StatusError::NotReady(name.table())),
        (true, None) if options.ready => Err(StatusError::NoneReady),
        (true, Some(name)) => Err(StatusError::Unknown(name.clone())),
        _ if options.ready => Ok(()),
        _ => show(&instances),
    }
}

fn show(instances: &[TableInfo]) -> Result<(), StatusError> {
    let mut out = io::stdout().lock();
    for instance in instances {
        writeln!(out, "{}", instance.name)?;
    }
    Ok(())
}
