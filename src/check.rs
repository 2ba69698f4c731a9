//! Would it work here, and if not, why not? Looks at everything that a forwarded connection meets
//! on this host, and changes nothing.

mod encounter;
mod entrance;
mod filter;
mod kernel;
mod nat;
mod remedy;
mod sockets;
mod ways;

use crate::config::{Config, Family, Forward, Listen};
use crate::instance;
use crate::netfilter::{Connection, Firewall, NetfilterError};
use anstream::{AutoStream, ColorChoice};
use env_logger::fmt::style::{AnsiColor, Style};
use log::{debug, warn};
use std::io::{self, Write};
use thiserror::Error;
use ways::Ways;

/// Why a check did not end well.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Some checks failed.
    #[error("{0} of the checks failed")]
    Failures(usize),
    /// The list was not taken.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Well.
    Ok,
    /// Something may be wrong, but cannot be told from here.
    Doubt,
    /// Something is wrong, but connections are forwarded.
    Warning,
    /// Connections are not forwarded, or not all.
    Failure,
}

/// What a check found: for people, on one line, with the command that mends it.
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

/// How many rules are looked at, each as often as a packet meets it; and by an instance that has just
/// begun.
const BUDGET: usize = 10_000_000;
const BUDGET_AT_START: usize = 10_000;

/// How many forwards an instance that has just begun looks at.
const FORWARDS_AT_START: usize = 256;

/// Checks everything and prints what it finds. Fails if a check does.
pub fn run(config: Config) -> Result<(), CheckError> {
    let mut findings = input(&config);
    findings.push(kernel::capability());
    let permitted = findings
        .iter()
        .all(|finding| finding.level != Level::Failure);
    let config = kernel::forwarding(config, &mut findings);
    let connection = match permitted.then(Connection::open) {
        None => None,
        Some(opened) => kernel::rules(opened, &config, &mut findings),
    };
    if let Some((connection, ownership)) = &connection {
        findings.push(kernel::rivals(connection, *ownership, &config));
    }
    let connection = connection.as_ref().map(|(connection, _)| connection);
    findings.extend(surroundings(connection, &config, BUDGET));
    print(&findings)?;
    let failed = |finding: &&Finding| finding.level == Level::Failure;
    match findings.iter().filter(failed).count() {
        0 => Ok(()),
        count => Err(CheckError::Failures(count)),
    }
}

/// Logs what is surely wrong around an instance that has its rules in the kernel.
pub fn warn(connection: &Connection, config: &Config) {
    let mut config = config.clone();
    config.forwards.truncate(FORWARDS_AT_START);
    for Finding {
        level,
        subject,
        text,
    } in surroundings(Some(connection), &config, BUDGET_AT_START)
    {
        match level {
            Level::Ok | Level::Doubt => debug!("{subject}: {text}"),
            Level::Warning | Level::Failure => warn!("{subject}: {text}"),
        }
    }
}

/// What takes but a few questions to the kernel. The tables of others can be looked at over a connection
/// only.
fn surroundings(connection: Option<&Connection>, config: &Config, budget: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sockets = sockets::bound(config);
    match Ways::find(config) {
        Ok(ways) => {
            findings.extend(ways.findings(config, &sockets));
            if let Some(connection) = connection {
                let others = others(connection, config, &ways, budget);
                findings
                    .extend(others.unwrap_or_else(|error| vec![unanswered("firewall", &error)]));
            }
        }
        Err(error) => findings.push(unanswered("routes", &error)),
    }
    findings.extend(nat::legacy(config));
    findings.extend(sockets::findings(config, &sockets));
    findings.push(kernel::connections());
    findings
}

/// What the tables of others do.
fn others(
    connection: &Connection,
    config: &Config,
    ways: &Ways,
    budget: usize,
) -> Result<Vec<Finding>, NetfilterError> {
    let mut firewall = Firewall::read(connection, budget)?;
    let mut findings = nat::findings(&mut firewall, config, ways)?;
    findings.extend(filter::findings(&mut firewall, config, ways)?);
    Ok(findings)
}

fn unanswered(subject: &'static str, error: &NetfilterError) -> Finding {
    let text = crate::logging::with_causes(error);
    Finding::new(Level::Doubt, subject, text)
}

fn input(config: &Config) -> Vec<Finding> {
    let to = match &config.listen {
        Listen::Local => "an address of this host".into(),
        Listen::Any => "any address".into(),
        Listen::Addresses(addresses) => list(addresses.iter()),
    };
    let what = format!("{}, sent to {to}", instance::summary(&config.forwards));
    let mut findings = vec![Finding::new(Level::Ok, "input", what)];
    let warnings = config.warnings();
    findings.extend(warnings.map(|text| Finding::new(Level::Warning, "input", text)));
    findings
}

/// The first of them, and how many more there are.
fn list(all: impl ExactSizeIterator<Item = impl ToString>) -> String {
    let more = instance::more(all.len());
    let mut shown = Vec::new();
    shown.extend(all.take(instance::SHOWN).map(|one| one.to_string()));
    shown.join(", ") + &more
}

/// `tcp/80 over IPv4`
fn service(forward: &Forward) -> String {
    format!("{} over {}", forward.service(), forward.family)
}

/// The families of which packets are taken.
fn families(config: &Config) -> impl Iterator<Item = Family> {
    Family::ALL
        .into_iter()
        .filter(|family| config.takes(*family))
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
