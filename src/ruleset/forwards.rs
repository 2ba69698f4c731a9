//! `NODEFWD_FORWARDS` and the classic variables: maps from services to where their connections go.

use super::sets::{SERVICE_KEY, empty, service_key};
use super::{
    BALANCED, Dnat, Element, FORWARDS, Field, MapTo, PORT_MAP, RANGES, RANGES_TO_PORT, Rule,
    Ruleset, Set, Statement, Value, ValueType, chain_name,
};
use crate::config::{Destination, Family, Forward, Protocol, Service};

/// A forward with one destination is an element, which counts
/// its connections; a balanced one leads to its chain.
pub fn maps(family: Family, forwards: &[&Forward]) -> [Set; 6] {
    let map = |name, values, interval| {
        let mut map = empty(name, family, SERVICE_KEY.to_vec());
        map.values = Some(values);
        map.interval = interval;
        map.counter = values != ValueType::Verdict;
        map
    };
    let mut single = map(FORWARDS, ValueType::Backend(family), false);
    let mut port_map = map(PORT_MAP, ValueType::Backend(family), false);
    let mut ranges_to_port = map(RANGES_TO_PORT, ValueType::Backend(family), true);
    let mut ranges = map(RANGES, ValueType::Address(family), true);
    let mut balanced = map(BALANCED.0, ValueType::Verdict, false);
    let mut balanced_ranges = map(BALANCED.1, ValueType::Verdict, true);
    for forward in forwards {
        let service = forward.service;
        let backend = |to: &Destination| Value::Backend(to.address, to.ports.first());
        let (map, value) = match (&forward.destinations[..], service.ports.is_single()) {
            ([to], true) => (&mut single, backend(to)),
            ([to], false) if forward.maps_ports(to) => {
                port_map.elements.extend(mapped_ports(service, to));
                continue;
            }
            ([to], false) if to.ports.is_single() => (&mut ranges_to_port, backend(to)),
            ([to], false) => (&mut ranges, Value::Address(to.address)),
            (_, true) => (&mut balanced, Value::Goto(chain_name(forward))),
            (_, false) => (&mut balanced_ranges, Value::Goto(chain_name(forward))),
        };
        map.elements.push(Element {
            key: service_key(service),
            value: Some(value),
        });
    }
    [
        single,
        port_map,
        ranges_to_port,
        ranges,
        balanced,
        balanced_ranges,
    ]
}

/// For each port of a range, the destination with its other port.
pub fn mapped_ports(service: Service, to: &Destination) -> impl Iterator<Item = Element> {
    let Destination { address, ports } = *to;
    let pairs = service.ports.singles().zip(ports.first()..=u16::MAX);
    pairs.map(move |(from, port)| Element {
        key: service_key(Service {
            ports: from,
            ..service
        }),
        value: Some(Value::Backend(address, port)),
    })
}

/// The rules that look up where a connection goes. The hash tables come first: they cost less than the
/// maps of ranges.
pub fn rules(ruleset: &Ruleset, family: Family) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (name, to) in [
        (FORWARDS, MapTo::AddressAndPort),
        (PORT_MAP, MapTo::AddressAndPort),
        (RANGES_TO_PORT, MapTo::AddressAndPort),
        (RANGES, MapTo::Address),
    ] {
        if let Some(map) = ruleset.set(name, family) {
            let dnat = Statement::Dnat(Dnat::Map(family, map.name.clone(), to));
            if name == RANGES_TO_PORT {
                // nft takes a port from a map of ranges only after a match of the protocol.
                let protocols = protocols(map).map(Statement::Protocol);
                rules.extend(protocols.map(|protocol| vec![protocol, dnat.clone()]));
            } else {
                rules.push(vec![dnat]);
            }
        }
    }
    rules
}

/// The protocols among a map's keys.
fn protocols(map: &Set) -> impl Iterator<Item = Protocol> {
    let has = |protocol: &Protocol| {
        let key = Field::Protocol(*protocol);
        map.elements
            .iter()
            .any(|element| element.key.contains(&key))
    };
    Protocol::ALL.into_iter().filter(has)
}
