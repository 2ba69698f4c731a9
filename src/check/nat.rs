//! Chains of others that take connections before an instance's own can.

use super::encounter::{Encounter, Encounters, over_ports};
use super::ways::Ways;
use super::{Finding, Level, families, list, service};
use crate::config::{Config, Family, Forward, Listen};
use crate::netfilter::{Addresses, BaseChain, Fate, FilterHook, Firewall, NetfilterError, Packet};
use crate::ruleset::TABLE_PREFIX;
use std::fs;
use std::net::IpAddr;

/// linux/netfilter_ipv4.h: `NF_IP_PRI_NAT_DST`, the priority of an instance's chains. Of several
/// chains with the same the one that was made last comes first (nf_hook_entries_grow in
/// net/netfilter/core.c).
const PRIORITY: i32 = -100;

/// How many of this host's addresses are tried, where a rule depends on the address.
const ADDRESSES: usize = 64;

const SUBJECT: &str = "other NAT";

/// Looks at the chains that come before an instance's, or beside them.
pub fn findings(
    firewall: &mut Firewall<'_>,
    config: &Config,
    ways: &Ways,
) -> Result<Vec<Finding>, NetfilterError> {
    let chains = firewall.chains();
    let rivals = || chains.iter().filter(|chain| is_rival(chain, config));
    let mut encounters = Encounters::default();
    for family in families(config) {
        let addresses = addresses(config, family)?;
        let forwards = config.forwards.iter();
        for forward in forwards.filter(|forward| forward.family == family) {
            for chain in rivals().filter(|chain| chain.table.family.sees(family)) {
                let mut packet = Packet::first(family, forward.protocol);
                if chain.hook == FilterHook::Prerouting {
                    packet.input = ways.input(family).cloned();
                }
                if config.listen != Listen::Any {
                    packet.to_this_host = Some(true);
                }
                let fate = fate(firewall, chain, packet, forward, &addresses)?;
                // Whoever comes later in the same place has no say, if not by chance.
                if chain.priority < PRIORITY || matches!(fate, Fate::Ends(_)) {
                    encounters.add(chain, fate, false, (forward, forward.destinations[0]));
                }
            }
        }
    }
    let none = "no other table takes what is to be forwarded";
    encounters.findings(SUBJECT, none, |encounter| Ok(describe(encounter)))
}

fn is_rival(chain: &BaseChain, config: &Config) -> bool {
    let hook = match chain.hook {
        FilterHook::Prerouting => true,
        FilterHook::Output => config.output,
        FilterHook::Forward => false,
    };
    hook && chain.nat && chain.priority <= PRIORITY && !chain.table.name.starts_with(TABLE_PREFIX)
}

/// What becomes of a forward's connections in a chain. Where that depends on the address that they
/// are made to, this host's addresses are tried; it is enough if one is taken.
fn fate(
    firewall: &mut Firewall<'_>,
    chain: &BaseChain,
    mut packet: Packet,
    forward: &Forward,
    addresses: &[IpAddr],
) -> Result<Fate, NetfilterError> {
    let mut of_address = |address| {
        packet.destination = address;
        over_ports(forward.ports, |port| {
            packet.destination_port = port;
            packet.original_port = port;
            firewall.fate(chain, &packet)
        })
    };
    let unknown = of_address(None)?;
    if !matches!(unknown, Fate::MayEnd(_)) || addresses.is_empty() {
        return Ok(unknown);
    }
    let mut worst = Fate::Passes;
    for address in addresses {
        match of_address(Some(*address))? {
            Fate::Passes => {}
            sure @ Fate::Ends(_) => return Ok(sure),
            fate => worst = fate,
        }
    }
    Ok(worst)
}

/// The addresses of a family that connections are taken at; none if all are.
fn addresses(config: &Config, family: Family) -> Result<Vec<IpAddr>, NetfilterError> {
    let all: Vec<IpAddr> = match &config.listen {
        Listen::Any => Vec::new(),
        Listen::Local => Addresses::read()?.own().collect(),
        Listen::Addresses(addresses) => addresses.clone(),
    };
    let taken = |address: &IpAddr| Family::of(*address) == family && !address.is_loopback();
    Ok(all.into_iter().filter(taken).take(ADDRESSES).collect())
}

fn describe(encounter: &Encounter<'_>) -> (Level, String) {
    let Encounter {
        chain,
        place,
        sure,
        forwards,
        ..
    } = encounter;
    let services = list(forwards.iter().map(|(forward, _)| service(forward)));
    let may = if *sure { "takes" } else { "may take" };
    let (level, order) = if chain.priority == PRIORITY {
        let order = "at the same priority: whose table is made last comes first";
        (Level::Doubt, order.to_owned())
    } else {
        let level = if *sure { Level::Failure } else { Level::Doubt };
        (level, format!("earlier, at priority {}", chain.priority))
    };
    let table = &place.table;
    let name = place.chain.escape_debug();
    let remedy = match place.rule {
        Some(rule) => format!("nft delete rule {table} {name} handle {rule}"),
        None => format!("nft 'chain {table} {name} {{ policy accept; }}'"),
    };
    let text = format!(
        "{place} {may} {services} {order}; forward another port, or put that out of the way with: {remedy}"
    );
    (level, text)
}

/// iptables-legacy keeps its rules out of nftables' sight, but the kernel lists the names of its
/// tables.
pub fn legacy(config: &Config) -> Option<Finding> {
    let mut commands = Vec::new();
    for family in families(config) {
        let (file, command) = match family {
            Family::Ipv4 => ("ip_tables_names", "iptables-legacy-save"),
            Family::Ipv6 => ("ip6_tables_names", "ip6tables-legacy-save"),
        };
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let names = names.unwrap_or_default();
        if names.lines().any(|name| name == "nat" || name == "filter") {
            commands.push(command);
        }
    }
    let shown = commands.join(", ");
    let text = format!(
        "there are tables of iptables-legacy, whose rules cannot be looked into from here and may take or drop what is to be forwarded: see {shown}"
    );
    (!commands.is_empty()).then(|| Finding::new(Level::Doubt, "iptables-legacy", text))
}
