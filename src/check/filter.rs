//! Chains of other tables at the forward hook that drop forwarded packets. What one of them drops is
//! lost, whatever the others accept.

use super::blocker::{Blocker, Blockers, over_ports};
use super::paths::Paths;
use super::{CLIENT_PORT, Finding, Level, fix};
use crate::config::{
    Config, Destination, Family, Forward, PortRange, Protocol, Service, first_few,
};
use crate::firewall::{Firewall, Outcome, Packet};
use crate::netlink::gives_up;
use crate::nftables::NftablesError;
use crate::nftables::list::{BaseChain, Hook};
use crate::rtnetlink::Interface;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

const SUBJECT: &str = "firewall";

/// Looks at the chains of the forward hook.
pub fn findings(
    firewall: &mut Firewall<'_>,
    config: &Config,
    paths: &Paths,
) -> Result<Vec<Finding>, NftablesError> {
    let chains = firewall.chains();
    let at_forward = |chain: &BaseChain| chain.hook == Hook::Forward;
    let chains: Vec<&BaseChain> = chains.iter().filter(|chain| at_forward(chain)).collect();
    let mut blockers = Blockers::default();
    let mut shared = Shared::default();
    for forward in config.reachable_forwards() {
        let Service {
            family, protocol, ..
        } = forward.service;
        for to in &forward.destinations {
            // What ends on this host itself, or has no route, does not come here.
            let Some(output) = paths.output(protocol, to) else {
                continue;
            };
            let path = Path {
                forward,
                to,
                input: paths.input(family),
                output,
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
    blockers.findings(SUBJECT, none, |blocker| describe(firewall, paths, blocker))
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
        let output = path.output.index;
        let kind = (index, service.family, service.protocol, output);
        let known = self.of_all.entry(kind);
        let known = found(known, || {
            let mut outcome = |reply| firewall.outcome(chain, &path.any_packet(reply));
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

/// The path of a forward's packets through this host.
struct Path<'a> {
    forward: &'a Forward,
    to: &'a Destination,
    input: Option<&'a Interface>,
    output: &'a Interface,
}

/// The worse of what becomes of the first packet and of its reply, and whether that is the reply's.
fn worse(there: Outcome, back: Outcome) -> (Outcome, bool) {
    match (there, back) {
        (there @ Outcome::Ends(_), _) => (there, false),
        (_, back @ Outcome::Ends(_)) | (Outcome::Passes, back) => (back, true),
        (there, _) => (there, false),
    }
}

impl Path<'_> {
    /// What becomes of the forward's packets to this address, or to any.
    fn outcome(
        &self,
        firewall: &mut Firewall<'_>,
        chain: &BaseChain,
        to: Option<IpAddr>,
    ) -> Result<(Outcome, bool), NftablesError> {
        let mut of = |reply| {
            over_ports(self.forward.service.ports, |port| {
                firewall.outcome(chain, &self.packet(port, reply, to))
            })
        };
        Ok(worse(of(false)?, of(true)?))
    }

    /// A packet on this path of which neither address nor port is known.
    fn any_packet(&self, reply: bool) -> Packet {
        Packet {
            source_port: None,
            destination_port: None,
            original_port: None,
            ..self.packet(None, reply, None)
        }
    }

    /// A packet of a connection to this port, and to this address of a destination.
    fn packet(&self, port: Option<u16>, reply: bool, address: Option<IpAddr>) -> Packet {
        let Path { forward, to, .. } = self;
        let single = || to.ports.is_single().then(|| to.ports.first());
        let backend_port = port.map(|port| to.backend(forward.service.ports, port).1);
        let backend_port = backend_port.or_else(single);
        let packet = Packet {
            translated: true,
            to_this_host: Some(false),
            original_port: port,
            ..Packet::first(forward.service.family, forward.service.protocol)
        };
        if reply {
            Packet {
                reply,
                input: Some(self.output.clone()),
                output: self.input.cloned(),
                source: address,
                source_port: backend_port,
                destination_port: Some(CLIENT_PORT),
                ..packet
            }
        } else {
            Packet {
                input: self.input.cloned(),
                output: Some(self.output.clone()),
                destination: address,
                source_port: Some(CLIENT_PORT),
                destination_port: backend_port,
                ..packet
            }
        }
    }
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
    let command = fix::command(firewall, chain, location, forwards)?;
    let chain = location.table.for_nft(Some(&location.chain));
    let (level, text) = match (sure, &command, chain) {
        (true, Some(command), _) => (
            Level::Failure,
            format!("{location} drops {what}; let it through with: {command}"),
        ),
        (true, None, _) => (Level::Failure, format!("{location} drops {what}")),
        (false, Some(command), Some(chain)) => (
            Level::Doubt,
            format!(
                "{location} may drop {what} (see nft -a list chain {chain}); let it through with: {command}"
            ),
        ),
        (false, ..) => (Level::Doubt, format!("{location} may drop {what}")),
    };
    Ok(Finding {
        command,
        ..Finding::new(level, SUBJECT, text)
    })
}
