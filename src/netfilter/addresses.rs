//! This host's own addresses, and those that lead to no single host, as the kernel has them: its routing
//! table `local` (ip-route(8)), which the rules ask too (`fib daddr type`).

use super::NetfilterError;
use super::error::plain;
use super::message::{Attributes, Message, Request};
use super::route::ROUTE_HEADER;
use super::sibling::address;
use super::socket::{Failure, Socket};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::libc;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

/// Where `struct rtmsg` has its table (linux/rtnetlink.h).
const TABLE: usize = 4;

/// All of them, at one moment.
#[derive(Debug, Default)]
pub struct Addresses {
    own: HashSet<IpAddr>,
    /// Whole networks of own addresses; there are few.
    networks: Vec<IpNet>,
    broadcast: HashSet<IpAddr>,
}

impl Addresses {
    /// Asks the kernel. Needs no privileges.
    pub fn read() -> Result<Self, NetfilterError> {
        let socket = Socket::open_routes().map_err(NetfilterError::Socket)?;
        let mut addresses = Addresses::default();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut found = Vec::new();
            let list = socket.dump(&request(family), |message| match message {
                None => found.clear(),
                Some(message) => found.extend(entry(&message)),
            });
            match list {
                Ok(()) => found
                    .into_iter()
                    .for_each(|(kind, network)| addresses.add(kind, network)),
                // Where no interface has had an address yet, there is no such table.
                Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => {}
                Err(failure) => return Err(plain(failure)),
            }
        }
        Ok(addresses)
    }

    fn add(&mut self, kind: u8, network: IpNet) {
        match kind {
            libc::RTN_LOCAL if network.prefix_len() == network.max_prefix_len() => {
                self.own.insert(network.addr());
            }
            libc::RTN_LOCAL => self.networks.push(network),
            libc::RTN_BROADCAST => {
                self.broadcast.insert(network.addr());
            }
            _ => {}
        }
    }

    /// Whether it is this host's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.networks.iter().any(|own| own.contains(&address))
    }

    /// Whether it leads to a group of hosts.
    pub fn is_group(&self, address: IpAddr) -> bool {
        address.is_multicast()
            || address == Ipv4Addr::BROADCAST
            || self.broadcast.contains(&address)
    }

    /// This host's own ones, without those of whole networks.
    pub fn own(self) -> impl Iterator<Item = IpAddr> {
        self.own.into_iter()
    }
}

#[cfg(test)]
impl FromIterator<(u8, IpNet)> for Addresses {
    /// From `RTN_*` and network.
    fn from_iter<I: IntoIterator<Item = (u8, IpNet)>>(entries: I) -> Self {
        let mut addresses = Addresses::default();
        for (kind, network) in entries {
            addresses.add(kind, network);
        }
        addresses
    }
}

fn request(family: i32) -> Request {
    let mut header = [0; ROUTE_HEADER];
    header[0] = family as u8;
    // Before Linux 4.20 all tables are listed all the same.
    header[TABLE] = libc::RT_TABLE_LOCAL;
    Request::with_header(libc::RTM_GETROUTE, libc::NLM_F_DUMP as u16, &header, 1)
}

/// The type (`RTN_*`) and the network of a route of the table.
fn entry(message: &Message<'_>) -> Option<(u8, IpNet)> {
    // linux/rtnetlink.h: struct rtmsg, RTA_DST
    const LENGTH: usize = 1;
    const TYPE: usize = 7;
    const DESTINATION: u16 = 1;
    let attributes = Attributes(message.payload.get(ROUTE_HEADER..)?);
    if message.payload[TABLE] != libc::RT_TABLE_LOCAL {
        return None;
    }
    let network = IpNet::new(
        address(attributes.get(DESTINATION)?)?,
        message.payload[LENGTH],
    );
    Some((message.payload[TYPE], network.ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::message::messages;
    use super::*;
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
