//! Which interfaces this host's addresses are on.

use super::{Addresses, Routes, RtnetlinkError};
use crate::config::InterfaceName;
use crate::netlink::{Attributes, Message, Request, address};
use nix::libc;
use std::net::IpAddr;

/// Length in bytes of `struct ifaddrmsg` (linux/if_addr.h), and where it has its fields.
const IFADDRMSG: usize = 8;
const IFA_FAMILY: usize = 0;
const IFA_INDEX: usize = 4;

impl Addresses {
    /// The same with those of these interfaces, also of interfaces in a VRF.
    pub fn read_of(interfaces: &[InterfaceName]) -> Result<Self, RtnetlinkError> {
        let mut addresses = Addresses::read()?;
        if interfaces.is_empty() {
            return Ok(addresses);
        }
        let routes = Routes::open()?;
        for family in [libc::AF_INET, libc::AF_INET6] {
            for (address, index) in routes.socket.list(&request(family), entry)? {
                let name = routes.interface(index)?.map(|interface| interface.name);
                let name: Option<InterfaceName> = name.and_then(|name| name.parse().ok());
                if name.is_some_and(|name| interfaces.contains(&name)) {
                    addresses.on_interfaces.insert(address);
                } else if name.is_none_or(|name| name.to_string() != "lo") {
                    addresses.elsewhere.insert(address);
                }
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

fn request(family: i32) -> Request {
    let mut header = [0; IFADDRMSG];
    header[IFA_FAMILY] = family as u8;
    Request::with_header(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16, &header, 1)
}

/// An address, and the index of its interface. Where the peer has another one, `IFA_ADDRESS` is that
/// (linux/if_addr.h).
fn entry(message: &Message<'_>) -> Option<(IpAddr, u32)> {
    let attributes = Attributes(message.payload.get(IFADDRMSG..)?);
    let own = attributes.get(libc::IFA_LOCAL);
    let own = address(own.or_else(|| attributes.get(libc::IFA_ADDRESS))?)?;
    let index = *message.payload[IFA_INDEX..].first_chunk()?;
    Some((own, u32::from_ne_bytes(index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::messages;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            messages(&bytes).for_each(|message| {
                entry(&message);
            });
        }
    }
}
