//! `nodefwd check`: would forwarding work here, and if not, why not? Looks at everything that a
//! forwarded connection meets on this host, and changes nothing.

mod blocker;
mod filter;
mod fix;
mod kernel;
mod nat;
mod paths;
mod report;
mod running;
mod sockets;

pub use report::CheckFormat;

use crate::config::{Allowed, Config, ConfigError, Listen, Name, Options, first_few, summary};
use crate::firewall::Firewall;
use crate::lock::Holder;
use crate::logging::with_causes;
use crate::netlink::{give_up_when, gives_up};
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::RtnetlinkError;
use clap::Args;
use log::{debug, info, warn};
use paths::Paths;
use report::{Finding, Level};
use running::Running;
use sockets::Sockets;
use std::collections::BTreeMap;
use std::error::Error as Cause;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;

/// Why a check did not end well.
#[derive(Debug, Error)]
pub enum CheckError {
    #[error("{0} of the checks failed")]
    Failures(usize),
    #[error("no instance '{0}' in this network namespace; list them with: nodefwd status")]
    Unknown(Name),
    #[error("cannot read the rules")]
    Read(#[from] NftablesError),
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
/// What to check, and how to say it.
#[derive(Debug, Args)]
#[allow(missing_docs)] // the help says what each is
pub struct CheckOptions {
    /// The options of `run`; without forwards, or with a name in their place, running instances are checked.
    #[command(flatten)]
    pub options: Options,

    /// How to write it
    #[arg(help_heading = "Output", long, value_enum, default_value_t)]
    pub format: CheckFormat,
}

/// What is checked.
pub enum Subject {
    /// What would be forwarded.
    Config(Config),
    /// The running instance of this name, or all.
    Running(Option<Name>),
}

impl Subject {
    /// Reads the options. A single word in place of the forwards that is no forward is a name.
    pub fn read(options: &Options) -> Result<Self, ConfigError> {
        let name = |word: &OsString| word.to_str().and_then(|word| word.parse().ok());
        if let [word] = &options.forwards[..] {
            if let Some(name) = name(word) {
                return Ok(Subject::Running(Some(name)));
            }
        }
        if says_nothing(options) {
            return Ok(Subject::Running(Name::read(options)?));
        }
        Ok(Subject::Config(Config::new(options)?))
    }
}

/// Whether no option says what to forward.
fn says_nothing(options: &Options) -> bool {
    let classic = [
        &options.dest_ips,
        &options.dest_proto,
        &options.src_port,
        &options.dest_port,
    ];
    options.forwards.is_empty() && classic.into_iter().all(Option::is_none)
}

/// Checks everything and prints what it finds. Fails if a check does.
pub fn run(subject: Subject, format: CheckFormat) -> Result<(), CheckError> {
    let findings = match subject {
        Subject::Config(config) => check(config),
        Subject::Running(name) => running(name)?,
    };
    report::print(&findings, format)?;
    let failed = |finding: &&Finding| finding.level == Level::Failure;
    match findings.iter().filter(failed).count() {
        0 => Ok(()),
        count => Err(CheckError::Failures(count)),
    }
}

/// Checks the running instances.
fn running(name: Option<Name>) -> Result<Vec<Finding>, CheckError> {
    let capability = kernel::capability();
    if capability.level == Level::Failure {
        return Ok(vec![capability]);
    }
    let nftables = Nftables::open()?;
    let instances = Running::all(&nftables, name.as_ref())?;
    if let (Some(name), true) = (&name, instances.is_empty()) {
        return Err(CheckError::Unknown(name.clone()));
    }
    let mut findings = Vec::new();
    for instance in &instances {
        let found = match instance.config(&nftables)? {
            Ok(config) if instance.holder != Holder::None => check(config),
            // It only has such a name.
            Err(_) if instance.holder == Holder::None && name.is_none() => continue,
            _ => vec![instance.finding(&nftables)?],
        };
        findings.extend(found.into_iter().map(|finding| Finding {
            instance: Some(instance.name().to_owned()),
            ..finding
        }));
    }
    if findings.is_empty() {
        let text = "none runs in this network namespace: start one, or give the forwards that are to be checked, such as tcp/80=10.0.0.5:8080";
        findings.push(Finding::new(Level::Failure, "instances", text));
    }
    Ok(findings)
}

/// Checks what would be forwarded, or is.
fn check(mut config: Config) -> Vec<Finding> {
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
    let mut scope = Scope {
        max_rules: MAX_RULES,
        installed: false,
    };
    if let Some((nftables, ruleset)) = &accepted {
        let running = Running::with_rules_of(nftables, &config);
        let running = running.ok().flatten();
        let finding = running.and_then(|running| running.finding(nftables).ok());
        scope.installed = finding.is_some();
        findings.push(finding.unwrap_or_else(|| kernel::conflicts(nftables, ruleset, &config)));
    }
    let nftables = accepted.as_ref().map(|(nftables, _)| nftables);
    findings.extend(surroundings(nftables, &config, &scope));
    findings
}

/// What is looked at around an instance.
struct Scope {
    max_rules: usize,
    /// Whether the instance's own table is there.
    installed: bool,
}

/// Logs what is surely wrong around an instance whose rules are installed. Ends at once when the flag is
/// set.
pub fn warn(config: &Config, flag: &Arc<AtomicBool>) {
    let mut config = config.clone();
    let all = config.forwards.len();
    config.forwards.truncate(MAX_FORWARDS_AT_START);
    let scope = Scope {
        max_rules: MAX_RULES_AT_START,
        installed: true,
    };
    let mut findings = Vec::new();
    give_up_when(flag, Some(MAX_TIME_AT_START), || {
        // One of its own, as the search may be given up in the middle of a reply.
        let nftables = Nftables::open();
        findings = surroundings(nftables.as_ref().ok(), &config, &scope);
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
        ..
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
fn surroundings(nftables: Option<&Nftables>, config: &Config, scope: &Scope) -> Vec<Finding> {
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
    let mut what = format!("{}, sent to {to}", summary(&config.forwards));
    for family in config.families() {
        what += &match config.sources.of(family) {
            Allowed::All => String::new(),
            Allowed::None => format!(", from no {family} address"),
            Allowed::Ranges(ranges) => format!(", from {}", first_few(ranges.iter())),
        };
    }
    for (differs, option) in [
        (config.output, ", also from this host"),
        (!config.masquerade, ", without masquerading"),
        (config.hairpin, ", also from destinations"),
    ] {
        what += if differs { option } else { "" };
    }
    let mut findings = vec![Finding::new(Level::Ok, "input", what)];
    let warnings = config.warnings();
    findings.extend(warnings.map(|text| Finding::new(Level::Warning, "input", text)));
    findings
}
