//! How sets and maps are made and found: what the modules of the options have in common.

use super::{Element, Field, FieldType, Ruleset, Set, set_name};
use crate::config::{Family, PortRange, Protocol, Service};
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
    let services = services.map(|(address, protocol, ports)| (Some(address), protocol, ports));
    of_ports(names, family, &key, services.collect())
}

/// The same for services of any address.
pub fn of_services(
    names: (&str, &str),
    family: Family,
    services: impl Iterator<Item = Service>,
) -> [Set; 2] {
    let services = services.map(|service| (None, service.protocol, service.ports));
    of_ports(names, family, &SERVICE_KEY, services.collect())
}

/// A set of the single ports and one of the ranges that the ports make.
fn of_ports(
    names: (&str, &str),
    family: Family,
    key: &[FieldType],
    mut listed: Vec<(Option<IpAddr>, Protocol, PortRange)>,
) -> [Set; 2] {
    listed.sort();
    listed.dedup_by(|next, before| {
        (next.0, next.1) == (before.0, before.1) && before.2.takes_in(next.2)
    });
    [(names.0, false), (names.1, true)].map(|(name, interval)| {
        let listed = listed.iter();
        let wanted = listed.filter(|(_, _, ports)| ports.is_single() != interval);
        let mut set = empty(name, family, key.to_vec());
        set.interval = interval;
        set.elements = keys(wanted.map(|(address, protocol, ports)| {
            let service = [Field::Ports(*ports), Field::Protocol(*protocol)];
            let address = address.map(Field::Address);
            service.into_iter().chain(address).collect()
        }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::MASQUERADE;

    #[test]
    fn adjacent_ports_of_one_address_become_a_range() {
        let at = |last, ports: &str| {
            let address = IpAddr::from([10, 0, 0, last]);
            (address, Protocol::Tcp, ports.parse().unwrap())
        };
        let listed = [at(2, "83"), at(1, "82"), at(1, "80-81"), at(1, "90")];
        let sets = of_addresses_and_services(MASQUERADE, Family::Ipv4, listed.into_iter());
        let shown = sets.map(|set| {
            let elements = set.elements.iter().map(ToString::to_string);
            elements.collect::<Vec<_>>().join(", ")
        });
        let single = "90 . tcp . 10.0.0.1, 83 . tcp . 10.0.0.2";
        assert_eq!(shown, [single, "80-82 . tcp . 10.0.0.1"]);
    }
}
