//! The instances that run here, as options that would make the same rules: read back from the kernel, so
//! that what they forward can be checked without knowing how they were started.

use super::{Finding, Level};
use crate::config::{Config, Family, FastPath, Forward, Listen, Name, Options, TABLE_PREFIX};
use crate::lock::Holder;
use crate::nftables::list::{Table, TableInfo};
use crate::nftables::{Nftables, NftablesError};
use crate::process;
use crate::siblings;
use crate::status::{self, Lists, OptionsStatus};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::ffi::OsString;

/// What an instance's table forwards, as far as that can be read back.
pub enum Rules {
    Config(Box<Config>),
    /// Nothing: it may only have such a name.
    None,
    /// It lists too much to be read.
    Unread(Finding),
}

/// An instance's table, and who has it.
pub struct Running {
    pub table: TableInfo,
    pub holder: Holder,
}

impl Running {
    /// All of this network namespace, those first that a process has, or the one of this name.
    pub fn all(nftables: &Nftables, name: Option<&Name>) -> Result<Vec<Self>, NftablesError> {
        let mut tables = siblings::instances(nftables)?;
        tables.sort_by(|one, other| one.name.cmp(&other.name));
        let wanted = |table: &TableInfo| name.is_none_or(|name| table.name == name.table());
        let running = |table: TableInfo| Running {
            holder: holder(&table),
            table,
        };
        let mut all: Vec<Self> = tables.into_iter().filter(wanted).map(running).collect();
        all.sort_by_key(|running| running.holder == Holder::None);
        Ok(all)
    }

    /// The running instance that has the name and the rules of a config.
    pub fn with_rules_of(
        nftables: &Nftables,
        config: &Config,
    ) -> Result<Option<Self>, NftablesError> {
        for running in Self::all(nftables, Some(&config.name))? {
            let rules = running.rules(nftables)?;
            let same = matches!(rules, Rules::Config(found) if same_rules(&found, config));
            if same && running.holder != Holder::None {
                return Ok(Some(running));
            }
        }
        Ok(None)
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        let name = self.table.name.strip_prefix(TABLE_PREFIX);
        name.unwrap_or_default()
    }

    /// The config that its rules show.
    pub fn rules(&self, nftables: &Nftables) -> Result<Rules, NftablesError> {
        let table = Table::inet(&self.table.name);
        match Lists::read(&table)? {
            Ok(lists) => {
                let config = Config::new(&self.options(nftables, &lists)?);
                Ok(config.map_or(Rules::None, |config| Rules::Config(Box::new(config))))
            }
            Err(which) => {
                let text = format!("not looked at: table {table}, as its {which} are too many");
                let finding = Finding::new(Level::Unseen, "instances", text);
                Ok(Rules::Unread(finding))
            }
        }
    }

    /// Whether it forwards new connections now.
    pub fn finding(&self, nftables: &Nftables) -> Result<Finding, NftablesError> {
        let table = Table::inet(&self.table.name);
        let accepts = nftables.list(|socket| status::accepts_connections(socket, &table))?;
        let (name, holder) = (self.name(), self.holder);
        let (level, text) = if holder == Holder::None {
            let left = "was left by an instance that died: restart it to replace the table";
            (Level::Failure, format!("{name}: table {table} {left}"))
        } else if accepts {
            (Level::Ok, format!("{name} runs here, {holder}"))
        } else {
            let drains = "and accepts no new connections, as it is ending";
            (
                Level::Failure,
                format!("{name} runs here, {holder}, {drains}"),
            )
        };
        Ok(Finding::new(level, "instances", text))
    }

    fn options(&self, nftables: &Nftables, lists: &Lists) -> Result<Options, NftablesError> {
        let table = Table::inet(&self.table.name);
        let forwards = status::forwards_of(&table, status::MAX_ROWS)?.unwrap_or_default();
        let listed = forwards.iter().filter_map(|forward| {
            let destinations: Vec<_> = forward.destinations.iter().map(|to| to.to).collect();
            let service = forward.service;
            let forward = Forward {
                service,
                destinations,
            };
            (!forward.destinations.is_empty()).then(|| forward.to_string().into())
        });
        let mut options = Options {
            forwards: listed.collect(),
            name: Some(self.name().into()),
            owner: boolean(self.table.owner.is_some()),
            ..Options::default()
        };
        let sources = status::sources(nftables, &table, &forwards, lists)?;
        let shown = OptionsStatus::read(nftables, &table, &forwards, lists, &sources)?;
        if let Some((shown, first)) = shown.zip(forwards.first()) {
            let ranges = shown.src_ranges.as_ref();
            options.src_ranges = ranges.map(|ranges| src_ranges(ranges, first.service.family));
            options.listen = Some(shown.listen.into());
            options.balance = shown.balance.map(|balance| balance.to_string().into());
            options.output = boolean(shown.output);
            options.masquerade = boolean(shown.masquerade);
            options.fully_random = boolean(shown.fully_random);
            options.clamp_mss = boolean(shown.clamp_mss);
            options.hairpin = boolean(shown.hairpin);
            let interfaces = (!shown.fast_path.is_empty()).then(|| shown.fast_path.join(","));
            options.fast_path = interfaces.map(Into::into);
        }
        Ok(options)
    }
}

/// Whether an instance has these forwards. Where it tries destinations, those that fail are listed last.
fn same_forwards(running: &Config, config: &Config) -> bool {
    let tries = !config.health.is_zero();
    let same = |(running, config): (&Forward, &Forward)| {
        let sorted = |forward: &Forward| BTreeSet::from_iter(forward.destinations.clone());
        running.service == config.service
            && (running.destinations == config.destinations
                || tries && sorted(running) == sorted(config))
    };
    let [ours, theirs] = [running, config].map(Config::reachable_forwards);
    ours.clone().count() == theirs.clone().count() && ours.zip(theirs).all(same)
}

/// Whether two configs make the same rules, as far as rules can be read back: the first is a running
/// instance's.
fn same_rules(one: &Config, other: &Config) -> bool {
    // Addresses of a family without forwards are in no rule.
    let listen = |config: &Config| match &config.listen {
        Listen::Only {
            addresses,
            interfaces,
        } => {
            let of_families = addresses
                .iter()
                .filter(|ip| config.has_forwards(Family::of(**ip)));
            Listen::Only {
                addresses: of_families.copied().collect(),
                interfaces: interfaces.clone(),
            }
        }
        listen => listen.clone(),
    };
    let options = |config: &Config| {
        (
            config.output,
            config.masquerade,
            config.hairpin,
            config.clamp_mss,
        )
    };
    // Each matters, and shows in the rules, only with another option; of one that is left, no choice does.
    let mut forwards = one.reachable_forwards();
    let balances = other.health.is_zero() && forwards.any(|forward| forward.destinations.len() > 1);
    let details = |config: &Config| {
        let balance = balances.then_some(config.balance);
        (balance, config.masquerade && config.fully_random)
    };
    // `auto` may do without, and interfaces may be missing.
    let fast_path = one.fast_path == FastPath::Off || other.fast_path != FastPath::Off;
    same_forwards(one, other)
        && fast_path
        && listen(one) == listen(other)
        && options(one) == options(other)
        && details(one) == details(other)
        && one
            .families()
            .all(|family| one.sources.of(family) == other.sources.of(family))
}

fn holder(table: &TableInfo) -> Holder {
    match table.owner {
        None => Holder::of(&table.name),
        Some(port) => match process::owner(port).pid {
            Some(process) => Holder::Process(process),
            None => Holder::Unseen,
        },
    }
}

fn boolean(value: bool) -> Option<OsString> {
    Some(value.to_string().into())
}

/// `SRC_RANGES`. Without any, no client of the only family with forwards may connect: the other one's lowest
/// address stands for the ranges that were given.
fn src_ranges(ranges: &[IpNet], forwarded: Family) -> OsString {
    match (ranges, forwarded) {
        ([], Family::Ipv4) => "::/128".into(),
        ([], Family::Ipv6) => "0.0.0.0/32".into(),
        _ => {
            let ranges: Vec<String> = ranges.iter().map(IpNet::to_string).collect();
            ranges.join(",").into()
        }
    }
}
