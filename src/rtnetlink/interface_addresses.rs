//! Which interfaces this host's addresses are on.

use super::{Addresses, Routes, RtnetlinkError, dump};
use crate::config::InterfaceName;
use crate::netlink::{Attributes, Message, address};
use ipnet::IpNet;
use nix::libc;
use std::net::IpAddr;

/// Length in bytes of `struct ifaddrmsg` (linux/if_addr.h), and where it has its fields.
const IFADDRMSG: usize = 8;
const IFA_PREFIXLEN: usize = 1;
const IFA_FLAGS: usize = 2;
const IFA_INDEX: usize = 4;

/// An address of this host on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAddress {
    pub address: IpAddr,
    /// The network on the interface's link.
    pub network: IpNet,
    /// The index of the interface.
    pub interface: u32,
    /// Whether it has no lifetime, as one of a router advertisement has.
    pub is_permanent: bool,
}

impl Routes {
    /// This host's addresses on its interfaces, also of those in a VRF.
    pub fn own_addresses(&self) -> Result<Vec<OwnAddress>, RtnetlinkError> {
        let mut all = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let request = dump::<IFADDRMSG>(libc::RTM_GETADDR, family);
            all.extend(self.socket.list(&request, entry)?);
        }
        Ok(all)
    }
}

impl Addresses {
    /// The same with those of these interfaces, also of interfaces in a VRF.
    pub fn read_of(interfaces: &[InterfaceName]) -> Result<Self, RtnetlinkError> {
        let mut addresses = Addresses::read()?;
        if interfaces.is_empty() {
            return Ok(addresses);
        }
        let routes = Routes::open()?;
        for own in routes.own_addresses()? {
            let name = routes.interface(own.interface)?;
            let name: Option<InterfaceName> = name.and_then(|found| found.name.parse().ok());
            if name.is_some_and(|name| interfaces.contains(&name)) {
                addresses.on_interfaces.insert(own.address);
            } else if name.is_none_or(|name| name.to_string() != "lo") {
                addresses.elsewhere.insert(own.address);
            }
        }
        Ok(addresses)
    }

    /// Whether packets to an address can have come in on these interfaces: it is one of theirs, or on no
    /// other, as a virtual one on lo.
    pub fn is_reached_over_interfaces(&self, address: IpAddr) -> bool {
        self.on_interfaces.contains(&address)
            || self.is_own(address) && !self.elsewhere.contains(&address)
    }

    /// Whether an address is on another interface than these.
    pub fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.elsewhere.contains(&address) && !self.on_interfaces.contains(&address)
    }
}

/// Where the peer has another address, `IFA_ADDRESS` is that (linux/if_addr.h).
fn entry(message: &Message<'_>) -> Option<OwnAddress> {
    let attributes = Attributes(message.payload.get(IFADDRMSG..)?);
    let in_network = address(attributes.get(libc::IFA_ADDRESS)?)?;
    let own = attributes.get(libc::IFA_LOCAL).and_then(address);
    let index = *message.payload[IFA_INDEX..].first_chunk()?;
    Some(OwnAddress {
        address: own.unwrap_or(in_network),
        network: IpNet::new(in_network, message.payload[IFA_PREFIXLEN]).ok()?,
        interface: u32::from_ne_bytes(index),
        is_permanent: u32::from(message.payload[IFA_FLAGS]) & libc::IFA_F_PERMANENT != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::any_messages;

    #[test]
    fn no_message_panics() {
        any_messages(IFADDRMSG, |message| {
            entry(message);
        });
    }
}
