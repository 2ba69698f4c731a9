//! Where clients come in.

use crate::config::{Allowed, Config, Family};
use crate::netfilter::{Arrival, Interface, NetfilterError, Route, Routes};
use ipnet::IpNet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of nobody's, which only a default route leads to (RFC 5737, RFC 3849).
const STRANGERS: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
);

/// How many ranges of sources are asked about.
const RANGES: usize = 16;
/// How many clients of a range are tried.
const CLIENTS: usize = 8;

/// The interface that all clients of a family come in on, and one of them.
pub struct Entrance {
    /// A client.
    pub client: IpAddr,
    /// The interface.
    pub interface: Interface,
    /// Whether what comes in there is forwarded.
    pub open: bool,
}

impl Entrance {
    /// Asks the kernel where it would send answers. Nothing if clients come in at several
    /// interfaces, or if that cannot be told.
    pub fn find(
        routes: &Routes,
        config: &Config,
        family: Family,
    ) -> Result<Option<Self>, NetfilterError> {
        let stranger = match family {
            Family::Ipv4 => IpAddr::from(STRANGERS.0),
            Family::Ipv6 => IpAddr::from(STRANGERS.1),
        };
        let stranger = [IpNet::from(stranger)];
        let sources = match config.sources.of(family) {
            Allowed::Ranges(ranges) => ranges,
            Allowed::Everyone | Allowed::Nobody => &stranger[..],
        };
        let mut found: Option<Entrance> = None;
        for range in sources.iter().take(RANGES) {
            match (Self::of_range(routes, *range)?, &found) {
                (Some(entrance), None) => found = Some(entrance),
                (Some(entrance), Some(found)) if entrance.interface == found.interface => {}
                _ => return Ok(None),
            }
        }
        Ok(found)
    }

    /// Where the first client of a range comes in that is not this host itself.
    fn of_range(routes: &Routes, range: IpNet) -> Result<Option<Self>, NetfilterError> {
        for client in range.hosts().take(CLIENTS) {
            if let Some(Route::Through(index)) = routes.find(client, None, None)? {
                let interface = routes.interface(index)?;
                return Ok(interface.map(|interface| Entrance {
                    client,
                    open: forwards_from(client, &interface),
                    interface,
                }));
            }
        }
        Ok(None)
    }

    /// A client's packet, as it comes in.
    pub fn arrival(&self) -> Arrival {
        Arrival {
            from: self.client,
            interface: self.interface.index,
        }
    }
}

/// Whether packets that come in on an interface are forwarded. For IPv6 one switch is for all.
pub fn forwards_from(address: IpAddr, interface: &Interface) -> bool {
    address.is_ipv6() || switch(&interface.name, "forwarding") != Some(0)
}

/// A switch of an interface for IPv4 (Documentation/networking/ip-sysctl.rst).
pub fn switch(interface: &str, name: &str) -> Option<u8> {
    let file = format!("/proc/sys/net/ipv4/conf/{interface}/{name}");
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
