//! Balanced forwards in an instance's table, read back: a map leads from the service to the forward's
//! chain, whose rule leads to one chain for each destination.

use super::rule::{self, Action, DnatTo};
use super::{DestinationStatus, ForwardStatus};
use crate::config::{Destination, PortRange, Service};
use crate::netlink::{Failure, Socket, address, or_missing};
use crate::nftables::list::{self, Data, Table, Verdict};
use std::collections::HashMap;

/// The chain that a map sends packets to.
fn chain_of(data: Option<&Data>) -> Option<&str> {
    match data? {
        Data::Verdict(Verdict { chain, .. }) => chain.as_deref(),
        Data::Value(_) => None,
    }
}

/// What each chain's rules do, in order.
pub type Actions = HashMap<String, Vec<Action>>;

/// What the rules of a chain do, or those of all chains. Refuses what cannot be listed.
pub fn actions(socket: &Socket, table: &Table, chain: Option<&str>) -> Result<Actions, Failure> {
    let mut actions = Actions::new();
    for rule in list::rules(socket, table, chain)? {
        if let Some(action) = rule::action(rule.expressions()) {
            actions.entry(rule.chain).or_default().push(action);
        }
    }
    Ok(actions)
}

/// How many packets the rules of a chain have dropped and counted; 0 if there is no such chain.
pub fn dropped(socket: &Socket, table: &Table, chain: &str) -> Result<u64, Failure> {
    let actions = actions(socket, table, Some(chain))?;
    let count = |action: &Action| match action {
        Action::Drop { count } => *count,
        _ => 0,
    };
    Ok(actions.values().flatten().map(count).sum())
}

/// What a map has for each key.
type Map = HashMap<Vec<u8>, Data>;

/// The maps that lead connections to one of several destinations, or to another port.
fn maps(
    socket: &Socket,
    table: &Table,
    actions: &Actions,
) -> Result<HashMap<String, Map>, Failure> {
    let mut maps = HashMap::new();
    for action in actions.values().flatten() {
        let name = match action {
            Action::Vmap {
                map,
                numbers: Some(_),
            } => map,
            Action::Dnat {
                to: DnatTo::Map(map),
                ..
            } => map,
            _ => continue,
        };
        if !maps.contains_key(name) {
            let elements = or_missing(list::elements(socket, table, name))?.into_iter();
            let pairs = elements.filter_map(|element| Some((element.key, element.data?)));
            maps.insert(name.clone(), pairs.collect());
        }
    }
    Ok(maps)
}

/// The rules and maps of a table.
pub struct Reader {
    actions: Actions,
    maps: HashMap<String, Map>,
}

impl Reader {
    /// Reads them.
    pub fn new(socket: &Socket, table: &Table) -> Result<Self, Failure> {
        let actions = actions(socket, table, None)?;
        let maps = maps(socket, table, &actions)?;
        Ok(Reader { actions, maps })
    }

    /// The forward of this service, if the map that has it leads to a chain.
    pub fn forward(&self, service: Service, data: Option<&Data>) -> Option<ForwardStatus> {
        let mut forward = ForwardStatus::new(service);
        for action in self.chain(chain_of(data)?) {
            match action {
                Action::Vmap { map, numbers } => {
                    // A number is in host byte order. The map has them all; a table of another program may
                    // not, and its rule may look up four billion.
                    let keys = numbers.iter().cloned().flatten().map(u32::to_ne_bytes);
                    for chain in keys.map_while(|key| self.chain_in_map(map, &key)) {
                        self.chain(chain)
                            .iter()
                            .for_each(|action| self.count(&mut forward, action));
                    }
                }
                action => self.count(&mut forward, action),
            }
        }
        Some(forward)
    }

    fn chain(&self, name: &str) -> &[Action] {
        self.actions.get(name).map_or(&[], Vec::as_slice)
    }

    fn chain_in_map(&self, map: &str, key: &[u8]) -> Option<&str> {
        chain_of(self.maps.get(map)?.get(key))
    }

    fn count(&self, forward: &mut ForwardStatus, action: &Action) {
        match action {
            Action::Dnat { count, to } => {
                let to = match to {
                    DnatTo::Address(address, port) => Some(Destination {
                        address: *address,
                        ports: match port {
                            Some(port) => {
                                PortRange::try_from((*port, *port)).unwrap_or(forward.service.ports)
                            }
                            None => forward.service.ports,
                        },
                    }),
                    DnatTo::Map(map) => self.maps.get(map).and_then(|map| mapped(map, forward)),
                };
                forward.destinations.extend(to.map(|to| DestinationStatus {
                    to,
                    connections: *count,
                    active: None,
                }));
            }
            // Such a map leads to the destinations' chains, never to another map.
            Action::Vmap { .. } | Action::Jump | Action::Drop { .. } => {}
        }
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
    fn a_rule_that_looks_up_more_numbers_than_the_map_has_is_read() {
        let vmap = Action::Vmap {
            map: "backends-1".into(),
            numbers: Some(0..u32::MAX),
        };
        let dnat = Action::Dnat {
            count: 7,
            to: DnatTo::Address([10, 2, 0, 11].into(), None),
        };
        let chain = |number: u32| {
            let verdict = Verdict {
                code: libc::NFT_GOTO,
                chain: Some("one".into()),
            };
            (number.to_ne_bytes().to_vec(), Data::Verdict(verdict))
        };
        let reader = Reader {
            actions: [("all".into(), vec![vmap]), ("one".into(), vec![dnat])].into(),
            maps: [("backends-1".into(), [chain(0), chain(1)].into())].into(),
        };
        let service = Service {
            family: Family::Ipv4,
            protocol: Protocol::Udp,
            ports: 53.into(),
        };
        let verdict = Data::Verdict(Verdict {
            code: libc::NFT_GOTO,
            chain: Some("all".into()),
        });
        let forward = reader.forward(service, Some(&verdict)).unwrap();
        assert_eq!(forward.destinations.len(), 2);
    }

    proptest! {
        #[test]
        fn no_data_panics(data: Vec<u8>) {
            let map = Map::from([(vec![0, 1, 0, 0, 17, 0, 0, 0], Data::Value(data))]);
            mapped(&map, &forward("1"));
        }
    }
}
