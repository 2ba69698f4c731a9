//! What a forward, an instance or a conntrack entry is compared by: family, protocol and ports.

use super::{Family, PortRange, Protocol};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Ports of one protocol and family. In order of these three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Service {
    pub family: Family,
    pub protocol: Protocol,
    pub ports: PortRange,
}

impl Service {
    /// Whether a packet can belong to both.
    pub fn overlaps(&self, other: &Service) -> bool {
        (self.family, self.protocol) == (other.family, other.protocol)
            && self.ports.overlaps(other.ports)
    }

    /// Whether this port of this protocol and family belongs to it.
    pub fn contains(&self, family: Family, protocol: Protocol, port: u16) -> bool {
        (self.family, self.protocol) == (family, protocol) && self.ports.contains(port)
    }

    /// Where in a list, sorted by service and without overlaps, the service is that holds this port.
    pub fn position<T>(
        list: &[T],
        service: impl Fn(&T) -> Service,
        (family, protocol, port): (Family, Protocol, u16),
    ) -> Option<usize> {
        let index = list.partition_point(|entry| {
            let Service {
                family: of_family,
                protocol: of_protocol,
                ports,
            } = service(entry);
            (of_family, of_protocol, ports.last()) < (family, protocol, port)
        });
        let found = service(list.get(index)?).contains(family, protocol, port);
        found.then_some(index)
    }

    /// `tcp/80`
    pub fn without_family(&self) -> String {
        format!("{}/{}", self.protocol, self.ports)
    }
}

impl fmt::Display for Service {
    /// `tcp/80 over IPv4`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} over {}", self.protocol, self.ports, self.family)
    }
}

/// Services in which many others are looked up.
#[derive(Debug, Default)]
pub struct ServiceSet(BTreeMap<(Family, Protocol), Vec<PortRange>>);

impl FromIterator<Service> for ServiceSet {
    /// They may overlap.
    fn from_iter<I: IntoIterator<Item = Service>>(services: I) -> Self {
        let mut set = ServiceSet::default();
        for service in services {
            let kind = (service.family, service.protocol);
            set.0.entry(kind).or_default().push(service.ports);
        }
        for ranges in set.0.values_mut() {
            *ranges = PortRange::merge(std::mem::take(ranges));
        }
        set
    }
}

impl ServiceSet {
    /// Whether this port of this protocol and family belongs to one of them.
    pub fn contains(&self, family: Family, protocol: Protocol, port: u16) -> bool {
        let ports = PortRange::try_from((port, port));
        ports.is_ok_and(|ports| {
            self.overlaps(&Service {
                family,
                protocol,
                ports,
            })
        })
    }

    /// Whether a packet can belong to this service and to one of the set.
    pub fn overlaps(&self, service: &Service) -> bool {
        let kind = (service.family, service.protocol);
        self.0.get(&kind).is_some_and(|ranges| {
            let ports = service.ports;
            let index = ranges.partition_point(|range| range.last() < ports.first());
            ranges.get(index).is_some_and(|range| range.overlaps(ports))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_service() -> impl Strategy<Value = Service> {
        let kind = (0..2usize, 0..3usize);
        (kind, 1..50u16, 0..5u16).prop_map(|((family, protocol), first, more)| Service {
            family: Family::ALL[family],
            protocol: Protocol::ALL[protocol],
            ports: (first, first + more).try_into().unwrap(),
        })
    }

    proptest! {
        #[test]
        fn a_set_overlaps_what_one_of_its_services_overlaps(
            services in vec(any_service(), 0..20),
            others in vec(any_service(), 0..50),
        ) {
            let set: ServiceSet = services.iter().copied().collect();
            for other in others {
                let overlaps = services.iter().any(|service| service.overlaps(&other));
                prop_assert_eq!(set.overlaps(&other), overlaps);
            }
        }
    }
}
