//! Chains of others on the way from one interface to another that drop forwarded packets. What one
//! of them drops is lost, whatever the others say.

use super::encounter::{Encounter, Encounters, over_ports};
use super::ways::{Ways, taken};
use super::{CLIENT_PORT, Finding, Level, list, remedy, service};
use crate::config::{Config, Destination, Forward};
use crate::flow;
use crate::netfilter::{BaseChain, Fate, FilterHook, Firewall, Interface, NetfilterError, Packet};

const SUBJECT: &str = "firewall";

/// Looks at the chains of the forward hook.
pub fn findings(
    firewall: &mut Firewall<'_>,
    config: &Config,
    ways: &Ways,
) -> Result<Vec<Finding>, NetfilterError> {
    let chains = firewall.chains();
    let on_the_way = |chain: &&BaseChain| chain.hook == FilterHook::Forward;
    let mut encounters = Encounters::default();
    for forward in taken(config) {
        let seen = |chain: &&BaseChain| chain.table.family.sees(forward.family);
        for chain in chains.iter().filter(on_the_way).filter(seen) {
            for to in &forward.destinations {
                // What ends on this host itself, or has no route, does not come here.
                let Some(output) = ways.output(forward.protocol, to) else {
                    continue;
                };
                let path = Path {
                    forward,
                    to,
                    input: ways.input(forward.family),
                    output,
                };
                let (fate, answers) = path.fate(firewall, chain)?;
                encounters.add(chain, fate, answers, (forward, *to));
            }
        }
    }
    let none = "no table drops what is to be forwarded";
    encounters.findings(SUBJECT, none, |encounter| {
        describe(firewall, ways, encounter)
    })
}

/// The way of a forward's packets through this host.
struct Path<'a> {
    forward: &'a Forward,
    to: &'a Destination,
    input: Option<&'a Interface>,
    output: &'a Interface,
}

impl Path<'_> {
    /// What becomes of the first packet, and of its answer; the worse of the two, and whether that is the
    /// answer's.
    fn fate(
        &self,
        firewall: &mut Firewall<'_>,
        chain: &BaseChain,
    ) -> Result<(Fate, bool), NetfilterError> {
        let mut of = |answer| {
            over_ports(self.forward.ports, |port| {
                firewall.fate(chain, &self.packet(port, answer))
            })
        };
        Ok(match (of(false)?, of(true)?) {
            (there @ Fate::Ends(_), _) => (there, false),
            (_, back @ Fate::Ends(_)) | (Fate::Passes, back) => (back, true),
            (there, _) => (there, false),
        })
    }

    /// A packet of a connection that is made to this port.
    fn packet(&self, port: Option<u16>, answer: bool) -> Packet {
        let Path { forward, to, .. } = self;
        let single = || to.ports.is_single().then(|| to.ports.first());
        let target = port.map(|port| flow::target(to, forward.ports, port).1);
        let target = target.or_else(single);
        let packet = Packet {
            translated: true,
            to_this_host: Some(false),
            original_port: port,
            ..Packet::first(forward.family, forward.protocol)
        };
        match answer {
            false => Packet {
                input: self.input.cloned(),
                output: Some(self.output.clone()),
                destination: Some(to.address),
                source_port: Some(CLIENT_PORT),
                destination_port: target,
                ..packet
            },
            true => Packet {
                answer,
                input: Some(self.output.clone()),
                output: self.input.cloned(),
                source: Some(to.address),
                source_port: target,
                destination_port: Some(CLIENT_PORT),
                ..packet
            },
        }
    }
}

fn describe(
    firewall: &Firewall<'_>,
    ways: &Ways,
    encounter: &Encounter<'_>,
) -> Result<(Level, String), NetfilterError> {
    let Encounter {
        chain,
        place,
        sure,
        answers,
        forwards,
    } = encounter;
    let what = |(forward, to): &(&Forward, Destination)| {
        let service = service(forward);
        match ways.input(forward.family) {
            _ if *answers => format!("the answers of {to} to {service}"),
            None => format!("{service} to {to}"),
            Some(Interface { name, .. }) => format!("{service} from {name} to {to}"),
        }
    };
    let what = list(forwards.iter().map(what));
    let command = remedy::command(firewall, chain, place, forwards)?;
    let table = &place.table;
    let name = place.chain.escape_debug();
    Ok(match sure {
        true => (
            Level::Failure,
            format!("{place} drops {what}; let it through with: {command}"),
        ),
        false => (
            Level::Doubt,
            format!(
                "{place} may drop {what} (see nft -a list chain {table} {name}); let it through with: {command}"
            ),
        ),
    })
}
