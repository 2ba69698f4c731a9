//! `nodefwd check`: would forwarding work here, and if not, why not? Looks at everything that a
//! forwarded connection meets on this host, and changes nothing.

mod blocker;
mod filter;
mod fix;
mod ingress;
mod kernel;
mod nat;
mod paths;
mod sockets;

use crate::config::{Config, Listen, first_few, summary};
use crate::firewall::Firewall;
use crate::logging::with_causes;
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::RtnetlinkError;
use anstream::{AutoStream, ColorChoice};
use env_logger::fmt::style::{AnsiColor, Style};
use log::{debug, warn};
use paths::Paths;
use std::error::Error as Cause;
use std::io::{self, Write};
use thiserror::Error;

/// Why a check did not end well.
#[derive(Debug, Error)]
pub enum CheckError {
    #[error("{0} of the checks failed")]
    Failures(usize),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Why the kernel could not be asked.
#[derive(Debug, Error)]
enum QueryError {
    #[error(transparent)]
    Nftables(#[from] NftablesError),
    #[error(transparent)]
    Routes(#[from] RtnetlinkError),
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    /// Something may be wrong: check does not know all that matters.
    Doubt,
    /// Something is wrong, but connections are forwarded.
    Warning,
    /// Connections are not forwarded, or not all.
    Failure,
}

/// What a check found, on one line, with the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    subject: &'static str,
    text: String,
}

impl Finding {
    fn new(level: Level, subject: &'static str, text: impl Into<String>) -> Self {
        Finding {
            level,
            subject,
            text: text.into(),
        }
    }
}

/// A port such as clients have: of the range that RFC 6335 sets aside for them, and Linux too
/// (net.ipv4.ip_local_port_range).
const CLIENT_PORT: u16 = 54321;

/// How many rules are evaluated, each counted as often as a packet meets it.
const MAX_RULES: usize = 10_000_000;

/// How many rules, and how many forwards, an instance that has just started looks at.
const MAX_RULES_AT_START: usize = 10_000;
const MAX_FORWARDS_AT_START: usize = 256;

/// Checks everything and prints what it finds. Fails if a check does.
pub fn run(mut config: Config) -> Result<(), CheckError> {
    let mut findings = input(&config);
    findings.push(kernel::capability());
    let permitted = findings
        .iter()
        .all(|finding| finding.level != Level::Failure);
    kernel::forwarding(&mut config, &mut findings);
    let accepted = match permitted.then(Nftables::open) {
        None => None,
        Some(opened) => kernel::rules(opened, &config, &mut findings),
    };
    if let Some((nftables, ruleset)) = &accepted {
        findings.push(kernel::conflicts(nftables, ruleset, &config));
    }
    let nftables = accepted.as_ref().map(|(nftables, _)| nftables);
    findings.extend(surroundings(nftables, &config, MAX_RULES));
    print(&findings)?;
    let failed = |finding: &&Finding| finding.level == Level::Failure;
    match findings.iter().filter(failed).count() {
        0 => Ok(()),
        count => Err(CheckError::Failures(count)),
    }
}

/// Logs what is surely wrong around an instance whose rules are installed.
pub fn warn(config: &Config) {
    // One of its own, as the search may be given up in the middle of a reply.
    let nftables = Nftables::open();
    let mut config = config.clone();
    config.forwards.truncate(MAX_FORWARDS_AT_START);
    for Finding {
        level,
        subject,
        text,
    } in surroundings(nftables.as_ref().ok(), &config, MAX_RULES_AT_START)
    {
        match level {
            Level::Ok | Level::Doubt => debug!("{subject}: {text}"),
            Level::Warning | Level::Failure => warn!("{subject}: {text}"),
        }
    }
    debug!("checked routes, other tables and sockets");
}

/// Routes, other programs' tables and sockets. Without a socket to nftables, tables are left out.
fn surroundings(nftables: Option<&Nftables>, config: &Config, max_rules: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sockets = sockets::bound(config);
    match Paths::find(config) {
        Ok(paths) => {
            findings.extend(paths.findings(config, sockets.as_deref().ok()));
            if let Some(nftables) = nftables {
                let tables = other_tables(nftables, config, &paths, max_rules);
                let unread = |error| vec![unread("firewall", &error)];
                findings.extend(tables.unwrap_or_else(unread));
            }
        }
        Err(error) => findings.push(unread("routes", &error)),
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
    max_rules: usize,
) -> Result<Vec<Finding>, QueryError> {
    let mut firewall = Firewall::read(nftables, max_rules)?;
    let mut findings = nat::findings(&mut firewall, config, paths)?;
    findings.extend(filter::findings(&mut firewall, config, paths)?);
    Ok(findings)
}

fn unread(subject: &'static str, error: &dyn Cause) -> Finding {
    Finding::new(Level::Doubt, subject, with_causes(error))
}

fn input(config: &Config) -> Vec<Finding> {
    let to = match &config.listen {
        Listen::Local => "an address of this host".into(),
        Listen::Any => "any address".into(),
        Listen::Addresses(addresses) => first_few(addresses.iter()),
    };
    let what = format!("{}, sent to {to}", summary(&config.forwards));
    let mut findings = vec![Finding::new(Level::Ok, "input", what)];
    let warnings = config.warnings();
    findings.extend(warnings.map(|text| Finding::new(Level::Warning, "input", text)));
    findings
}

fn print(findings: &[Finding]) -> io::Result<()> {
    // On a terminal only, and not with NO_COLOR: as logging has it.
    let coloured = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    let mut lines = String::new();
    for Finding {
        level,
        subject,
        text,
    } in findings
    {
        let (word, colour) = match level {
            Level::Ok => ("ok", AnsiColor::Green),
            Level::Doubt | Level::Warning => ("warning", AnsiColor::Yellow),
            Level::Failure => ("failure", AnsiColor::Red),
        };
        let style = if coloured {
            colour.on_default()
        } else {
            Style::new()
        };
        lines += &format!("{style}{word}:{style:#} {subject}: {text}\n");
    }
    io::stdout().write_all(lines.as_bytes())
}
