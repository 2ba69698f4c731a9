//! Chains of other tables on the way of forwarded packets that drop them. What one of them drops is lost,
//! whatever the others accept.

use super::blocker::{Blocker, Blockers};
use super::packets::{Path, worse};
use super::paths::Paths;
use super::{Finding, Level, fix};
use crate::config::{
    Config, Destination, Family, Forward, PortRange, Protocol, Service, first_few,
};
use crate::firewall::{Firewall, Outcome};
use crate::netlink::gives_up;
use crate::nftables::NftablesError;
use crate::nftables::list::{BaseChain, Hook, Table, TableFamily};
use crate::rtnetlink::Interface;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

const SUBJECT: &str = "firewall";

/// Looks at the chains of all hooks that forwarded packets and their replies pass, of those of type nat after the
/// destination is translated.
pub fn findings(
    firewall: &mut Firewall<'_>,
    config: &Config,
    paths: &Paths,
) -> Result<Vec<Finding>, NftablesError> {
    let chains = firewall.chains();
    let own = Table::inet(&config.name.table());
    let is_on_the_way = |chain: &&BaseChain| is_followed(chain) && chain.table != own;
    let unseen = unseen(firewall, &chains, config, paths)?;
    let chains: Vec<&BaseChain> = chains.iter().filter(is_on_the_way).collect();
    let mut blockers = Blockers::default();
    let mut shared = Shared::default();
    for forward in config.reachable_forwards() {
        let Service {
            family, protocol, ..
        } = forward.service;
        for to in &forward.destinations {
            let output = paths.output(protocol, to);
            // What has no route is dropped before.
            if output.is_none() && !paths.is_local(protocol, to) {
                continue;
            }
            let path = Path {
                forward,
                to,
                input: paths.input(family),
                has_way_back: paths.has_way_back(family),
                output,
                client: paths.client(),
                config,
            };
            for (index, chain) in chains.iter().enumerate() {
                if chain.table.family.sees(family) {
                    let (outcome, replies) = shared.outcome(index, chain, &path, firewall)?;
                    blockers.add(chain, outcome, replies, (forward, *to));
                }
            }
            if gives_up() {
                blockers.stop();
                break;
            }
        }
    }
    let none = "no table drops what is to be forwarded";
    let found = blockers.findings(SUBJECT, none, |blocker| describe(firewall, paths, blocker));
    let mut found = found?;
    if !unseen.is_empty() {
        // What was not looked at may drop it.
        found.retain(|finding| finding.level != Level::Ok);
        found.extend(unseen);
    }
    Ok(found)
}

/// Whether packets are followed in a chain.
fn is_followed(chain: &BaseChain) -> bool {
    let is_early_nat = chain.is_nat && !matches!(chain.hook, Hook::Input | Hook::Postrouting);
    !is_early_nat && !matches!(chain.table.family, TableFamily::Bridge | TableFamily::Arp)
}

/// The chains that are not followed, of those that see what is to be forwarded.
fn unseen(
    firewall: &Firewall<'_>,
    chains: &[BaseChain],
    config: &Config,
    paths: &Paths,
) -> Result<Vec<Finding>, NftablesError> {
    let kind = |chain: &BaseChain| match chain.table.family {
        TableFamily::Bridge => Some("bridges"),
        TableFamily::Arp => Some("ARP"),
        _ if paths.sees_below(chain) => Some("lower interfaces, such as ports of a bridge"),
        _ => None,
    };
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for chain in chains {
        let mut families = config.families();
        let sees = families.any(|family| chain.table.family.sees(family));
        let Some(kind) = kind(chain).filter(|_| sees) else {
            continue;
        };
        if chain.drops || firewall.is_used(chain)? {
            let name = format!("{} in table {}", chain.name, chain.table);
            names.entry(kind).or_default().push(name);
        }
    }
    let finding = |(kind, names): (&str, Vec<String>)| {
        let names = first_few(names.iter());
        let text = format!("not looked at: the chains of {kind}: {names}");
        Finding::new(Level::Doubt, SUBJECT, text)
    };
    Ok(names.into_iter().map(finding).collect())
}

/// The outcomes that are the same for many forwards or destinations, as no rule looks at what sets these
/// apart: each is found once.
#[derive(Default)]
struct Shared {
    /// By chain, family, protocol and output.
    of_all: HashMap<(usize, Family, Protocol, u32), (Outcome, bool)>,
    /// By chain, service, output, and ports at the destination.
    of_forward: HashMap<(usize, Service, u32, PortRange), (Outcome, bool)>,
}

impl Shared {
    /// The outcome in a chain, which has an index.
    fn outcome(
        &mut self,
        index: usize,
        chain: &BaseChain,
        path: &Path<'_>,
        firewall: &mut Firewall<'_>,
    ) -> Result<(Outcome, bool), NftablesError> {
        let service = path.forward.service;
        let output = path.output.map_or(0, |output| output.index);
        let kind = (index, service.family, service.protocol, output);
        let known = self.of_all.entry(kind);
        let known = found(known, || {
            let mut outcome = |reply| path.of(firewall, chain, &path.any_packet(reply));
            Ok(worse(outcome(false)?, outcome(true)?))
        })?;
        if !matches!(known, (Outcome::MayEnd(_), _)) {
            return Ok(known);
        }
        if path.forward.destinations.len() > 1 {
            let known = self
                .of_forward
                .entry((index, service, output, path.to.ports));
            let known = found(known, || path.outcome(firewall, chain, None))?;
            if !matches!(known, (Outcome::MayEnd(_), _)) {
                return Ok(known);
            }
        }
        path.outcome(firewall, chain, Some(path.to.address))
    }
}

/// What is known, or else found now.
fn found<K>(
    entry: Entry<'_, K, (Outcome, bool)>,
    find: impl FnOnce() -> Result<(Outcome, bool), NftablesError>,
) -> Result<(Outcome, bool), NftablesError> {
    Ok(match entry {
        Entry::Occupied(known) => known.get().clone(),
        Entry::Vacant(unknown) => unknown.insert(find()?).clone(),
    })
}

fn describe(
    firewall: &Firewall<'_>,
    paths: &Paths,
    blocker: &Blocker<'_>,
) -> Result<Finding, NftablesError> {
    let Blocker {
        chain,
        location,
        sure,
        replies,
        forwards,
    } = blocker;
    let what = |(forward, to): &(&Forward, Destination)| {
        let service = forward.service;
        match paths.input(forward.service.family) {
            _ if *replies => format!("the replies of {to} to {service}"),
            None => format!("{service} to {to}"),
            Some(Interface { name, .. }) => format!("{service} from {name} to {to}"),
        }
    };
    let what = first_few(forwards.iter().map(what));
    let (fix, command) = match chain.hook {
        Hook::Forward | Hook::Input => match fix::command(firewall, chain, location, forwards)? {
            Some(command) if *sure => {
                let text = format!("{location} drops {what}; let it through with");
                let finding = Finding::new(Level::Failure, SUBJECT, text);
                return Ok(finding.mended("", Some(command)));
            }
            command => ("let it through with", command),
        },
        // No rule lets both directions through at the other hooks.
        _ => fix::removal(location),
    };
    let fix = format!("; {fix}");
    if !location.is_followed {
        let text = format!("not looked at: what {location} does with {what}");
        return Ok(Finding::new(Level::Doubt, SUBJECT, text).mended(&fix, command));
    }
    if *sure {
        let text = format!("{location} drops {what}");
        let finding = Finding::new(Level::Failure, SUBJECT, text);
        return Ok(finding.mended(&fix, command));
    }
    let rules = location.table.for_nft(Some(&location.chain));
    let see = rules.map_or(String::new(), |chain| {
        format!(" (see nft -a list chain {chain})")
    });
    let text = format!("{location} may drop {what}{see}");
    Ok(Finding::new(Level::Doubt, SUBJECT, text).mended(&fix, command))
}
