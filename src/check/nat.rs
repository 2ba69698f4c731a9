//! Chains of type nat of other tables that drop or translate connections before an instance's own
//! chains see them.

use super::blocker::{Blocker, Blockers, over_ports};
use super::paths::Paths;
use super::surroundings::QueryError;
use super::{Finding, Level, fix};
use crate::config::{Config, Family, Forward, Listen, TABLE_PREFIX, first_few};
use crate::firewall::{Firewall, Outcome, Packet};
use crate::nftables::list::{BaseChain, Hook, Table, TableFamily};
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::Addresses;
use crate::siblings::Claims;
use nix::libc;
use std::collections::HashSet;
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
    installed: bool,
) -> Result<Vec<Finding>, QueryError> {
    let chains = firewall.chains();
    let own_table = Table::inet(&config.name.table());
    let own = installed.then(|| firewall.handle(&own_table)).flatten();
    let mut left_out = HashSet::from([own_table]);
    if !installed {
        left_out.extend(rivals(config, &chains)?);
    }
    let conflicting = |family| {
        let sees = move |chain: &&BaseChain| chain.table.family.sees(family);
        let chains = chains.iter().filter(sees);
        let chains = chains.filter(|chain| !left_out.contains(&chain.table));
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
                packet.source = paths.client();
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
    let comes_first = |chain: &BaseChain| {
        let theirs = firewall.handle(&chain.table);
        chain.priority < PRIORITY || own.zip(theirs).is_some_and(|(own, theirs)| own < theirs)
    };
    let describe = |blocker: &Blocker<'_>| Ok(describe(blocker, comes_first(blocker.chain)));
    Ok(blockers.findings(SUBJECT, none, describe)?)
}

/// The tables of other instances that claim a part of this: another line says so. A table may have such a
/// name and be no instance's.
fn rivals(config: &Config, chains: &[BaseChain]) -> Result<Vec<Table>, NftablesError> {
    let mut tables: Vec<&Table> = chains.iter().map(|chain| &chain.table).collect();
    tables
        .retain(|table| table.family == TableFamily::Inet && table.name.starts_with(TABLE_PREFIX));
    tables.dedup();
    let claims = Claims::of(config);
    let mut rivals = Vec::new();
    for table in tables {
        let theirs = Claims::read(&Nftables::open()?, &table.name)?;
        if theirs.is_some_and(|theirs| claims.conflict(&theirs).is_some()) {
            rivals.push(table.clone());
        }
    }
    Ok(rivals)
}

fn is_conflicting(chain: &BaseChain, config: &Config) -> bool {
    let hook = match chain.hook {
        Hook::Prerouting => true,
        Hook::Output => config.output,
        _ => false,
    };
    hook && chain.is_nat && chain.priority <= PRIORITY
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

fn describe(blocker: &Blocker<'_>, comes_first: bool) -> Finding {
    let Blocker {
        chain,
        location,
        sure,
        forwards,
        ..
    } = blocker;
    let services = first_few(forwards.iter().map(|(forward, _)| forward.service));
    let order = match (chain.priority == PRIORITY, comes_first) {
        (false, _) => format!("earlier, at priority {}", chain.priority),
        (true, true) => "earlier, at the same priority, as its table is newer".into(),
        (true, false) => "at the same priority, where the newest table comes first".into(),
    };
    let level = if comes_first && *sure {
        Level::Failure
    } else {
        Level::Doubt
    };
    let (certainly, possibly) = match location.rule {
        Some(_) => ("drops or translates", "may drop or translate"),
        // A policy cannot translate.
        None => ("drops", "may drop"),
    };
    let (how, command) = fix::removal(location);
    let ends = if *sure { certainly } else { possibly };
    let text = format!("{location} {ends} {services} {order}; use another port");
    Finding::new(level, SUBJECT, text).mended(&format!(", or {how}"), command)
}
