//! What is around an instance: routes, other programs' tables and sockets.

use super::paths::Paths;
use super::sockets::{self, Sockets};
use super::{Finding, Level, filter, kernel, nat};
use crate::config::Config;
use crate::firewall::Firewall;
use crate::logging::with_causes;
use crate::netlink::gives_up;
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::RtnetlinkError;
use std::error::Error as Cause;
use thiserror::Error;

/// Why the kernel could not be asked.
#[derive(Debug, Error)]
pub enum QueryError {
    #[error(transparent)]
    Nftables(#[from] NftablesError),
    #[error(transparent)]
    Routes(#[from] RtnetlinkError),
}

/// A port such as clients have: of the range that RFC 6335 sets aside for them, and Linux too
/// (net.ipv4.ip_local_port_range).
pub const CLIENT_PORT: u16 = 54321;

/// How often everything is read again because the ruleset has changed meanwhile.
const MAX_READ_RETRIES: usize = 10;

/// What is looked at around an instance.
pub struct Scope {
    pub max_rules: usize,
    /// Whether the instance's own table is there.
    pub installed: bool,
}

/// Routes, other programs' tables and sockets. Without a socket to nftables, tables are left out.
pub fn surroundings(nftables: Option<&Nftables>, config: &Config, scope: &Scope) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sockets = Sockets::read(config);
    match Paths::find(config) {
        Ok(paths) => {
            findings.extend(paths.findings(config, sockets.as_ref().ok()));
            if let Some(nftables) = nftables {
                let tables = other_tables(nftables, config, &paths, scope);
                let unread = |error| vec![unread("firewall", &error)];
                findings.extend(tables.unwrap_or_else(unread));
            }
        }
        // Without them it is not known which rules a packet meets.
        Err(error) => findings.extend(["routes", "firewall"].map(|part| unread(part, &error))),
    }
    findings.extend(nat::legacy(config));
    match &sockets {
        Ok(sockets) => findings.extend(sockets::findings(config, sockets)),
        Err(error) => findings.push(unread("sockets", error)),
    }
    findings.push(kernel::connections());
    findings
}

/// What other programs' tables do.
fn other_tables(
    nftables: &Nftables,
    config: &Config,
    paths: &Paths,
    scope: &Scope,
) -> Result<Vec<Finding>, QueryError> {
    for _ in 0..MAX_READ_RETRIES {
        let generation = nftables.generation()?;
        let mut firewall = Firewall::read(nftables, scope.max_rules)?;
        let mut findings = nat::findings(nftables, &mut firewall, config, paths, scope.installed)?;
        findings.extend(filter::findings(&mut firewall, config, paths)?);
        if nftables.generation()? == generation {
            return Ok(findings);
        }
    }
    Err(NftablesError::Contended(MAX_READ_RETRIES).into())
}

fn unread(subject: &'static str, error: &dyn Cause) -> Finding {
    let level = if gives_up() {
        Level::Unseen
    } else {
        Level::Doubt
    };
    Finding::new(level, subject, with_causes(error))
}
