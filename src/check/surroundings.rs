//! What is around an instance: routes, other programs' tables and sockets.

use super::client::Client;
use super::paths::{self, Paths};
use super::sockets::{self, Sockets};
use super::{Finding, Level, connections, filter, flows, kernel, legacy};
use super::{links, listen, nat, saved};
use crate::config::{Config, Family};
use crate::firewall::Firewall;
use crate::logging::with_causes;
use crate::netlink::gives_up;
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::RtnetlinkError;
use crate::xfrm::{self, Policy, XfrmError};
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
    /// Whether the instance has just started: then only what is sure matters.
    pub at_start: bool,
    /// The only client that is followed.
    pub from: Option<Client>,
}

/// Routes, other programs' tables and sockets. Without a socket to nftables, tables are left out.
pub fn surroundings(
    nftables: Option<&Nftables>,
    mut config: Config,
    scope: &Scope,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let opened = Paths::open(scope.from, &config.listen).inspect(|paths| {
        let unused = paths.unused_families(&config);
        findings.extend(paths::unused(&unused, &config));
        for family in unused {
            config.drop_family(family);
        }
    });
    if let Some(client) = scope.from {
        for family in Family::ALL {
            if family != client.family() {
                config.drop_family(family);
            }
        }
    }
    let config = &config;
    match kernel::ignored_advertisements(config) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(unread("forwarding", &error)),
    }
    let sockets = Sockets::read(config);
    let followed = opened.and_then(|mut paths| {
        paths.follow(config)?;
        let found = paths.findings(config, sockets.as_ref().ok())?;
        Ok((paths, found))
    });
    match followed {
        Ok((paths, found)) => {
            findings.extend(found);
            findings.extend(listen::findings(&paths.routes, config));
            findings.extend(links::hairpin(&paths, config));
            findings.extend(links::narrow(&paths, config));
            if let Some(nftables) = nftables {
                let tables = other_tables(nftables, config, &paths, scope);
                let unread = |error| vec![unread("firewall", &error)];
                findings.extend(tables.unwrap_or_else(unread));
            }
        }
        // Without them it is not known which rules a packet meets.
        Err(error) => findings.extend(["routes", "firewall"].map(|part| unread(part, &error))),
    }
    if !scope.at_start {
        findings.extend(legacy::findings(config));
    }
    match &sockets {
        Ok(sockets) => findings.extend(sockets::findings(config, sockets)),
        Err(error) => findings.push(unread("sockets", error)),
    }
    findings.extend(connections::findings(config));
    findings.extend(saved::findings());
    let is_failure = |finding: &Finding| finding.level == Level::Failure;
    // What is wrong here leaves connections without an answer.
    if scope.installed && !scope.at_start && !findings.iter().any(is_failure) {
        match flows::unanswered(config) {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(unread("connections", &error)),
        }
    }
    findings
}

/// What other programs' tables do.
fn other_tables(
    nftables: &Nftables,
    config: &Config,
    paths: &Paths,
    scope: &Scope,
) -> Result<Vec<Finding>, QueryError> {
    let policies = if scope.at_start {
        Ok(Vec::new())
    } else {
        xfrm::policies()
    };
    let unseen = unseen(paths, &policies)?;
    for _ in 0..MAX_READ_RETRIES {
        let generation = nftables.generation()?;
        let mut firewall = Firewall::read(nftables, scope.max_rules)?;
        let mut findings = nat::findings(&mut firewall, config, paths, scope.installed)?;
        let mut found = filter::findings(&mut firewall, config, paths)?;
        if !unseen.is_empty() {
            // What was not looked at may drop it.
            found.retain(|finding| finding.level != Level::Ok);
        }
        if let Err(error @ XfrmError::OnlyTo64Bit(_)) = &policies {
            note(&mut found, error);
        }
        findings.extend(found);
        if nftables.generation()? == generation {
            findings.extend(unseen);
            return Ok(findings);
        }
    }
    Err(NftablesError::Contended(MAX_READ_RETRIES).into())
}

/// What may drop packets too, but is not looked into: programs at interfaces, and policies of IPsec.
fn unseen(
    paths: &Paths,
    policies: &Result<Vec<Policy>, XfrmError>,
) -> Result<Vec<Finding>, RtnetlinkError> {
    let mut unseen: Vec<Finding> = paths.filtered()?.into_iter().collect();
    unseen.extend(match policies {
        Ok(policies) => paths.subject_to(policies),
        // On such a kernel there is no way to look at them: a warning each time would hide others.
        Err(XfrmError::OnlyTo64Bit(_)) => None,
        // The rest of what is found stays.
        Err(error) => Some(unread("firewall", error)),
    });
    Ok(unseen)
}

/// Says at the end of the lines that are well what they know nothing of.
fn note(findings: &mut [Finding], error: &XfrmError) {
    let well = findings
        .iter_mut()
        .filter(|finding| finding.level == Level::Ok);
    well.for_each(|finding| finding.text += &format!("; {error}"));
}

fn unread(subject: &'static str, error: &dyn Cause) -> Finding {
    let level = if gives_up() {
        Level::Unseen
    } else {
        Level::Doubt
    };
    Finding::new(level, subject, with_causes(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A 32-bit program on a 64-bit kernel can do nothing about it.
    #[test]
    fn what_no_program_of_its_kind_can_see_is_a_note_and_no_warning() {
        let error = XfrmError::OnlyTo64Bit(io::ErrorKind::Unsupported.into());
        let finding = |level| Finding::new(level, "firewall", "it");
        let mut findings = [Level::Ok, Level::Failure].map(finding);
        note(&mut findings, &error);
        assert_eq!(
            findings.map(|finding| finding.text),
            [
                "it; not looked at: policies of IPsec, which this kernel shows to 64-bit programs only",
                "it"
            ]
        );
    }
}
