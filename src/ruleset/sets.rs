//! How sets and maps are made and found: what the modules of the options have in common.

use super::{Element, Field, FieldType, Ruleset, Set, set_name};
use crate::config::{Family, PortRange, Protocol, Service};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Ruleset {
    /// The set or map of this name, if the ruleset has it.
    pub(super) fn set(&self, name: &str, family: Family) -> Option<&Set> {
        let name = set_name(name, family);
        self.sets.iter().find(|set| set.name == name)
    }

    /// The names of those sets that the ruleset has.
    pub(super) fn existing(
        &self,
        names: (&str, &str),
        family: Family,
    ) -> impl Iterator<Item = String> {
        let sets = [names.0, names.1].map(|name| self.set(name, family).map(|set| &set.name));
        let names: Vec<String> = sets.into_iter().flatten().cloned().collect();
        names.into_iter()
    }
}

/// A set for single ports and one for ranges. Adjacent ports become a range: fewer elements.
pub fn of_addresses_and_services(
    names: (&str, &str),
    family: Family,
    services: impl Iterator<Item = (IpAddr, Protocol, PortRange)>,
) -> [Set; 2] {
    let key = [&SERVICE_KEY[..], &[FieldType::address(family)]].concat();
    let services = services.map(|(address, protocol, ports)| ((address, protocol), ports));
    of_ports(
        names,
        family,
        &key,
        services,
        |(address, protocol), ports| {
            vec![
                Field::Ports(ports),
                Field::Protocol(protocol),
                Field::Address(address),
            ]
        },
    )
}

/// The same for services of any address.
pub fn of_services(
    names: (&str, &str),
    family: Family,
    services: impl Iterator<Item = Service>,
) -> [Set; 2] {
    let services = services.map(|service| (service.protocol, service.ports));
    of_ports(names, family, &SERVICE_KEY, services, |protocol, ports| {
        vec![Field::Ports(ports), Field::Protocol(protocol)]
    })
}

/// A set of the single ports and one of the ranges that the ports make; `fields` gives the key of ports and
/// of what they were listed with.
fn of_ports<T: Ord + Copy>(
    names: (&str, &str),
    family: Family,
    key: &[FieldType],
    listed: impl Iterator<Item = (T, PortRange)>,
    fields: impl Fn(T, PortRange) -> Vec<Field>,
) -> [Set; 2] {
    let mut ports: BTreeMap<T, Vec<PortRange>> = BTreeMap::new();
    for (with, range) in listed {
        ports.entry(with).or_default().push(range);
    }
    let merged = ports.into_iter().flat_map(|(with, ports)| {
        let merged = PortRange::merge(ports).into_iter();
        merged.map(move |ports| (with, ports))
    });
    let (single, ranges): (Vec<_>, Vec<_>) = merged.partition(|(_, ports)| ports.is_single());
    [(names.0, single), (names.1, ranges)].map(|(name, listed)| {
        let mut set = empty(name, family, key.to_vec());
        set.interval = name == names.1;
        set.elements = keys(listed.into_iter().map(|(with, ports)| fields(with, ports)));
        set
    })
}

/// The type of a key of port and protocol. The port, in which elements differ most, comes first: for
/// a field that many elements have in common, a look-up and an insertion go through all of them
/// (pipapo_refill in net/netfilter/nft_set_pipapo.c).
pub const SERVICE_KEY: [FieldType; 2] = [FieldType::InetService, FieldType::InetProto];

/// The key of a service in such a set or map.
pub fn service_key(service: Service) -> Vec<Field> {
    vec![
        Field::Ports(service.ports),
        Field::Protocol(service.protocol),
    ]
}

/// A set of single values without elements.
pub fn empty(name: &str, family: Family, key: Vec<FieldType>) -> Set {
    Set {
        name: set_name(name, family),
        key,
        interval: false,
        values: None,
        counter: false,
        elements: Vec::new(),
    }
}

/// Elements of a set, which have no value.
pub fn keys(keys: impl Iterator<Item = Vec<Field>>) -> Vec<Element> {
    keys.map(|key| Element { key, value: None }).collect()
}
