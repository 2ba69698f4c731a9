//! The interface that clients come in on.

use super::{Arrival, Interface, Route, Routes, RtnetlinkError};
use crate::config::{Allowed, Family};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Documentation addresses, to which only a default route leads (RFC 5737, RFC 3849).
const UNKNOWN_CLIENTS: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
);

/// How many ranges of sources are looked up.
pub(super) const MAX_RANGES: usize = 16;
/// How many clients of a range are tried.
const MAX_CLIENTS: usize = 8;

/// The interface that all clients of a family come in on, and one of them.
#[derive(Debug, Clone)]
pub struct Ingress {
    pub client: IpAddr,
    pub interface: Interface,
    /// Whether packets that come in there are forwarded.
    pub forwards: bool,
}

impl Ingress {
    /// Asks the kernel where it would send replies to clients of these sources. `None` if clients come in on several interfaces, or
    /// if that is not known.
    pub fn find(
        routes: &Routes,
        allowed: &Allowed,
        family: Family,
    ) -> Result<Option<Self>, RtnetlinkError> {
        let unknown = [IpNet::from(unknown_client(family))];
        let sources = match allowed {
            Allowed::Ranges(ranges) => ranges,
            Allowed::All | Allowed::None => &unknown[..],
        };
        let mut found: Option<Ingress> = None;
        for range in sources.iter().take(MAX_RANGES) {
            match (Self::of_range(routes, *range)?, &found) {
                (Some(ingress), None) => found = Some(ingress),
                (Some(ingress), Some(found)) if ingress.interface == found.interface => {}
                _ => return Ok(None),
            }
        }
        Ok(found)
    }

    /// Where the first client of a range comes in that is not this host itself.
    pub(super) fn of_range(routes: &Routes, range: IpNet) -> Result<Option<Self>, RtnetlinkError> {
        for client in range.hosts().take(MAX_CLIENTS) {
            if let Some(Route::Through(index)) = routes.find(client, None, None)? {
                let interface = routes.interface(index)?;
                return Ok(interface.map(|interface| Ingress::new(client, interface)));
            }
        }
        Ok(None)
    }

    /// This client, which comes in on this interface.
    pub fn new(client: IpAddr, interface: Interface) -> Self {
        Ingress {
            client,
            forwards: forwards_from(Family::of(client), &interface),
            interface,
        }
    }

    /// A client's packet, as it comes in.
    pub fn arrival(&self) -> Arrival {
        Arrival {
            from: self.client,
            interface: self.interface.index,
        }
    }
}

/// A client of a network that only a default route leads to.
pub fn unknown_client(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => UNKNOWN_CLIENTS.0.into(),
        Family::Ipv6 => UNKNOWN_CLIENTS.1.into(),
    }
}

/// Whether packets that come in on an interface are forwarded. IPv6 has one switch for all interfaces.
pub fn forwards_from(family: Family, interface: &Interface) -> bool {
    family == Family::Ipv6 || interface.forwards_ipv4
}
