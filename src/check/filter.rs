//! Chains of other tables at the forward hook that drop forwarded packets. What one of them drops is
//! lost, whatever the others accept.

use super::blocker::{Blocker, Blockers, over_ports};
use super::paths::Paths;
use super::{CLIENT_PORT, Finding, Level, fix};
use crate::config::{Config, Destination, Family, Forward, Protocol, Service, first_few};
use crate::firewall::{Firewall, Outcome, Packet};
use crate::netlink::gives_up;
use crate::nftables::NftablesError;
use crate::nftables::list::{BaseChain, Hook};
use crate::rtnetlink::Interface;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

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
    let mut general = General::default();
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
                    let (outcome, replies) = general.outcome(index, chain, &path, firewall)?;
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

/// What becomes of packets of which only family, protocol and interfaces are known: in most chains that
/// decides, and the outcome is the same for all forwards.
#[derive(Default)]
struct General(HashMap<(usize, Family, Protocol, u32), (Outcome, bool)>);

impl General {
    /// The outcome in a chain, which has an index.
    fn outcome(
        &mut self,
        index: usize,
        chain: &BaseChain,
        path: &Path<'_>,
        firewall: &mut Firewall<'_>,
    ) -> Result<(Outcome, bool), NftablesError> {
        let Service {
            family, protocol, ..
        } = path.forward.service;
        let known = match self.0.entry((index, family, protocol, path.output.index)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let mut outcome = |reply| firewall.outcome(chain, &path.any_packet(reply));
                unknown.insert(worse(outcome(false)?, outcome(true)?))
            }
        };
        if let (Outcome::MayEnd(_), _) = known {
            return path.outcome(firewall, chain);
        }
        Ok(known.clone())
    }
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
    /// What becomes of the forward's packets.
    fn outcome(
        &self,
        firewall: &mut Firewall<'_>,
        chain: &BaseChain,
    ) -> Result<(Outcome, bool), NftablesError> {
        let mut of = |reply| {
            over_ports(self.forward.service.ports, |port| {
                firewall.outcome(chain, &self.packet(port, reply))
            })
        };
        Ok(worse(of(false)?, of(true)?))
    }

    /// A packet on this path of which neither address nor port is known.
    fn any_packet(&self, reply: bool) -> Packet {
        Packet {
            source: None,
            destination: None,
            source_port: None,
            destination_port: None,
            original_port: None,
            ..self.packet(None, reply)
        }
    }

    /// A packet of a connection to this port.
    fn packet(&self, port: Option<u16>, reply: bool) -> Packet {
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
                source: Some(to.address),
                source_port: backend_port,
                destination_port: Some(CLIENT_PORT),
                ..packet
            }
        } else {
            Packet {
                input: self.input.cloned(),
                output: Some(self.output.clone()),
                destination: Some(to.address),
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
) -> Result<(Level, String), NftablesError> {
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
    let table = &location.table;
    let name = location.chain.escape_debug();
    if *sure {
        let text = format!("{location} drops {what}; let it through with: {command}");
        return Ok((Level::Failure, text));
    }
    let text = format!(
        "{location} may drop {what} (see nft -a list chain {table} {name}); let it through with: {command}"
    );
    Ok((Level::Doubt, text))
}
