//! The interfaces under another one: the ports of a bridge, the parts of a bond, what a VLAN is made on.

use super::interface::{IFINFOMSG, Interface, Lower, number};
use super::{Routes, RtnetlinkError};
use crate::netlink::{Attributes, Message, Request};
use crate::uapi::IFLA_MASTER;
use nix::libc;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How many interfaces can be under each other.
const MAX_DEPTH: usize = 8;

/// How many hosts on a bridge are looked up: of more, each port may be one of theirs.
const MAX_HOSTS: usize = 16;

impl Routes {
    /// The interfaces that packets pass on their way through `interface` to or from these hosts. Of a bridge, the
    /// ports that the hosts are behind, or all if that is not known.
    pub fn lower(
        &self,
        interface: &Interface,
        hosts: &BTreeSet<IpAddr>,
    ) -> Result<Vec<Interface>, RtnetlinkError> {
        let mut all = Vec::new();
        let mut above = vec![interface.clone()];
        for _ in 0..MAX_DEPTH {
            let mut next = Vec::new();
            for interface in &above {
                next.extend(self.next_lower(interface, hosts)?);
            }
            all.extend(next.iter().cloned());
            above = next;
        }
        Ok(all)
    }

    fn next_lower(
        &self,
        interface: &Interface,
        hosts: &BTreeSet<IpAddr>,
    ) -> Result<Vec<Interface>, RtnetlinkError> {
        let indices = match interface.lower {
            Lower::None => return Ok(Vec::new()),
            Lower::One(index) => Some(vec![index]),
            Lower::Parts => self.ports(interface, hosts)?,
        };
        let Some(indices) = indices else {
            return self.parts(interface.index);
        };
        let mut found = Vec::new();
        for index in indices {
            found.extend(self.interface(index)?);
        }
        Ok(found)
    }

    /// The ports of a bridge that hosts are behind; `None` if one of them is not known.
    fn ports(
        &self,
        bridge: &Interface,
        hosts: &BTreeSet<IpAddr>,
    ) -> Result<Option<Vec<u32>>, RtnetlinkError> {
        if bridge.bridge.is_none() || hosts.len() > MAX_HOSTS {
            return Ok(None);
        }
        let mut ports = Vec::new();
        for host in hosts {
            match self.bridge_port(bridge.index, self.next_hop(*host)?)? {
                Some(port) => ports.push(port),
                None => return Ok(None),
            }
        }
        Ok(Some(ports))
    }

    /// The interfaces that are a part of this one.
    fn parts(&self, index: u32) -> Result<Vec<Interface>, RtnetlinkError> {
        let flags = libc::NLM_F_DUMP as u16;
        let request = Request::with_header(libc::RTM_GETLINK, flags, &[0; IFINFOMSG], 1)
            .attribute(IFLA_MASTER, &index.to_ne_bytes());
        let part = |message: &Message<'_>| {
            let attributes = Attributes(message.payload.get(IFINFOMSG..)?);
            let is_part = number(attributes, IFLA_MASTER) == Some(index);
            Interface::read(message).filter(|_| is_part)
        };
        Ok(self.socket.list(&request, part)?)
    }
}
