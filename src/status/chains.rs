//! Forwards with a chain of their own, read back: a map leads from the service to the forward's chain,
//! whose rules choose a destination, or a chain of further ones.

use super::rule::{self, Action, DnatTo};
use super::{DestinationStatus, ForwardStatus};
use crate::config::{Destination, PortRange, Service};
use crate::netlink::{Failure, Socket, address, or_missing};
use crate::nftables::list::{self, Data, Table, Verdict};
use crate::ruleset::down_chain_name;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// The chain that a map sends packets to.
fn chain_of(data: Option<&Data>) -> Option<&str> {
    match data? {
        Data::Verdict(Verdict { chain, .. }) => chain.as_deref(),
        Data::Value(_) => None,
    }
}

/// What the rules of a chain do, in order; nothing if there is no such chain.
pub fn actions(socket: &Socket, table: &Table, chain: &str) -> Result<Vec<Action>, Failure> {
    let rules = list::rules(socket, table, Some(chain))?.into_iter();
    let actions = rules.filter_map(|rule| rule::action(rule.expressions()));
    Ok(actions.collect())
}

/// How many packets the rules of a chain have dropped and counted; 0 if there is no such chain.
pub fn dropped(socket: &Socket, table: &Table, chain: &str) -> Result<u64, Failure> {
    Ok(sum_of_dropped(&actions(socket, table, chain)?))
}

fn sum_of_dropped(actions: &[Action]) -> u64 {
    let count = |action: &Action| match action {
        Action::Drop { count } => *count,
        _ => 0,
    };
    actions.iter().map(count).sum()
}

/// What a map has for each key.
type Map = HashMap<Vec<u8>, Data>;

/// The rules and maps of a table, each read once and only if it is asked for.
///
/// Chain by chain: of a dump of all rules the kernel sends a part at a time, and goes through the rules
/// from the first one for each (nf_tables_dump_rules in net/netfilter/nf_tables_api.c), while it looks up
/// a chain by its name.
pub struct Reader<'a> {
    socket: &'a Socket,
    table: &'a Table,
    /// Whether destinations that fail are listed in chains of their own.
    health: bool,
    chains: HashMap<String, Rc<[Action]>>,
    maps: HashMap<String, Map>,
}

impl<'a> Reader<'a> {
    /// Reads nothing yet.
    pub fn new(socket: &'a Socket, table: &'a Table, health: bool) -> Self {
        Reader {
            socket,
            table,
            health,
            chains: HashMap::new(),
            maps: HashMap::new(),
        }
    }

    /// The forward of this service, if the map that has it leads to a chain. Goes through `left` actions at
    /// most: in a table that no instance has made, each of many services may lead to the same many.
    pub fn forward(
        &mut self,
        service: Service,
        data: Option<&Data>,
        left: &mut usize,
    ) -> Result<Option<ForwardStatus>, Failure> {
        let Some(chain) = chain_of(data) else {
            return Ok(None);
        };
        let mut forward = ForwardStatus::new(service);
        let down = down_chain_name(chain);
        let down = self.health.then_some((&*down, Some(false)));
        let mut places = HashMap::new();
        for (chain, up) in [(chain, None)].into_iter().chain(down) {
            for (to, connections) in self.destinations(&forward, chain, left)? {
                let next = forward.destinations.len();
                let place = *places.entry(to).or_insert(next);
                if place == next {
                    let destination = DestinationStatus::new(to, 0);
                    forward.destinations.push(destination);
                }
                let destination = &mut forward.destinations[place];
                destination.connections = destination.connections.saturating_add(connections);
                destination.up = destination.up.or(up);
            }
        }
        Ok(Some(forward))
    }

    /// How many packets the chain that the map of dropped ranges leads to has dropped.
    pub fn dropped(&mut self, data: Option<&Data>) -> Result<u64, Failure> {
        let Some(chain) = chain_of(data) else {
            return Ok(0);
        };
        Ok(sum_of_dropped(&self.chain(chain)?))
    }

    fn chain(&mut self, name: &str) -> Result<Rc<[Action]>, Failure> {
        if let Some(read) = self.chains.get(name) {
            return Ok(read.clone());
        }
        let read: Rc<[Action]> = actions(self.socket, self.table, name)?.into();
        self.chains.insert(name.to_owned(), read.clone());
        Ok(read)
    }

    fn map(&mut self, name: &str) -> Result<&Map, Failure> {
        if !self.maps.contains_key(name) {
            let elements = or_missing(list::elements(self.socket, self.table, name))?.into_iter();
            let pairs = elements.filter_map(|element| Some((element.key, element.data?)));
            self.maps.insert(name.to_owned(), pairs.collect());
        }
        Ok(&self.maps[name])
    }

    /// The destinations of a chain, and of those that it leads to, as long as actions are left, with what each
    /// rule has counted. Each chain is gone through once: in a table of another program, many rules may lead to
    /// the same one.
    fn destinations(
        &mut self,
        forward: &ForwardStatus,
        chain: &str,
        left: &mut usize,
    ) -> Result<Vec<(Destination, u64)>, Failure> {
        let mut destinations = Vec::new();
        let mut met = HashSet::from([chain.to_owned()]);
        let mut stack = vec![(self.chain(chain)?, 0)];
        while let Some((actions, next)) = stack.last_mut() {
            let Some(action) = actions.get(*next).cloned() else {
                stack.pop();
                continue;
            };
            *next += 1;
            match left.checked_sub(1) {
                None => break,
                Some(fewer) => *left = fewer,
            }
            match action {
                Action::Dnat { count, to } => {
                    let to = self.destination(forward, &to)?;
                    destinations.extend(to.map(|to| (to, count)));
                }
                Action::Goto(chain) => {
                    if met.insert(chain.clone()) {
                        stack.push((self.chain(&chain)?, 0));
                    }
                }
                Action::Jump | Action::Drop { .. } => {}
            }
        }
        Ok(destinations)
    }

    fn destination(
        &mut self,
        forward: &ForwardStatus,
        to: &DnatTo,
    ) -> Result<Option<Destination>, Failure> {
        let ports = |port: Option<u16>| {
            let port = port.and_then(|port| PortRange::try_from((port, port)).ok());
            port.unwrap_or(forward.service.ports)
        };
        Ok(match to {
            DnatTo::Address(address, port) => Some(Destination {
                address: *address,
                ports: ports(*port),
            }),
            DnatTo::Map(map) => mapped(self.map(map)?, forward),
        })
    }
}

/// Where a map from port and protocol to address and port sends a forward: to one address, and to as many
/// ports.
fn mapped(map: &Map, forward: &ForwardStatus) -> Option<Destination> {
    let backend = |port: u16| {
        let [high, low] = port.to_be_bytes();
        let key: &[u8] = &[high, low, 0, 0, forward.service.protocol.number(), 0, 0, 0];
        let Data::Value(bytes) = map.get(key)? else {
            return None;
        };
        let (octets, rest) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let port = rest.first_chunk().copied().map(u16::from_be_bytes)?;
        Some((address(octets)?, port))
    };
    let (address, first) = backend(forward.service.ports.first())?;
    let (_, last) = backend(forward.service.ports.last())?;
    let ports = PortRange::try_from((first, last)).ok()?;
    Some(Destination { address, ports })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Family, Protocol};
    use nix::libc;
    use proptest::prelude::*;

    fn forward(ports: &str) -> ForwardStatus {
        ForwardStatus::new(Service {
            family: Family::Ipv4,
            protocol: Protocol::Udp,
            ports: ports.parse().unwrap(),
        })
    }

    #[test]
    fn ports_of_a_map_become_a_range() {
        let element = |port: u8| {
            let key = vec![0, port, 0, 0, 17, 0, 0, 0];
            (key, Data::Value(vec![10, 2, 0, 11, 1, port, 0, 0]))
        };
        let map: Map = (1..=9).map(element).collect();
        let destination = mapped(&map, &forward("2-4")).unwrap();
        assert_eq!(destination.to_string(), "10.2.0.11:258-260");
        assert_eq!(mapped(&map, &forward("2-10")), None);
        assert_eq!(mapped(&Map::new(), &forward("2-4")), None);
    }

    #[test]
    fn destinations_that_fail_are_read_from_their_chain() {
        let dnat = |count, number| Action::Dnat {
            count,
            to: DnatTo::Address([10, 2, 0, number].into(), Some(8080)),
        };
        let goto = |chain: &str| Action::Goto(chain.into());
        let chains = [
            ("all", vec![goto("all-down-1"), dnat(5, 2), dnat(7, 3)]),
            ("all-down-1", vec![dnat(1, 2), dnat(2, 3)]),
            ("all-down", vec![dnat(0, 1)]),
        ];
        let chains = chains.map(|(name, actions)| (name.to_owned(), actions.into()));
        let (socket, table) = (Socket::netfilter().unwrap(), Table::inet("none"));
        let mut reader = Reader {
            chains: chains.into(),
            ..Reader::new(&socket, &table, true)
        };
        let verdict = Data::Verdict(Verdict {
            code: libc::NFT_GOTO,
            chain: Some("all".into()),
        });
        let forward = reader.forward(forward("53").service, Some(&verdict), &mut 100);
        let found: Vec<_> = forward
            .unwrap()
            .unwrap()
            .destinations
            .iter()
            .map(|it| (it.to.to_string(), it.connections, it.up))
            .collect();
        let to = |number| format!("10.2.0.{number}:8080");
        assert_eq!(
            found,
            [(to(2), 6, None), (to(3), 9, None), (to(1), 0, Some(false))]
        );
    }

    #[test]
    fn chains_that_lead_to_each_other_are_read_once() {
        let dnat = Action::Dnat {
            count: 7,
            to: DnatTo::Address([10, 2, 0, 11].into(), None),
        };
        let goto = |chain: &str| Action::Goto(chain.into());
        let chains = [
            (
                "all",
                vec![goto("one"), goto("all"), goto("one"), dnat.clone()],
            ),
            ("one", vec![goto("all"), dnat.clone()]),
        ];
        let chains = chains.map(|(name, actions)| (name.to_owned(), actions.into()));
        let (socket, table) = (Socket::netfilter().unwrap(), Table::inet("none"));
        let mut reader = Reader {
            chains: chains.into(),
            ..Reader::new(&socket, &table, false)
        };
        let verdict = Data::Verdict(Verdict {
            code: libc::NFT_GOTO,
            chain: Some("all".into()),
        });
        let service = forward("53").service;
        let mut count = |mut left| {
            let forward = reader.forward(service, Some(&verdict), &mut left);
            let forward = forward.unwrap().unwrap();
            (forward.destinations.len(), left)
        };
        // Both rules lead to the same destination.
        assert_eq!(count(100), (1, 94));
        assert_eq!(count(4), (1, 0));
        assert_eq!(count(0), (0, 0));
    }

    proptest! {
        #[test]
        fn no_data_panics(data: Vec<u8>) {
            let map = Map::from([(vec![0, 1, 0, 0, 17, 0, 0, 0], Data::Value(data))]);
            mapped(&map, &forward("1"));
        }
    }
}
