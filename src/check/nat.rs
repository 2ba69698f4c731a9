//! Chains of type nat of other tables that drop or translate connections before an instance's own
//! chains see them.

use super::blocker::{Blocker, Blockers, over_ports};
use super::paths::Paths;
use super::{Finding, Level, QueryError};
use crate::config::{Config, Family, Forward, Listen, TABLE_PREFIX, first_few};
use crate::firewall::{Firewall, Outcome, Packet};
use crate::nftables::NftablesError;
use crate::nftables::list::{BaseChain, Hook};
use crate::rtnetlink::Addresses;
use nix::libc;
use std::fs;
use std::net::IpAddr;

/// The priority of an instance's chains. Of several chains with the same priority, the newest comes
/// first (nf_hook_entries_grow in net/netfilter/core.c).
const PRIORITY: i32 = libc::NF_IP_PRI_NAT_DST;

/// How many of this host's addresses are tried, where a rule depends on the address.
const MAX_ADDRESSES: usize = 64;

const SUBJECT: &str = "other NAT";

/// Looks at the chains that come before an instance's, or beside them.
pub fn findings(
    firewall: &mut Firewall<'_>,
    config: &Config,
    paths: &Paths,
) -> Result<Vec<Finding>, QueryError> {
    let chains = firewall.chains();
    let conflicting = |family| {
        let sees = move |chain: &&BaseChain| chain.table.family.sees(family);
        let chains = chains.iter().filter(sees);
        chains.filter(|chain| is_conflicting(chain, config))
    };
    let mut blockers = Blockers::default();
    for family in config.families() {
        if conflicting(family).next().is_none() {
            continue;
        }
        let addresses = addresses(config, family)?;
        let forwards = config.forwards.iter();
        for forward in forwards.filter(|forward| forward.service.family == family) {
            for chain in conflicting(family) {
                let mut packet = Packet::first(family, forward.service.protocol);
                if chain.hook == Hook::Prerouting {
                    packet.input = paths.input(family).cloned();
                }
                if config.listen != Listen::Any {
                    packet.to_this_host = Some(true);
                }
                let outcome = outcome(firewall, chain, packet, forward, &addresses)?;
                // Of two chains of the same priority the newer runs first, which is not known:
                // report only one that certainly ends the packet.
                if chain.priority < PRIORITY || matches!(outcome, Outcome::Ends(_)) {
                    blockers.add(chain, outcome, false, (forward, forward.destinations[0]));
                }
            }
        }
    }
    let none = "no other table's NAT drops or translates what is to be forwarded";
    Ok(blockers.findings(SUBJECT, none, |blocker| Ok(describe(blocker)))?)
}

fn is_conflicting(chain: &BaseChain, config: &Config) -> bool {
    let hook = match chain.hook {
        Hook::Prerouting => true,
        Hook::Output => config.output,
        _ => false,
    };
    hook && chain.is_nat
        && chain.priority <= PRIORITY
        && !chain.table.name.starts_with(TABLE_PREFIX)
}

/// What becomes of a forward's connections in a chain. Where that depends on the address that they are
/// made to, this host's addresses are tried; one whose connections end there is enough.
fn outcome(
    firewall: &mut Firewall<'_>,
    chain: &BaseChain,
    mut packet: Packet,
    forward: &Forward,
    addresses: &[IpAddr],
) -> Result<Outcome, NftablesError> {
    let mut of_address = |address| {
        packet.destination = address;
        over_ports(forward.service.ports, |port| {
            packet.destination_port = port;
            packet.original_port = port;
            firewall.outcome(chain, &packet)
        })
    };
    let unknown = of_address(None)?;
    if !matches!(unknown, Outcome::MayEnd(_)) || addresses.is_empty() {
        return Ok(unknown);
    }
    let mut worst = Outcome::Passes;
    for address in addresses {
        match of_address(Some(*address))? {
            Outcome::Passes => {}
            sure @ Outcome::Ends(_) => return Ok(sure),
            outcome => worst = outcome,
        }
    }
    Ok(worst)
}

/// The addresses of a family that connections are forwarded at; none if all are.
fn addresses(config: &Config, family: Family) -> Result<Vec<IpAddr>, QueryError> {
    let all: Vec<IpAddr> = match &config.listen {
        Listen::Any => Vec::new(),
        Listen::Local => Addresses::read()?.own().collect(),
        listen if listen.interfaces().is_empty() => listen.addresses().to_vec(),
        // Which of them are those of the interfaces is not looked at.
        Listen::Only { .. } => Addresses::read()?.own().collect(),
    };
    let of_family = |address: &IpAddr| Family::of(*address) == family && !address.is_loopback();
    Ok(all
        .into_iter()
        .filter(of_family)
        .take(MAX_ADDRESSES)
        .collect())
}

fn describe(blocker: &Blocker<'_>) -> (Level, String) {
    let Blocker {
        chain,
        location,
        sure,
        forwards,
        ..
    } = blocker;
    let services = first_few(forwards.iter().map(|(forward, _)| forward.service));
    let (level, order) = if chain.priority == PRIORITY {
        let order = "at the same priority, where the newest table comes first";
        (Level::Doubt, order.to_owned())
    } else {
        let level = if *sure { Level::Failure } else { Level::Doubt };
        (level, format!("earlier, at priority {}", chain.priority))
    };
    let chain = location.table.for_nft(Some(&location.chain));
    let (certainly, possibly, fix) = match location.rule {
        Some(rule) => (
            "drops or translates",
            "may drop or translate",
            chain.map(|chain| {
                format!("remove that rule with: nft delete rule {chain} handle {rule}")
            }),
        ),
        // A policy cannot translate.
        None => (
            "drops",
            "may drop",
            chain.map(|chain| {
                format!("set the policy to accept with: nft 'chain {chain} {{ policy accept; }}'")
            }),
        ),
    };
    let ends = if *sure { certainly } else { possibly };
    let fix = fix.map_or(String::new(), |fix| format!(", or {fix}"));
    (
        level,
        format!("{location} {ends} {services} {order}; use another port{fix}"),
    )
}

/// nftables does not show the rules of iptables-legacy, but the kernel lists the names of its tables.
pub fn legacy(config: &Config) -> Option<Finding> {
    let mut commands = Vec::new();
    for family in config.families() {
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
        "there are tables of iptables-legacy, whose rules nftables does not show and which may translate or drop what is to be forwarded: see {shown}"
    );
    (!commands.is_empty()).then(|| Finding::new(Level::Doubt, "iptables-legacy", text))
}
