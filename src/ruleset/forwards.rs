//! `NODEFWD_FORWARDS` and the classic variables: maps from services to where their connections go.

use super::sets::{SERVICE_KEY, empty, service_key};
use super::{
    CHAINS, Dnat, Element, FORWARDS, PORT_MAP, Rule, Ruleset, Set, Statement, Value, ValueType,
    chain_name,
};
use crate::config::{Destination, Family, Forward, Service};

/// A single port with one destination is an element, which counts its connections; every other forward
/// leads to its chain, but for a range that goes to another range, which is an element for each port.
pub fn maps(family: Family, forwards: &[&Forward]) -> [Set; 4] {
    let map = |name, values, interval| {
        let mut map = empty(name, family, SERVICE_KEY.to_vec());
        map.values = Some(values);
        map.interval = interval;
        map.counter = values != ValueType::Verdict;
        map
    };
    let mut single = map(FORWARDS, ValueType::Backend(family), false);
    let mut port_map = map(PORT_MAP, ValueType::Backend(family), false);
    let mut chains = map(CHAINS.0, ValueType::Verdict, false);
    let mut ranges = map(CHAINS.1, ValueType::Verdict, true);
    for forward in forwards {
        let service = forward.service;
        if has_chain(forward) {
            let ports = service.ports;
            let map = if ports.is_single() {
                &mut chains
            } else {
                &mut ranges
            };
            map.elements.push(Element {
                key: service_key(service),
                value: Some(Value::Goto(chain_name(service))),
            });
        } else {
            let ports = service.ports;
            let map = if ports.is_single() {
                &mut single
            } else {
                &mut port_map
            };
            let destinations = forward.destinations.iter();
            map.elements
                .extend(destinations.flat_map(|to| mapped_ports(service, to)));
        }
    }
    [single, port_map, chains, ranges]
}

/// Whether a forward has a chain of its own.
pub fn has_chain(forward: &Forward) -> bool {
    match &forward.destinations[..] {
        [to] => !forward.service.ports.is_single() && !forward.maps_ports(to),
        _ => true,
    }
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
/// map of ranges.
pub fn rules(ruleset: &Ruleset, family: Family) -> Vec<Rule> {
    let maps = [FORWARDS, PORT_MAP].into_iter();
    let dnat = maps.filter_map(|name| {
        let map = ruleset.set(name, family)?.name.clone();
        Some(vec![Statement::Dnat(Dnat::Map(family, map))])
    });
    let vmap = |name| vec![Statement::ServiceVmap(name)];
    let chains = ruleset.existing(CHAINS, family).map(vmap);
    dnat.chain(chains).collect()
}
