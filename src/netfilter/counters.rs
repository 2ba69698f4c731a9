//! What the rules of an instance have done: read back with their counters, from whoever's table.

use super::message::{Message, Request};
use super::rule::{self, Action, Target};
use super::sibling;
use super::socket::{Failure, Socket};
use super::table::{self, Data};
use crate::config::{Destination, Family, PortRange};
use crate::ruleset::{Claim, PREROUTING, claiming_set_names};
use crate::status::{DestinationStatus, ForwardStatus};
use nftnl::nftnl_sys::libc;
use std::collections::HashMap;

// linux/netfilter/nf_tables.h: enum nft_rule_attributes
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;

/// The forwards in a table of family `inet`, in order of family, protocol and port. Nothing if
/// there is no such table.
pub fn forwards(socket: &Socket, table: &str) -> Result<Vec<ForwardStatus>, Failure> {
    let actions = actions(socket, &of_table(table), table)?;
    let maps = maps(socket, table, &actions)?;
    let reader = Reader { actions, maps };
    let mut forwards = Vec::new();
    for family in Family::ALL {
        for map in claiming_set_names(family) {
            for element in table::elements(socket, table, &map)? {
                let claim = sibling::service(family, &element);
                if let (Some(claim), Some(Data::Chain(chain))) = (claim, element.data) {
                    forwards.push(reader.forward(claim, &chain));
                }
            }
        }
    }
    forwards.sort_by_key(|forward| (forward.family, forward.protocol, forward.ports));
    Ok(forwards)
}

/// Whether new connections are led to the forwards in this table. Not so while they drain, or if
/// there is no such table.
pub fn takes_connections(socket: &Socket, table: &str) -> Result<bool, Failure> {
    // The kernel goes through this one chain only, whatever the number of forwards.
    let actions = actions(socket, &of_table(table).text(CHAIN, PREROUTING), table)?;
    let mut rules = actions.get(PREROUTING).into_iter().flatten();
    Ok(rules.any(|action| matches!(action, Action::Choose { .. })))
}

/// A request for all rules of a table.
fn of_table(table: &str) -> Request {
    table::dump_request(libc::NFT_MSG_GETRULE).text(TABLE, table)
}

/// What each chain's rules do, in order.
type Actions = HashMap<String, Vec<Action>>;

fn actions(socket: &Socket, request: &Request, table: &str) -> Result<Actions, Failure> {
    let mut actions = Actions::new();
    socket.dump(request, |message| match message {
        None => actions.clear(),
        Some(message) => {
            if let Some((chain, action)) = chain_and_action(&message, table) {
                actions.entry(chain.to_owned()).or_default().push(action);
            }
        }
    })?;
    Ok(actions)
}

pub fn chain_and_action<'a>(message: &Message<'a>, table: &str) -> Option<(&'a str, Action)> {
    let attributes = message.attributes();
    if attributes.text(TABLE)? != table {
        return None;
    }
    let action = rule::action(attributes.nested(EXPRESSIONS))?;
    Some((attributes.text(CHAIN)?, action))
}

/// What a map has for each key.
type Map = HashMap<Vec<u8>, Data>;

/// The maps that lead connections to one of several destinations, or to another port.
fn maps(socket: &Socket, table: &str, actions: &Actions) -> Result<HashMap<String, Map>, Failure> {
    let mut maps = HashMap::new();
    for action in actions.values().flatten() {
        let name = match action {
            Action::Choose {
                map,
                numbers: Some(_),
            } => map,
            Action::Take {
                target: Target::Map(map),
                ..
            } => map,
            _ => continue,
        };
        if !maps.contains_key(name) {
            let elements = table::elements(socket, table, name)?.into_iter();
            let pairs = elements.filter_map(|element| Some((element.first, element.data?)));
            maps.insert(name.clone(), pairs.collect());
        }
    }
    Ok(maps)
}

struct Reader {
    actions: Actions,
    maps: HashMap<String, Map>,
}

impl Reader {
    fn forward(&self, claim: Claim, chain: &str) -> ForwardStatus {
        let mut forward = ForwardStatus {
            protocol: claim.protocol,
            family: claim.family,
            ports: claim.ports,
            denied: 0,
            destinations: Vec::new(),
        };
        for action in self.chain(chain) {
            match action {
                Action::Choose { map, numbers } => {
                    // A number is in host byte order. The map has them all; somebody else's may not, and
                    // its rule may ask for four billion.
                    let keys = numbers.iter().cloned().flatten().map(u32::to_ne_bytes);
                    for chain in keys.map_while(|key| self.choice(map, &key)) {
                        self.chain(chain)
                            .iter()
                            .for_each(|action| self.count(&mut forward, action));
                    }
                }
                action => self.count(&mut forward, action),
            }
        }
        forward
    }

    fn chain(&self, name: &str) -> &[Action] {
        self.actions.get(name).map_or(&[], Vec::as_slice)
    }

    fn choice(&self, map: &str, key: &[u8]) -> Option<&str> {
        match self.maps.get(map)?.get(key)? {
            Data::Chain(chain) => Some(chain),
            Data::Bytes(_) => None,
        }
    }

    fn count(&self, forward: &mut ForwardStatus, action: &Action) {
        match action {
            Action::Deny { count } => forward.denied += count,
            Action::Take { count, target } => {
                let to = match target {
                    Target::Address(address, port) => Some(Destination {
                        address: *address,
                        ports: match port {
                            Some(port) => {
                                PortRange::try_from((*port, *port)).unwrap_or(forward.ports)
                            }
                            None => forward.ports,
                        },
                    }),
                    Target::Map(map) => self.maps.get(map).and_then(|map| shifted(map, forward)),
                };
                forward.destinations.extend(to.map(|to| DestinationStatus {
                    to,
                    taken: *count,
                    flows: None,
                }));
            }
            // A choice leads to the destinations' chains, never to another choice.
            Action::Choose { .. } => {}
        }
    }
}

/// Where a map from protocol and port to address and port sends a forward: to one address, and to
/// as many ports.
fn shifted(map: &Map, forward: &ForwardStatus) -> Option<Destination> {
    let target = |port: u16| {
        let [high, low] = port.to_be_bytes();
        let key: &[u8] = &[forward.protocol.number(), 0, 0, 0, high, low, 0, 0];
        let Data::Bytes(bytes) = map.get(key)? else {
            return None;
        };
        let (address, rest) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let port = rest.first_chunk().copied().map(u16::from_be_bytes)?;
        Some((sibling::address(address)?, port))
    };
    let (address, first) = target(forward.ports.first())?;
    let (_, last) = target(forward.ports.last())?;
    let ports = PortRange::try_from((first, last)).ok()?;
    Some(Destination { address, ports })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use proptest::prelude::*;

    fn forward(ports: &str) -> ForwardStatus {
        ForwardStatus {
            protocol: Protocol::Udp,
            family: Family::Ipv4,
            ports: ports.parse().unwrap(),
            denied: 0,
            destinations: Vec::new(),
        }
    }

    #[test]
    fn ports_of_a_map_become_a_range() {
        let element = |port: u8| {
            let key = vec![17, 0, 0, 0, 0, port, 0, 0];
            (key, Data::Bytes(vec![10, 2, 0, 11, 1, port, 0, 0]))
        };
        let map: Map = (1..=9).map(element).collect();
        let destination = shifted(&map, &forward("2-4")).unwrap();
        assert_eq!(destination.to_string(), "10.2.0.11:258-260");
        assert_eq!(shifted(&map, &forward("2-10")), None);
        assert_eq!(shifted(&Map::new(), &forward("2-4")), None);
    }

    #[test]
    fn a_choice_among_more_than_there_are_comes_to_an_end() {
        let choose = Action::Choose {
            map: "choices".into(),
            numbers: Some(0..u32::MAX),
        };
        let take = Action::Take {
            count: 7,
            target: Target::Address([10, 2, 0, 11].into(), None),
        };
        let chain = |number: u32| (number.to_ne_bytes().to_vec(), Data::Chain("one".into()));
        let reader = Reader {
            actions: [("all".into(), vec![choose]), ("one".into(), vec![take])].into(),
            maps: [("choices".into(), [chain(0), chain(1)].into())].into(),
        };
        let claim = Claim {
            family: Family::Ipv4,
            protocol: Protocol::Udp,
            ports: 53.into(),
        };
        assert_eq!(reader.forward(claim, "all").destinations.len(), 2);
    }

    proptest! {
        #[test]
        fn no_data_panics(data: Vec<u8>) {
            let map = Map::from([(vec![17, 0, 0, 0, 0, 1, 0, 0], Data::Bytes(data))]);
            shifted(&map, &forward("1"));
        }
    }
}
