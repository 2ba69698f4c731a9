//! Neighbours: hosts on the same link as this one, whose link-layer addresses the kernel asks for.

use super::{RTMSG, Routes, RtnetlinkError, route_request};
use crate::netlink::{Attributes, Message, Request, address};
use nix::libc;
use std::net::IpAddr;

/// Length in bytes of `struct ndmsg` (linux/neighbour.h), and where it has its fields.
const NDMSG: usize = 12;
const NDM_IFINDEX: usize = 4;
const NDM_STATE: usize = 8;

/// A neighbour that has not replied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilentNeighbour {
    pub address: IpAddr,
    /// The index of the interface on whose link it is.
    pub interface: u32,
    /// Whether the kernel has given up; if not, it is still asking.
    pub failed: bool,
}

impl Routes {
    /// The neighbours that have not replied when the kernel asked for their link-layer addresses.
    pub fn silent_neighbours(&self) -> Result<Vec<SilentNeighbour>, RtnetlinkError> {
        let flags = libc::NLM_F_DUMP as u16;
        let request = Request::with_header(libc::RTM_GETNEIGH, flags, &[0; NDMSG], 1);
        Ok(self.socket.list(&request, silent)?)
    }

    /// The router that packets to an address are sent to; the address itself if it is on a link of this host.
    pub fn next_hop(&self, to: IpAddr) -> Result<IpAddr, RtnetlinkError> {
        let gateway = self.get(&route_request(to, None, None), gateway)?;
        Ok(gateway.unwrap_or(to))
    }
}

fn silent(message: &Message<'_>) -> Option<SilentNeighbour> {
    let attributes = Attributes(message.payload.get(NDMSG..)?);
    let state = u16::from_ne_bytes(*message.payload[NDM_STATE..].first_chunk()?);
    let is_silent = state & (libc::NUD_INCOMPLETE | libc::NUD_FAILED) != 0;
    let index = *message.payload[NDM_IFINDEX..].first_chunk()?;
    is_silent.then_some(SilentNeighbour {
        address: address(attributes.get(libc::NDA_DST)?)?,
        interface: u32::from_ne_bytes(index),
        failed: state & libc::NUD_FAILED != 0,
    })
}

/// The router of a route; `None` if it has none of the destination's family.
fn gateway(message: &Message<'_>) -> Option<IpAddr> {
    let attributes = Attributes(message.payload.get(RTMSG..)?);
    address(attributes.get(libc::RTA_GATEWAY)?)
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
                silent(&message);
                gateway(&message);
            });
        }
    }
}
