//! Config → the sets and maps of a ruleset.

use super::{
    ALLOWED, Element, Field, FieldType, LISTEN, MASQUERADE, NO_HAIRPIN, SERVICES, Set, Value,
    ValueType, chain_name, set_name,
};
use crate::config::{Allowed, Config, Destination, Family, Forward, Listen, PortRange, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The sets of a family.
pub fn of_family(config: &Config, family: Family) -> Vec<Set> {
    let of_family = |forward: &&Forward| forward.service.family == family;
    let forwards: Vec<&Forward> = config.forwards.iter().filter(of_family).collect();
    let mut sets = vec![allowed(config, family), listen(config, family)];
    sets.extend(services(family, &forwards));
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
    let keys = ranges.iter().map(|range| vec![Field::Network(*range)]);
    let key = vec![FieldType::address(family)];
    set(set_name(ALLOWED, family), key, true, keys)
}

fn listen(config: &Config, family: Family) -> Set {
    let addresses = match &config.listen {
        Listen::Addresses(addresses) => addresses.as_slice(),
        Listen::Local | Listen::Any => &[],
    };
    let of_family = addresses.iter().filter(|ip| Family::of(**ip) == family);
    let keys = of_family.map(|address| vec![Field::Address(*address)]);
    let key = vec![FieldType::address(family)];
    set(set_name(LISTEN, family), key, false, keys)
}

/// The maps that lead a packet to the chain of its forward.
fn services(family: Family, forwards: &[&Forward]) -> [Set; 2] {
    let (single, ranges): (Vec<&Forward>, Vec<&Forward>) = forwards
        .iter()
        .partition(|forward| forward.service.ports.is_single());
    [(SERVICES.0, single), (SERVICES.1, ranges)].map(|(name, forwards)| Set {
        name: set_name(name, family),
        key: vec![FieldType::InetProto, FieldType::InetService],
        interval: name == SERVICES.1,
        values: Some(ValueType::Verdict),
        elements: forwards
            .into_iter()
            .map(|forward| Element {
                key: vec![
                    Field::Protocol(forward.service.protocol),
                    Field::Ports(forward.service.ports),
                ],
                value: Some(Value::Goto(chain_name(forward))),
            })
            .collect(),
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

/// A set for single ports and one for ranges.
fn of_addresses_and_services(
    names: (&str, &str),
    family: Family,
    keys: impl Iterator<Item = (IpAddr, Protocol, PortRange)>,
) -> [Set; 2] {
    let mut ports: BTreeMap<(IpAddr, Protocol), Vec<PortRange>> = BTreeMap::new();
    for (address, protocol, range) in keys {
        ports.entry((address, protocol)).or_default().push(range);
    }
    let merged = ports.into_iter().flat_map(|((address, protocol), ports)| {
        let merged = PortRange::merge(ports).into_iter();
        merged.map(move |ports| (address, protocol, ports))
    });
    let (single, ranges): (Vec<_>, Vec<_>) = merged.partition(|(.., ports)| ports.is_single());
    [(names.0, single), (names.1, ranges)].map(|(name, keys)| {
        let key = vec![
            FieldType::address(family),
            FieldType::InetProto,
            FieldType::InetService,
        ];
        let keys = keys.into_iter().map(|(address, protocol, ports)| {
            vec![
                Field::Address(address),
                Field::Protocol(protocol),
                Field::Ports(ports),
            ]
        });
        set(set_name(name, family), key, name == names.1, keys)
    })
}

fn set(
    name: String,
    key: Vec<FieldType>,
    interval: bool,
    keys: impl Iterator<Item = Vec<Field>>,
) -> Set {
    Set {
        name,
        key,
        interval,
        values: None,
        elements: keys.map(|key| Element { key, value: None }).collect(),
    }
}
