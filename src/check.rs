//! `nodefwd check`: would forwarding work here, and if not, why not? Looks at everything that a
//! forwarded connection meets on this host, and changes nothing.

mod blocker;
mod client;
mod connect;
mod connections;
mod fast_path;
mod filter;
mod fix;
mod flows;
mod input;
mod kernel;
mod legacy;
mod links;
mod listen;
mod nat;
mod packets;
mod paths;
mod report;
mod running;
mod saved;
mod sockets;
mod start;
mod surroundings;

pub use report::CheckFormat;
pub use start::warn;

use crate::config::{Config, ConfigError, LookUp, Name, OptionName, Options};
use crate::lock::Holder;
use crate::nftables::{Nftables, NftablesError};
use clap::Args;
use client::Client;
use report::{Finding, Level};
use running::{Rules, Running};
use std::ffi::OsString;
use std::io;
use surroundings::{Scope, surroundings};
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

/// How many chains and rules are gone through, each counted as often as a packet meets it.
const MAX_RULES: usize = 10_000_000;

/// How many running instances are looked at, which share that.
const MAX_INSTANCES: usize = 64;

/// What to check, and how to say it.
#[derive(Debug, Args)]
#[allow(missing_docs)] // the help says what each is
pub struct CheckOptions {
    /// The options of `run`; without forwards, or with a name in their place, running instances are checked.
    #[command(flatten)]
    pub options: Options,

    /// Follow this client only, with the interface that it comes in on if that is known
    #[arg(
        help_heading = "What is checked",
        long,
        value_name = "ADDRESS[%INTERFACE]"
    )]
    pub from: Option<Client>,

    /// Connect to the TCP destinations from this host: changes nothing, but their servers notice
    #[arg(help_heading = "What is checked", long)]
    pub connect: bool,

    /// How to write it
    #[arg(help_heading = "Output", long, value_enum, default_value_t)]
    pub format: CheckFormat,
}

/// What is checked.
pub enum Subject {
    /// What would be forwarded.
    Config(Box<Config>),
    /// The running instance of this name, or all.
    Running(Option<Name>),
    /// What would be forwarded if a name could be resolved; why none can.
    Unresolved(String),
}

impl Subject {
    /// Reads the options. A single word in place of the forwards that is no forward is a name. A file is what is to
    /// be checked, whatever it lacks.
    pub fn read(options: &Options, look_up: LookUp<'_>) -> Result<Self, ConfigError> {
        let name = |word: &OsString| word.to_str().and_then(|word| word.parse().ok());
        let is_argument = !options.is_in_file(OptionName::FORWARDS);
        if let ([word], true) = (&options.forwards[..], is_argument) {
            if let Some(name) = name(word) {
                refuse(options, |_| true)?;
                return Ok(Subject::Running(Some(name)));
            }
        }
        if says_nothing(options) && !options.have_env_file() {
            refuse(options, |option| option != OptionName::NAME)?;
            return Ok(Subject::Running(Name::read(options)?));
        }
        match Config::with_names(options, look_up) {
            Err(error) if error.is_unresolved() => Ok(Subject::Unresolved(error.to_string())),
            config => Ok(Subject::Config(Box::new(config?))),
        }
    }
}

/// Refuses flags that would change nothing. The environment may be that of an instance, or of the image.
fn refuse(options: &Options, is_idle: impl Fn(OptionName) -> bool) -> Result<(), ConfigError> {
    let idle = options.flags().into_iter().find(|flag| is_idle(*flag));
    idle.map_or(Ok(()), |flag| Err(ConfigError::NothingToCheck(flag)))
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
pub fn run(subject: Subject, options: &CheckOptions) -> Result<(), CheckError> {
    let findings = match subject {
        Subject::Config(config) => check(*config, options, MAX_RULES),
        Subject::Running(name) => running(name, options)?,
        Subject::Unresolved(reason) => vec![Finding::new(Level::Failure, "names", reason)],
    };
    report::print(&findings, options.format)?;
    let failed = |finding: &&Finding| finding.level == Level::Failure;
    match findings.iter().filter(failed).count() {
        0 => Ok(()),
        count => Err(CheckError::Failures(count)),
    }
}

/// Checks the running instances.
fn running(name: Option<Name>, options: &CheckOptions) -> Result<Vec<Finding>, CheckError> {
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
    let (shown, others) = instances.split_at(instances.len().min(MAX_INSTANCES));
    for instance in shown {
        let found = match instance.rules(&nftables)? {
            Rules::Config(config) if instance.holder != Holder::None => {
                check(*config, options, MAX_RULES / shown.len())
            }
            // It only has such a name.
            Rules::None if instance.holder == Holder::None && name.is_none() => continue,
            Rules::Config(_) | Rules::None => vec![instance.finding(&nftables)?],
            Rules::Unread(finding) => vec![finding],
        };
        findings.extend(found.into_iter().map(|finding| Finding {
            instance: Some(instance.name().to_owned()),
            ..finding
        }));
    }
    if let Some(Running { table, .. }) = others.first() {
        let text = format!(
            "not looked at: {} more, from table inet {} on; nodefwd check looks at one that is named",
            others.len(),
            table.name
        );
        findings.push(Finding::new(Level::Unseen, "instances", text));
    }
    if findings.is_empty() {
        let text = "none runs in this network namespace: start one, or give the forwards that are to be checked, such as tcp/80=10.0.0.5:8080";
        findings.push(Finding::new(Level::Failure, "instances", text));
    }
    Ok(findings)
}

/// Checks what would be forwarded, or is; goes through `max_rules` chains and rules.
fn check(mut config: Config, options: &CheckOptions, max_rules: usize) -> Vec<Finding> {
    let mut findings = input::findings(&config);
    findings.extend(config.answers.iter().map(input::name));
    let capability = kernel::capability();
    let permitted = capability.level != Level::Failure;
    findings.push(capability);
    kernel::forwarding(&mut config, &mut findings);
    let accepted = match permitted.then(Nftables::open) {
        None => None,
        Some(opened) => kernel::rules(opened, &config, &mut findings),
    };
    let mut scope = Scope {
        max_rules,
        installed: false,
        at_start: false,
        from: options.from,
    };
    if let Some((nftables, ruleset)) = &accepted {
        let running = Running::with_rules_of(nftables, &config);
        let running = running.ok().flatten();
        let finding = running.and_then(|running| running.finding(nftables).ok());
        scope.installed = finding.is_some();
        findings.push(finding.unwrap_or_else(|| kernel::conflicts(nftables, ruleset, &config)));
        findings.extend(fast_path::findings(nftables, ruleset, &config));
    }
    let nftables = accepted.as_ref().map(|(nftables, _)| nftables);
    findings.extend(surroundings(nftables, config.clone(), &scope));
    if options.connect {
        findings.extend(connect::findings(&config));
    }
    findings
}
