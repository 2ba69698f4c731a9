//! `nodefwd check`: would forwarding work here, and if not, why not? Looks at everything that a
//! forwarded connection meets on this host, and changes nothing.

mod blocker;
mod filter;
mod fix;
mod kernel;
mod nat;
mod paths;
mod sockets;

use crate::config::{Config, Listen, first_few, summary};
use crate::firewall::Firewall;
use crate::logging::with_causes;
use crate::netlink::{give_up_when, gives_up};
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::RtnetlinkError;
use crate::text::Printable;
use anstream::{AutoStream, ColorChoice};
use env_logger::fmt::style::{AnsiColor, Style};
use log::{debug, info, warn};
use paths::Paths;
use sockets::Sockets;
use std::collections::BTreeMap;
use std::error::Error as Cause;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
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
    /// Something was not looked at.
    Unseen,
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

/// How many chains and rules are gone through, each counted as often as a packet meets it.
const MAX_RULES: usize = 10_000_000;

/// How many chains and rules, and how many forwards, an instance that has just started looks at.
const MAX_RULES_AT_START: usize = 10_000;
const MAX_FORWARDS_AT_START: usize = 256;

/// How long it looks, and how many warnings of a kind it logs.
const MAX_TIME_AT_START: Duration = Duration::from_secs(1);
const MAX_WARNINGS_AT_START: usize = 8;

/// How often everything is read again because the ruleset has changed meanwhile.
const MAX_READ_RETRIES: usize = 10;

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

/// Logs what is surely wrong around an instance whose rules are installed. Ends at once when the flag is
/// set.
pub fn warn(config: &Config, flag: &Arc<AtomicBool>) {
    let mut config = config.clone();
    let all = config.forwards.len();
    config.forwards.truncate(MAX_FORWARDS_AT_START);
    let mut findings = Vec::new();
    give_up_when(flag, Some(MAX_TIME_AT_START), || {
        // One of its own, as the search may be given up in the middle of a reply.
        let nftables = Nftables::open();
        findings = surroundings(nftables.as_ref().ok(), &config, MAX_RULES_AT_START);
    });
    if flag.load(Ordering::SeqCst) {
        return;
    }
    let mut unseen = Vec::new();
    if all > MAX_FORWARDS_AT_START {
        unseen.push(format!("{} of {all} forwards", all - MAX_FORWARDS_AT_START));
    }
    let mut warnings: BTreeMap<&str, usize> = BTreeMap::new();
    for Finding {
        level,
        subject,
        text,
    } in findings
    {
        match level {
            Level::Ok | Level::Doubt => debug!("{subject}: {text}"),
            Level::Unseen => unseen.push(subject.to_owned()),
            Level::Warning | Level::Failure => {
                let count = warnings.entry(subject).or_default();
                *count += 1;
                if *count <= MAX_WARNINGS_AT_START {
                    warn!("{subject}: {text}");
                }
            }
        }
    }
    for (subject, count) in warnings {
        if let Some(more) = count
            .checked_sub(MAX_WARNINGS_AT_START)
            .filter(|more| *more > 0)
        {
            warn!("{subject}: {more} more such warnings: nodefwd check shows them");
        }
    }
    if !unseen.is_empty() {
        unseen.dedup();
        info!(
            "not looked at: {}; nodefwd check looks at all",
            unseen.join(", ")
        );
    }
    debug!("checked routes, other tables and sockets");
}

/// Routes, other programs' tables and sockets. Without a socket to nftables, tables are left out.
fn surroundings(nftables: Option<&Nftables>, config: &Config, max_rules: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sockets = Sockets::read(config);
    match Paths::find(config) {
        Ok(paths) => {
            findings.extend(paths.findings(config, sockets.as_ref().ok()));
            if let Some(nftables) = nftables {
                let tables = other_tables(nftables, config, &paths, max_rules);
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
    max_rules: usize,
) -> Result<Vec<Finding>, QueryError> {
    for _ in 0..MAX_READ_RETRIES {
        let generation = nftables.generation()?;
        let mut firewall = Firewall::read(nftables, max_rules)?;
        let mut findings = nat::findings(&mut firewall, config, paths)?;
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

fn input(config: &Config) -> Vec<Finding> {
    let to = match &config.listen {
        Listen::Local => "an address of this host".into(),
        Listen::Any => "any address".into(),
        Listen::Only {
            addresses,
            interfaces,
        } => {
            let addresses = addresses.iter().map(ToString::to_string);
            let interfaces = interfaces.iter();
            let interfaces = interfaces.map(|name| format!("this host on {name}"));
            let all: Vec<String> = addresses.chain(interfaces).collect();
            first_few(all.iter())
        }
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
            Level::Doubt | Level::Unseen | Level::Warning => ("warning", AnsiColor::Yellow),
            Level::Failure => ("failure", AnsiColor::Red),
        };
        let style = if coloured {
            colour.on_default()
        } else {
            Style::new()
        };
        let text = Printable(text);
        lines += &format!("{style}{word}:{style:#} {subject}: {text}\n");
    }
    io::stdout().write_all(lines.as_bytes())
}
