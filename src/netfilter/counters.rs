//! What the rules of an instance have done: read back with their counters, from whoever's table.

use super::message::{Message, Request};
use super::rule::{self, Action, Target};
use super::sibling;
use super::socket::{Failure, Socket};
use super::table::{self, Data, Element};
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
    let reader = Reader {
        socket,
        table,
        actions: actions(socket, &of_table(table), table)?,
    };
    let mut forwards = Vec::new();
    for family in Family::ALL {
        for map in claiming_set_names(family) {
            for element in table::elements(socket, table, &map)? {
                let claim = sibling::service(family, &element);
                if let (Some(claim), Some(Data::Chain(chain))) = (claim, element.data) {
                    forwards.push(reader.forward(claim, &chain)?);
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
    Ok(rules.any(|action| matches!(action, Action::Choose(_))))
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

fn chain_and_action<'a>(message: &Message<'a>, table: &str) -> Option<(&'a str, Action)> {
    let attributes = message.attributes();
    if attributes.text(TABLE)? != table {
        return None;
    }
    let action = rule::action(attributes.nested(EXPRESSIONS))?;
    Some((attributes.text(CHAIN)?, action))
}

struct Reader<'a> {
    socket: &'a Socket,
    table: &'a str,
    actions: Actions,
}

impl Reader<'_> {
    fn forward(&self, claim: Claim, chain: &str) -> Result<ForwardStatus, Failure> {
        let mut forward = ForwardStatus {
            protocol: claim.protocol,
            family: claim.family,
            ports: claim.ports,
            denied: 0,
            destinations: Vec::new(),
        };
        for action in self.chain(chain) {
            match action {
                Action::Choose(map) => {
                    for chain in self.choices(map)? {
                        for action in self.chain(&chain) {
                            self.count(&mut forward, action)?;
                        }
                    }
                }
                action => self.count(&mut forward, action)?,
            }
        }
        Ok(forward)
    }

    fn chain(&self, name: &str) -> &[Action] {
        self.actions.get(name).map_or(&[], Vec::as_slice)
    }

    /// The chains in a map from numbers to chains, in order of the numbers.
    fn choices(&self, map: &str) -> Result<Vec<String>, Failure> {
        let mut elements = table::elements(self.socket, self.table, map)?;
        elements.sort_by_key(number);
        let chain = |element: Element| match element.data {
            Some(Data::Chain(chain)) => Some(chain),
            _ => None,
        };
        Ok(elements.into_iter().filter_map(chain).collect())
    }

    fn count(&self, forward: &mut ForwardStatus, action: &Action) -> Result<(), Failure> {
        match action {
            Action::Deny { count } => forward.denied += count,
            Action::Take { count, target } => {
                if let Some(to) = self.destination(forward.ports, target)? {
                    forward.destinations.push(DestinationStatus {
                        to,
                        taken: *count,
                        flows: None,
                    });
                }
            }
            // A choice leads to the destinations' chains, never to another choice.
            Action::Choose(_) => {}
        }
        Ok(())
    }

    fn destination(
        &self,
        forwarded: PortRange,
        target: &Target,
    ) -> Result<Option<Destination>, Failure> {
        Ok(match target {
            Target::Address(address, port) => Some(Destination {
                address: *address,
                ports: match port {
                    Some(port) => PortRange::try_from((*port, *port)).unwrap_or(forwarded),
                    None => forwarded,
                },
            }),
            Target::Map(map) => {
                let elements = table::elements(self.socket, self.table, map)?;
                destination_in_map(&elements)
            }
        })
    }
}

/// A number is in host byte order.
fn number(element: &Element) -> Option<u32> {
    element.first.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Where a map from ports to addresses and ports leads: one address, and all ports of it.
fn destination_in_map(elements: &[Element]) -> Option<Destination> {
    let targets = elements.iter().filter_map(|element| match &element.data {
        Some(Data::Bytes(bytes)) => {
            let (address, rest) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
            let port = rest.first_chunk().copied().map(u16::from_be_bytes)?;
            Some((sibling::address(address)?, port))
        }
        _ => None,
    });
    let (address, first) = targets.clone().min()?;
    let (_, last) = targets.max()?;
    let ports = PortRange::try_from((first, last)).ok()?;
    Some(Destination { address, ports })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(key: u16, data: Vec<u8>) -> Element {
        Element {
            first: key.to_be_bytes().to_vec(),
            last: key.to_be_bytes().to_vec(),
            data: Some(Data::Bytes(data)),
        }
    }

    #[test]
    fn ports_of_a_map_become_a_range() {
        let target = |port: u16| [&[10, 2, 0, 11][..], &port.to_be_bytes(), &[0, 0]].concat();
        let elements: Vec<Element> = (1..=3)
            .rev()
            .map(|port| element(port, target(9000 + port)))
            .collect();
        let destination = destination_in_map(&elements).unwrap();
        assert_eq!(destination.to_string(), "10.2.0.11:9001-9003");
        assert_eq!(destination_in_map(&[]), None);
    }

    proptest! {
        #[test]
        fn no_data_panics(key: u16, data: Vec<u8>) {
            destination_in_map(&[element(key, data)]);
        }
    }
}
