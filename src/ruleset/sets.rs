//! Config → the sets and maps of a ruleset.

use super::{
    ALLOWED, BALANCED, Element, FORWARDS, Field, FieldType, LISTEN, MASQUERADE, NO_HAIRPIN,
    PORT_MAP, RANGES, RANGES_TO_PORT, SERVICES, Set, Value, ValueType, chain_name, set_name,
};
use crate::config::{
    Allowed, Config, Destination, Family, Forward, Listen, PortRange, Protocol, Service,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The sets of a family.
pub fn of_family(config: &Config, family: Family) -> Vec<Set> {
    let of_family = |forward: &&Forward| forward.service.family == family;
    let forwards: Vec<&Forward> = config.forwards.iter().filter(of_family).collect();
    let mut sets = vec![allowed(config, family), listen(config, family)];
    sets.extend(forward_maps(family, &forwards));
    if *config.sources.of(family) != Allowed::All {
        sets.extend(services(family, &forwards));
    }
    if !config.hairpin && *config.sources.of(family) != Allowed::None {
        sets.extend(no_hairpin(family, &forwards));
    }
    if config.masquerade {
        sets.extend(masquerade(family, &forwards));
    }
    // A set without elements would cost a look-up and match nothing.
    sets.retain(|set| !set.elements.is_empty());
    sets
}

fn allowed(config: &Config, family: Family) -> Set {
    let ranges = match config.sources.of(family) {
        Allowed::Ranges(ranges) => ranges.as_slice(),
        Allowed::All | Allowed::None => &[],
    };
    let mut set = empty(ALLOWED, family, vec![FieldType::address(family)]);
    set.interval = true;
    set.elements = keys(ranges.iter().map(|range| vec![Field::Network(*range)]));
    set
}

fn listen(config: &Config, family: Family) -> Set {
    let addresses = match &config.listen {
        Listen::Addresses(addresses) => addresses.as_slice(),
        Listen::Local | Listen::Any => &[],
    };
    let of_family = addresses.iter().filter(|ip| Family::of(**ip) == family);
    let mut set = empty(LISTEN, family, vec![FieldType::address(family)]);
    set.elements = keys(of_family.map(|address| vec![Field::Address(*address)]));
    set
}

/// The maps from services to where they go: a forward with one destination is an element, which counts
/// its connections; a balanced one leads to its chain.
fn forward_maps(family: Family, forwards: &[&Forward]) -> [Set; 6] {
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
    let pairs = service.ports.singles().zip(ports.first()..);
    pairs.map(move |(from, port)| Element {
        key: vec![Field::Protocol(service.protocol), Field::Ports(from)],
        value: Some(Value::Backend(address, port)),
    })
}

/// The services, whose elements count packets of sources that may not connect.
fn services(family: Family, forwards: &[&Forward]) -> [Set; 2] {
    let (single, ranges): (Vec<&Forward>, Vec<&Forward>) = forwards
        .iter()
        .partition(|forward| forward.service.ports.is_single());
    [(SERVICES.0, single), (SERVICES.1, ranges)].map(|(name, forwards)| {
        let mut set = empty(name, family, SERVICE_KEY.to_vec());
        set.interval = name == SERVICES.1;
        set.counter = true;
        set.elements = keys(forwards.iter().map(|forward| service_key(forward.service)));
        set
    })
}

/// The destinations with the services that would send them back to themselves.
fn no_hairpin(family: Family, forwards: &[&Forward]) -> [Set; 2] {
    let keys = forwards.iter().flat_map(|forward| {
        let key = |to: &Destination| (to.address, forward.service.protocol, forward.service.ports);
        forward.destinations.iter().map(key)
    });
    of_addresses_and_services(NO_HAIRPIN, family, keys)
}

/// Every address, protocol and port that a forward sends connections to: only these are masqueraded.
fn masquerade(family: Family, forwards: &[&Forward]) -> [Set; 2] {
    let keys = forwards.iter().flat_map(|forward| {
        let key = |to: &Destination| (to.address, forward.service.protocol, to.ports);
        forward.destinations.iter().map(key)
    });
    of_addresses_and_services(MASQUERADE, family, keys)
}

/// A set for single ports and one for ranges. Adjacent ports become a range: fewer elements.
fn of_addresses_and_services(
    names: (&str, &str),
    family: Family,
    services: impl Iterator<Item = (IpAddr, Protocol, PortRange)>,
) -> [Set; 2] {
    let mut ports: BTreeMap<(IpAddr, Protocol), Vec<PortRange>> = BTreeMap::new();
    for (address, protocol, range) in services {
        ports.entry((address, protocol)).or_default().push(range);
    }
    let merged = ports.into_iter().flat_map(|((address, protocol), ports)| {
        let merged = PortRange::merge(ports).into_iter();
        merged.map(move |ports| (address, protocol, ports))
    });
    let (single, ranges): (Vec<_>, Vec<_>) = merged.partition(|(.., ports)| ports.is_single());
    [(names.0, single), (names.1, ranges)].map(|(name, services)| {
        let address = FieldType::address(family);
        let key = vec![address, FieldType::InetProto, FieldType::InetService];
        let mut set = empty(name, family, key);
        set.interval = name == names.1;
        set.elements = keys(services.into_iter().map(|(address, protocol, ports)| {
            vec![
                Field::Address(address),
                Field::Protocol(protocol),
                Field::Ports(ports),
            ]
        }));
        set
    })
}

/// The type of a key of protocol and port.
const SERVICE_KEY: [FieldType; 2] = [FieldType::InetProto, FieldType::InetService];

fn service_key(service: Service) -> Vec<Field> {
    vec![
        Field::Protocol(service.protocol),
        Field::Ports(service.ports),
    ]
}

fn empty(name: &str, family: Family, key: Vec<FieldType>) -> Set {
    Set {
        name: set_name(name, family),
        key,
        interval: false,
        values: None,
        counter: false,
        elements: Vec::new(),
    }
}

fn keys(keys: impl Iterator<Item = Vec<Field>>) -> Vec<Element> {
    keys.map(|key| Element { key, value: None }).collect()
}
