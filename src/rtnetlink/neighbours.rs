//! Neighbours: hosts on the same link as this one, whose link-layer addresses the kernel asks for, and the ports of
//! bridges that they are behind.

use super::interface::number;
use super::{RTMSG, Routes, RtnetlinkError, dump};
use crate::config::Family;
use crate::netlink::{Attributes, Message, address};
use nix::libc;
use std::net::IpAddr;

/// Length in bytes of `struct ndmsg` (linux/neighbour.h), and where it has its fields.
const NDMSG: usize = 12;
const NDM_IFINDEX: usize = 4;
const NDM_STATE: usize = 8;
/// The bridge (linux/neighbour.h). libc has it for glibc only.
const NDA_MASTER: u16 = 9;

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
        let all = dump::<NDMSG>(libc::RTM_GETNEIGH, libc::AF_UNSPEC);
        Ok(self.socket.list(&all, silent)?)
    }

    /// The port of a bridge that a host of its link is behind; `None` if the kernel does not know, as before
    /// it has sent the host a packet.
    pub fn bridge_port(&self, bridge: u32, host: IpAddr) -> Result<Option<u32>, RtnetlinkError> {
        let family = Family::of(host).number();
        let is_host = |entry: &Neighbour| entry.interface == bridge && entry.address == Some(host);
        let Some(host) = self.neighbours(family, is_host)?.pop() else {
            return Ok(None);
        };
        // One for each VLAN, all of which have the same port, unless the host is at several.
        let is_port =
            |entry: &Neighbour| entry.bridge == Some(bridge) && entry.link_layer == host.link_layer;
        let port = self.neighbours(libc::AF_BRIDGE, is_port)?.pop();
        Ok(port.map(|entry| entry.interface))
    }

    fn neighbours(
        &self,
        family: i32,
        wanted: impl Fn(&Neighbour) -> bool,
    ) -> Result<Vec<Neighbour>, RtnetlinkError> {
        let wanted = |message: &Message<'_>| neighbour(message).filter(&wanted);
        let all = dump::<NDMSG>(libc::RTM_GETNEIGH, family);
        Ok(self.socket.list(&all, wanted)?)
    }

    /// The router that packets to an address are sent to; the address itself if it is on a link of this host.
    pub fn next_hop(&self, to: IpAddr) -> Result<IpAddr, RtnetlinkError> {
        let gateway = self.get(&self.own_request(to), gateway)?;
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

/// A neighbour with a link-layer address: in the table of a family, or of a bridge.
struct Neighbour {
    /// The interface, or the bridge's port, that it is reached over.
    interface: u32,
    bridge: Option<u32>,
    address: Option<IpAddr>,
    link_layer: Vec<u8>,
}

fn neighbour(message: &Message<'_>) -> Option<Neighbour> {
    let attributes = Attributes(message.payload.get(NDMSG..)?);
    Some(Neighbour {
        interface: u32::from_ne_bytes(*message.payload[NDM_IFINDEX..].first_chunk()?),
        bridge: number(attributes, NDA_MASTER),
        address: attributes.get(libc::NDA_DST).and_then(address),
        link_layer: attributes.get(libc::NDA_LLADDR)?.to_vec(),
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
    use crate::netlink::any_messages;

    #[test]
    fn no_message_panics() {
        any_messages(NDMSG, |message| {
            silent(message);
            neighbour(message);
        });
        any_messages(RTMSG, |message| {
            gateway(message);
        });
    }
}
