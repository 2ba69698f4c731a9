//! Chains of other tables at the forward hook that drop forwarded packets. What one of them drops is
//! lost, whatever the others accept.

use super::blocker::{Blocker, Blockers, over_ports};
use super::paths::Paths;
use super::{CLIENT_PORT, Finding, Level, fix};
use crate::config::{Config, Destination, Forward, first_few};
use crate::firewall::{Firewall, Outcome, Packet};
use crate::nftables::NftablesError;
use crate::nftables::list::{BaseChain, Hook};
use crate::rtnetlink::Interface;

const SUBJECT: &str = "firewall";

/// Looks at the chains of the forward hook.
pub fn findings(
    firewall: &mut Firewall<'_>,
    config: &Config,
    paths: &Paths,
) -> Result<Vec<Finding>, NftablesError> {
    let chains = firewall.chains();
    let at_forward = |chain: &&BaseChain| chain.hook == Hook::Forward;
    let mut blockers = Blockers::default();
    for forward in config.reachable_forwards() {
        let seen = |chain: &&BaseChain| chain.table.family.sees(forward.service.family);
        for chain in chains.iter().filter(at_forward).filter(seen) {
            for to in &forward.destinations {
                // What ends on this host itself, or has no route, does not come here.
                let Some(output) = paths.output(forward.service.protocol, to) else {
                    continue;
                };
                let path = Path {
                    forward,
                    to,
                    input: paths.input(forward.service.family),
                    output,
                };
                let (outcome, replies) = path.outcome(firewall, chain)?;
                blockers.add(chain, outcome, replies, (forward, *to));
            }
        }
    }
    let none = "no table drops what is to be forwarded";
    blockers.findings(SUBJECT, none, |blocker| describe(firewall, paths, blocker))
}

/// The path of a forward's packets through this host.
struct Path<'a> {
    forward: &'a Forward,
    to: &'a Destination,
    input: Option<&'a Interface>,
    output: &'a Interface,
}

impl Path<'_> {
    /// What becomes of the first packet, and of its reply; the worse of the two, and whether that is the
    /// reply's.
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
        Ok(match (of(false)?, of(true)?) {
            (there @ Outcome::Ends(_), _) => (there, false),
            (_, back @ Outcome::Ends(_)) | (Outcome::Passes, back) => (back, true),
            (there, _) => (there, false),
        })
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
