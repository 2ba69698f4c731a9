//! The forwards in an instance's table, read back with what they have counted: single ports with one
//! destination are elements of maps, the others have chains (`chains`).

use super::chains::{self, Reader};
use super::rule::Action;
use super::{DestinationStatus, ForwardStatus};
use crate::config::{Destination, Family, PortRange, Protocol, Service};
use crate::netlink::{Failure, Socket, address};
use crate::nftables::list::{self, Data, Element, Table};
use crate::ruleset::{HEALTH, PREROUTING, ServiceMaps};
use crate::siblings;
use std::net::IpAddr;

/// How many actions of chains are gone through for a table: an instance has three for each destination of
/// its balanced forwards, of which the config allows 65,536.
const MAX_ACTIONS: usize = 1 << 18;

/// More rows than an instance has: it has one for each port of each protocol and family, and one for each
/// destination.
pub const MAX_ROWS: usize = 1 << 19;

/// How many ports there are, of all protocols: an instance has no more of them in one of its sets of single ports.
const MAX_PORTS: usize = Protocol::ALL.len() << 16;

/// The forwards in a table, in order of family, protocol and port. None if there is no such table, and no
/// value if there are more rows than `most`, as a part of them would look like all: then the socket must not be
/// used afterwards.
pub fn forwards(
    socket: &Socket,
    table: &Table,
    most: usize,
) -> Result<Option<Vec<ForwardStatus>>, Failure> {
    match read(socket, table, most) {
        Ok(forwards) => Ok(Some(forwards)),
        Err(Stop::TooMany) => Ok(None),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// Why forwards are not read to the end.
enum Stop {
    Failed(Failure),
    TooMany,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

fn read(socket: &Socket, table: &Table, most: usize) -> Result<Vec<ForwardStatus>, Stop> {
    let health = list::chain_use(socket, table, HEALTH)?.is_some();
    let mut reader = Reader::new(socket, table, health);
    let (mut forwards, mut dropped) = (Vec::new(), Vec::new());
    let mut left = MAX_ACTIONS;
    for family in Family::ALL {
        let services = |set: &str, most| services(socket, table, set, family, most);
        let maps = ServiceMaps::of(family);
        // Each has a destination.
        let room = most.saturating_sub(rows(&forwards)) / 2;
        forwards.extend(services(&maps.forwards, room)?.iter().map(single));
        let ports = services(&maps.port_map, MAX_PORTS)?;
        forwards.extend(joined(ports.iter().map(single).collect()));
        let mut count = rows(&forwards);
        for map in &maps.chains {
            for (service, element) in services(map, most.saturating_sub(count))? {
                let forward = reader.forward(service, element.data.as_ref(), &mut left)?;
                count += rows(forward.as_slice());
                if left == 0 || count > most {
                    return Err(Stop::TooMany);
                }
                forwards.extend(forward);
            }
        }
        if count > most {
            return Err(Stop::TooMany);
        }
        for set in &maps.dropped {
            for (service, element) in services(set, MAX_PORTS)? {
                let by_chain = reader.dropped(element.data.as_ref())?;
                dropped.push((service, element.packets.unwrap_or(0) + by_chain));
            }
        }
    }
    forwards.sort_by_key(|forward| forward.service);
    if health {
        mark_up(&mut forwards);
    }
    for (service, packets) in dropped {
        if let Some(forward) = containing(&mut forwards, service) {
            forward.dropped += packets;
        }
    }
    Ok(forwards)
}

/// The elements of a set or map, with the service that each stands for. There may be so many.
fn services(
    socket: &Socket,
    table: &Table,
    set: &str,
    family: Family,
    most: usize,
) -> Result<Vec<(Service, Element)>, Stop> {
    let elements = list::elements_up_to(socket, most, table, set)?.ok_or(Stop::TooMany)?;
    let service = |element: Element| Some((siblings::service(family, &element)?, element));
    Ok(elements.into_iter().filter_map(service).collect())
}

/// How many lines they take: one each, and one for each destination.
pub fn rows(forwards: &[ForwardStatus]) -> usize {
    let rows = forwards
        .iter()
        .map(|forward| 1 + forward.destinations.len());
    rows.sum()
}

/// Marks the destinations that are tried and do not fail (`config/health.rs` says which those are).
fn mark_up(forwards: &mut [ForwardStatus]) {
    let balanced = |forward: &&ForwardStatus| forward.destinations.len() > 1;
    let of_tcp = |forward: &&ForwardStatus| forward.service.protocol == Protocol::Tcp;
    let destinations = forwards.iter().filter(balanced).filter(of_tcp);
    let tried = destinations.flat_map(|forward| &forward.destinations);
    let mut tried: Vec<Destination> = tried.map(|it| it.to).collect();
    tried.sort();
    for forward in forwards.iter_mut().filter(|forward| balanced(&&**forward)) {
        let follows = forward.service.protocol != Protocol::Sctp;
        for destination in forward.destinations.iter_mut().filter(|_| follows) {
            let to = &destination.to;
            if to.ports.is_single() && tried.binary_search(to).is_ok() {
                destination.up.get_or_insert(true);
            }
        }
    }
}

/// The forward that has this service, of forwards in their order. It may have more ports: see [`joined`].
fn containing(forwards: &mut [ForwardStatus], service: Service) -> Option<&mut ForwardStatus> {
    let start = |service: Service| (service.family, service.protocol, service.ports.first());
    let after = forwards.partition_point(|forward| start(forward.service) <= start(service));
    let forward = forwards.get_mut(after.checked_sub(1)?)?;
    forward.service.overlaps(&service).then_some(forward)
}

/// Whether new connections are forwarded by this table. Not so while it drains, or if it is not there.
pub fn accepts_connections(socket: &Socket, table: &Table) -> Result<bool, Failure> {
    // The kernel dumps this one chain only.
    let actions = chains::actions(socket, table, PREROUTING)?;
    Ok(actions.contains(&Action::Jump))
}

/// The forward that an element of a map is; without a destination if the element has none.
fn single((service, element): &(Service, Element)) -> ForwardStatus {
    let mut forward = ForwardStatus::new(*service);
    let to = element.data.as_ref().and_then(address_and_port);
    forward.destinations.extend(to.map(|(address, ports)| {
        let to = Destination { address, ports };
        DestinationStatus::new(to, element.packets.unwrap_or(0))
    }));
    forward
}

/// The address and port in a map's value.
fn address_and_port(data: &Data) -> Option<(IpAddr, PortRange)> {
    let Data::Value(bytes) = data else {
        return None;
    };
    let (octets, port) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let port = u16::from_be_bytes(*port.first_chunk()?);
    Some((address(octets)?, PortRange::try_from((port, port)).ok()?))
}

/// Joins forwards of single ports that continue each other, also at their destination: a range that goes
/// to another range has an element for each port.
fn joined(mut ports: Vec<ForwardStatus>) -> Vec<ForwardStatus> {
    ports.sort_by_key(|forward| forward.service);
    let mut joined: Vec<ForwardStatus> = Vec::new();
    for forward in ports {
        let range = joined.last_mut();
        if !range.is_some_and(|range| range.join(&forward)) {
            joined.push(forward);
        }
    }
    joined
}

impl DestinationStatus {
    /// Without what the rules do not count.
    pub(super) fn new(to: Destination, connections: u64) -> Self {
        DestinationStatus {
            to,
            listed: true,
            connections,
            active: None,
            unanswered: None,
            up: None,
        }
    }
}

impl ForwardStatus {
    /// Without destinations.
    pub(super) fn new(service: Service) -> Self {
        ForwardStatus {
            service,
            dropped: 0,
            destinations: Vec::new(),
        }
    }

    /// Takes up the next port, if it continues this range.
    fn join(&mut self, next: &ForwardStatus) -> bool {
        let ([to], [next_to]) = (&mut self.destinations[..], &next.destinations[..]) else {
            return false;
        };
        let (service, next_service) = (&mut self.service, next.service);
        let kind = |service: &Service| (service.family, service.protocol);
        let continues = kind(service) == kind(&next_service) && to.to.address == next_to.to.address;
        let ports = service.ports.continued_by(next_service.ports);
        let Some((ports, to_ports)) = ports.zip(to.to.ports.continued_by(next_to.to.ports)) else {
            return false;
        };
        if continues {
            service.ports = ports;
            to.to.ports = to_ports;
            to.connections += next_to.connections;
        }
        continues
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::nftables::list::ElementKind;
    use proptest::prelude::*;

    fn element(port: u16, data: &[u8]) -> (Service, Element) {
        let service = Service {
            family: Family::Ipv4,
            protocol: Protocol::Udp,
            ports: port.into(),
        };
        let element = Element {
            kind: ElementKind::Key,
            key: Vec::new(),
            key_end: None,
            data: Some(Data::Value(data.to_vec())),
            packets: Some(1),
        };
        (service, element)
    }

    fn destinations(forward: &ForwardStatus) -> Vec<String> {
        let destinations = forward.destinations.iter();
        destinations.map(|to| to.to.to_string()).collect()
    }

    #[test]
    fn elements_read_back() {
        let to_port = single(&element(53, &[10, 2, 0, 11, 20, 233, 0, 0]));
        assert_eq!(destinations(&to_port), ["10.2.0.11:5353"]);
        assert_eq!(destinations(&single(&element(53, &[1, 2]))), [""; 0]);
    }

    #[test]
    fn ports_that_continue_each_other_become_a_range() {
        let ports = |ports: &[(u16, u8)]| {
            let single =
                |(port, to): &(u16, u8)| single(&element(*port, &[10, 2, 0, 11, 1, *to, 0, 0]));
            let forwards = joined(ports.iter().map(single).collect());
            let text = |forward: &ForwardStatus| {
                let DestinationStatus {
                    to, connections, ..
                } = &forward.destinations[0];
                format!("{} {to} {connections}", forward.service.ports)
            };
            forwards.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            ports(&[(4, 4), (2, 2), (3, 3), (6, 6), (7, 9)]),
            [
                "2-4 10.2.0.11:258-260 3",
                "6 10.2.0.11:262 1",
                "7 10.2.0.11:265 1"
            ]
        );
    }

    #[test]
    fn a_forward_is_found_by_each_service_in_it() {
        let service = |ports: &str| Service {
            family: Family::Ipv4,
            protocol: Protocol::Udp,
            ports: ports.parse().unwrap(),
        };
        let mut forwards = ["53", "80-83", "90"].map(|ports| ForwardStatus::new(service(ports)));
        let mut found = |ports| {
            containing(&mut forwards, service(ports))
                .map(|forward| forward.service.ports.to_string())
        };
        assert_eq!(found("53").as_deref(), Some("53"));
        assert_eq!(found("80-81").as_deref(), Some("80-83"));
        assert_eq!(found("82-83").as_deref(), Some("80-83"));
        assert_eq!(found("84"), None);
        assert_eq!(found("1"), None);
    }

    proptest! {
        #[test]
        fn no_data_panics(data: Vec<u8>) {
            joined(vec![single(&element(1, &data)), single(&element(2, &data))]);
        }
    }
}
