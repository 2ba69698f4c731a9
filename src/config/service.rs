//! What a forward, an instance or a conntrack entry is compared by: family, protocol and ports.

use super::{Family, PortRange, Protocol};
use serde::Serialize;
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
