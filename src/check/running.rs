//! The instances that run here, as options that would make the same rules: read back from the kernel, so
//! that what they forward can be checked without knowing how they were started.

use super::{Finding, Level};
use crate::config::{Config, ConfigError, Family, Forward, Listen, Name, Options, TABLE_PREFIX};
use crate::lock::Holder;
use crate::netlink::{Attributes, or_missing};
use crate::nftables::list::{self, Element, ElementKind, Table, TableInfo};
use crate::nftables::{Nftables, NftablesError};
use crate::process;
use crate::ruleset::{self, CLAMP_MSS, PREROUTING};
use crate::siblings;
use crate::status;
use crate::uapi::*;
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use nix::libc;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;

/// An instance's table, and who has it.
pub struct Running {
    pub table: TableInfo,
    pub holder: Holder,
}

impl Running {
    /// All of this network namespace, or the one of this name.
    pub fn all(nftables: &Nftables, name: Option<&Name>) -> Result<Vec<Self>, NftablesError> {
        let mut tables = siblings::instances(nftables)?;
        tables.sort_by(|one, other| one.name.cmp(&other.name));
        let wanted = |table: &TableInfo| name.is_none_or(|name| table.name == name.table());
        let running = |table: TableInfo| Running {
            holder: holder(&table),
            table,
        };
        Ok(tables.into_iter().filter(wanted).map(running).collect())
    }

    /// The running instance that has the name and the rules of a config.
    pub fn with_rules_of(
        nftables: &Nftables,
        config: &Config,
    ) -> Result<Option<Self>, NftablesError> {
        for running in Self::all(nftables, Some(&config.name))? {
            let same = running.config(nftables)?;
            let same = same.is_ok_and(|running| same_rules(&running, config));
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

    /// The config that its rules show; `Err` if they forward nothing that can be read back.
    pub fn config(
        &self,
        nftables: &Nftables,
    ) -> Result<Result<Config, ConfigError>, NftablesError> {
        Ok(Config::new(&self.options(nftables)?))
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

    fn options(&self, nftables: &Nftables) -> Result<Options, NftablesError> {
        let table = Table::inet(&self.table.name);
        let most = status::MAX_ROWS;
        let forwards = nftables.list(|socket| status::forwards(socket, &table, most))?;
        let forwards = forwards
            .unwrap_or_default()
            .into_iter()
            .filter_map(|forward| {
                let destinations: Vec<_> = forward.destinations.iter().map(|to| to.to).collect();
                let service = forward.service;
                let forward = Forward {
                    service,
                    destinations,
                };
                (!forward.destinations.is_empty()).then(|| forward.to_string().into())
            });
        let has_chain = |chain: &str| -> Result<bool, NftablesError> {
            let found = nftables.list(|socket| list::chain_use(socket, &table, chain))?;
            Ok(found.is_some())
        };
        let mut no_hairpin = false;
        for family in Family::ALL {
            no_hairpin |= has_set(nftables, &table, ruleset::no_hairpin_set_names(family))?;
        }
        let statements = Statements::read(nftables, &table)?;
        Ok(Options {
            forwards: forwards.collect(),
            name: Some(self.name().into()),
            src_ranges: sources(nftables, &table)?,
            listen: Some(listen(nftables, &table)?),
            output: boolean(has_chain("output")?),
            masquerade: boolean(has_chain("postrouting")?),
            hairpin: boolean(!no_hairpin),
            balance: statements.balance.map(Into::into),
            fully_random: boolean(!statements.keeps_ports),
            clamp_mss: boolean(has_chain(CLAMP_MSS)?),
            owner: boolean(self.table.owner.is_some()),
            ..Options::default()
        })
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
    same_forwards(one, other)
        && listen(one) == listen(other)
        && options(one) == options(other)
        && details(one) == details(other)
        && one
            .families()
            .all(|family| one.sources.of(family) == other.sources.of(family))
}

/// Options that statements of the rules show.
#[derive(Default)]
struct Statements {
    balance: Option<&'static str>,
    /// Whether masquerading keeps the source port where it can.
    keeps_ports: bool,
}

impl Statements {
    fn read(nftables: &Nftables, table: &Table) -> Result<Self, NftablesError> {
        let mut found = Statements::default();
        for rule in nftables.list(|socket| list::rules(socket, table, None))? {
            for (_, bytes) in rule.expressions().iter() {
                let expression = Attributes(bytes);
                let data = expression.nested(NFTA_EXPR_DATA);
                match expression.text(NFTA_EXPR_NAME) {
                    Some("hash") => found.balance = Some("source"),
                    Some("numgen") => {
                        let in_turn =
                            data.u32(NFTA_NG_TYPE) == Some(libc::NFT_NG_INCREMENTAL as u32);
                        found.balance = Some(if in_turn { "round-robin" } else { "random" });
                    }
                    Some("masq") => {
                        let flags = data.u32(NFTA_MASQ_FLAGS).unwrap_or(0);
                        found.keeps_ports = flags & NF_NAT_RANGE_PROTO_RANDOM_FULLY == 0;
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }
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

/// `NODEFWD_LISTEN`, as the rules of the first chain show it.
fn listen(nftables: &Nftables, table: &Table) -> Result<OsString, NftablesError> {
    let addresses = siblings::listen_addresses(nftables, &table.name)?;
    let interfaces = siblings::listen_interfaces(nftables, &table.name)?;
    let addresses = addresses.iter().map(IpAddr::to_string);
    let listed = addresses.chain(interfaces.iter().map(ToString::to_string));
    let listed: Vec<String> = listed.collect();
    if !listed.is_empty() {
        return Ok(listed.join(",").into());
    }
    let rules = nftables.list(|socket| list::rules(socket, table, Some(PREROUTING)))?;
    let names = |rule: &list::Rule| {
        let expressions = rule.expressions().iter();
        let name = |(_, bytes)| Attributes(bytes).text(NFTA_EXPR_NAME);
        expressions
            .filter_map(name)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // The rule that leads on comes last: with `local`, it looks at the type of the address.
    let local = rules
        .last()
        .is_some_and(|rule| names(rule).iter().any(|name| name == "fib"));
    Ok(if local || rules.is_empty() {
        "local"
    } else {
        "any"
    }
    .into())
}

/// `SRC_RANGES`, unless all sources may connect. Where rules drop those of a family without allowing any,
/// only ranges of the other one were given.
fn sources(nftables: &Nftables, table: &Table) -> Result<Option<OsString>, NftablesError> {
    let mut ranges = Vec::new();
    let mut limited = Vec::new();
    for family in Family::ALL {
        let name = ruleset::allowed_set_name(family);
        let allowed = nftables.list(|socket| or_missing(list::elements(socket, table, &name)))?;
        ranges.extend(networks(allowed));
        if has_set(nftables, table, ruleset::ServiceMaps::of(family).dropped)? {
            limited.push(family);
        }
    }
    if ranges.is_empty() {
        // Any range of the other family stands for those that were given.
        return Ok(match limited[..] {
            [] => None,
            [Family::Ipv6] => Some("0.0.0.0/32".into()),
            _ => Some("::/128".into()),
        });
    }
    let ranges: Vec<String> = ranges.iter().map(IpNet::to_string).collect();
    Ok(Some(ranges.join(",").into()))
}

fn has_set(nftables: &Nftables, table: &Table, names: [String; 2]) -> Result<bool, NftablesError> {
    for name in names {
        if nftables
            .list(|socket| list::set(socket, table, &name))?
            .is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The networks in a set of ranges: each starts with an element and ends before another.
fn networks(mut elements: Vec<Element>) -> Vec<IpNet> {
    let is_start = |element: &Element| element.kind == ElementKind::Key;
    elements.sort_by(|one, other| (&one.key, is_start(one)).cmp(&(&other.key, is_start(other))));
    let mut networks = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        let next = elements.get(index + 1).map(|next| &next.key[..]);
        if is_start(element) {
            networks.extend(range(&element.key, next));
        }
    }
    networks
}

/// The networks from a first address to the one before another, or to the last of all.
fn range(first: &[u8], after: Option<&[u8]>) -> Vec<IpNet> {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u128::from(*byte))
    };
    match (first.len(), after) {
        (4, after) => {
            let last = after.map_or(u32::MAX, |after| (number(after) as u32).wrapping_sub(1));
            let first = (number(first) as u32).into();
            Ipv4Subnets::new(first, last.into(), 0)
                .map(IpNet::V4)
                .collect()
        }
        (16, after) => {
            let last = after.map_or(u128::MAX, |after| number(after).wrapping_sub(1));
            let first = number(first).into();
            Ipv6Subnets::new(first, last.into(), 0)
                .map(IpNet::V6)
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(kind: ElementKind, key: Vec<u8>) -> Element {
        Element {
            kind,
            key,
            key_end: None,
            data: None,
            packets: None,
        }
    }

    #[test]
    fn ranges_read_back_as_networks() {
        let (start, end) = (ElementKind::Key, ElementKind::IntervalEnd);
        let elements = vec![
            element(end, vec![10, 2, 0, 0]),
            element(start, vec![10, 1, 0, 0]),
            element(end, vec![0, 0, 0, 0]),
            element(start, vec![10, 2, 0, 0]),
            element(end, vec![10, 2, 0, 1]),
            element(start, vec![128, 0, 0, 0]),
        ];
        let found: Vec<String> = networks(elements).iter().map(IpNet::to_string).collect();
        assert_eq!(found, ["10.1.0.0/16", "10.2.0.0/32", "128.0.0.0/1"]);
    }

    proptest! {
        #[test]
        fn no_elements_panic(keys in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..17)), 0..6)) {
            let kind = |start| if start { ElementKind::Key } else { ElementKind::IntervalEnd };
            networks(keys.into_iter().map(|(start, key)| element(kind(start), key)).collect());
        }
    }
}
