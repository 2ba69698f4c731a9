//! The kernel's routes, interfaces and own addresses (rtnetlink(7)). Reading them needs no privileges.

mod carriers;
mod default_routes;
mod events;
mod filters;
mod ingress;
mod interface;
mod interface_addresses;
mod lower;
mod neighbours;

pub use events::{Changes, HostEvents};
pub use ingress::{Ingress, forwards_from, unknown_client};
pub use interface::{Interface, Whole};
pub use interface_addresses::OwnAddress;
pub use neighbours::SilentNeighbour;

use crate::config::{Family, InterfaceName, Listen};
use crate::netlink::{Attributes, Failure, Message, Request, Socket, address, octets, or_missing};
use crate::uapi::*;
use interface::{IFI_INDEX, IFINFOMSG, number};
use ipnet::IpNet;
use nix::libc;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use thiserror::Error;

/// The routing tables cannot be read.
#[derive(Debug, Error)]
#[error("cannot read the kernel's routing tables over netlink")]
pub struct RtnetlinkError(#[source] io::Error);

impl From<Failure> for RtnetlinkError {
    fn from(failure: Failure) -> Self {
        RtnetlinkError(failure.into())
    }
}

impl From<io::Error> for RtnetlinkError {
    fn from(error: io::Error) -> Self {
        RtnetlinkError(error)
    }
}

/// Length in bytes of `struct rtmsg` (linux/rtnetlink.h), and where it has its fields.
const RTMSG: usize = 12;
const RTM_FAMILY: usize = 0;
const RTM_DST_LEN: usize = 1;
const RTM_SRC_LEN: usize = 2;
const RTM_TABLE: usize = 4;
const RTM_TYPE: usize = 7;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// To this host itself.
    Local,
    /// Out of the interface with this index.
    Through(u32),
}

/// A packet's protocol number and ports, which routing rules can depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// IANA's number.
    pub protocol: u8,
    pub source: u16,
    pub destination: u16,
}

/// A packet that comes in from another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub from: IpAddr,
    /// The index of the interface that it comes in on.
    pub interface: u32,
}

/// The routing tables and rules of this network namespace.
pub struct Routes {
    socket: Socket,
    /// The VRF whose routes this host's own packets take.
    vrf: Option<u32>,
    /// The interfaces that were asked for.
    interfaces: RefCell<HashMap<u32, Option<Interface>>>,
}

impl Routes {
    /// Connects to the kernel.
    pub fn open() -> Result<Self, RtnetlinkError> {
        let socket = Socket::route()?;
        let interfaces = RefCell::default();
        let vrf = None;
        Ok(Routes {
            socket,
            vrf,
            interfaces,
        })
    }

    /// The same for what is forwarded with this `NODEFWD_LISTEN`: with the routes of the VRF that all its
    /// addresses and interfaces are in, if they are in one.
    pub fn of(listen: &Listen) -> Result<Self, RtnetlinkError> {
        let mut routes = Self::open()?;
        let mut vrfs = routes.vrfs(listen)?.into_iter();
        routes.vrf = match (vrfs.next(), vrfs.next()) {
            (Some(vrf), None) => vrf,
            _ => None,
        };
        Ok(routes)
    }

    /// The VRFs of all addresses and interfaces to listen on; `None` stands for those in no VRF.
    pub fn vrfs(&self, listen: &Listen) -> Result<BTreeSet<Option<u32>>, RtnetlinkError> {
        let mut interfaces = Vec::new();
        for name in listen.interfaces() {
            interfaces.extend(self.interface_named(name)?);
        }
        if !listen.addresses().is_empty() {
            let own = self.own_addresses()?.into_iter();
            for own in own.filter(|own| listen.addresses().contains(&own.address)) {
                interfaces.extend(self.interface(own.interface)?);
            }
        }
        Ok(interfaces.iter().map(Interface::vrf).collect())
    }

    /// The VRF whose routes are asked for.
    pub fn vrf(&self) -> Option<u32> {
        self.vrf
    }

    /// The MTU of the route to an address, if it has one of its own.
    pub fn route_mtu(&self, to: IpAddr) -> Result<Option<u32>, RtnetlinkError> {
        self.get(&self.own_request(to), |message| {
            let attributes = Attributes(message.payload.get(RTMSG..)?);
            number(attributes.nested(libc::RTA_METRICS), RTAX_MTU)
        })
    }

    /// Asks for the route of a packet of this host's own.
    fn own_request(&self, to: IpAddr) -> Request {
        self.in_vrf(route_request(to, None, None))
    }

    fn in_vrf(&self, request: Request) -> Request {
        match self.vrf {
            Some(vrf) => request.attribute(libc::RTA_OIF, &vrf.to_ne_bytes()),
            None => request,
        }
    }

    /// Where the kernel sends a packet to `to`: one of this host's own, or one that arrives. `None` if
    /// it drops the packet: it has no route, or the reverse-path filter (`rp_filter`) expects its source
    /// on another interface. What leads to no single host, such as a broadcast, is `None` too.
    pub fn find(
        &self,
        to: IpAddr,
        arrival: Option<Arrival>,
        ports: Option<Ports>,
    ) -> Result<Option<Route>, RtnetlinkError> {
        let request = route_request(to, arrival, ports);
        let request = match arrival {
            // Its interface decides.
            Some(_) => request,
            None => self.in_vrf(request),
        };
        self.get(&request, route)
    }

    /// Where the kernel sends one of this host's own packets that has a mark.
    pub fn find_marked(&self, to: IpAddr, mark: u32) -> Result<Option<Route>, RtnetlinkError> {
        let request = route_request(to, None, None);
        self.get(
            &request.attribute(libc::RTA_MARK, &mark.to_ne_bytes()),
            route,
        )
    }

    /// The interface with this index, as it was when it was asked for first; `None` if it was gone.
    pub fn interface(&self, index: u32) -> Result<Option<Interface>, RtnetlinkError> {
        if let Some(known) = self.interfaces.borrow().get(&index) {
            return Ok(known.clone());
        }
        let mut header = [0; IFINFOMSG];
        header[IFI_INDEX..IFI_INDEX + 4].copy_from_slice(&index.to_ne_bytes());
        let found = self.get(&link_request(&header), Interface::read)?;
        self.interfaces.borrow_mut().insert(index, found.clone());
        Ok(found)
    }

    /// The interface of this name.
    pub fn interface_named(
        &self,
        name: &InterfaceName,
    ) -> Result<Option<Interface>, RtnetlinkError> {
        let request = link_request(&[0; IFINFOMSG]).text(libc::IFLA_IFNAME, &name.to_string());
        self.get(&request, Interface::read)
    }

    /// The index of the interface of this name, if there is one.
    pub fn index_of(&self, name: &InterfaceName) -> Result<Option<u32>, RtnetlinkError> {
        Ok(self.interface_named(name)?.map(|interface| interface.index))
    }

    /// Whether the kernel forwards packets of a family at all; `None` if it does not know the family.
    pub fn forwards(&self, family: Family) -> Result<Option<bool>, RtnetlinkError> {
        self.get(&events::forwarding_request(family), events::forwards)
    }

    /// What the kernel replies; `None` if it refuses, as for a packet that it drops.
    fn get<T>(
        &self,
        request: &Request,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, RtnetlinkError> {
        match self.socket.get(request, read) {
            Err(Failure::Refused(_)) => Ok(None),
            reply => Ok(reply?),
        }
    }
}

/// Requests all objects of a type and an address family (`AF_*`), which every header has first (`struct rtgenmsg`).
fn dump<const LENGTH: usize>(message: u16, family: i32) -> Request {
    let mut header = [0; LENGTH];
    header[RTM_FAMILY] = family as u8;
    Request::dump(message, &header)
}

fn link_request(header: &[u8; IFINFOMSG]) -> Request {
    Request::with_header(libc::RTM_GETLINK, 0, header, 1)
        .attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes())
}

fn route_request(to: IpAddr, arrival: Option<Arrival>, ports: Option<Ports>) -> Request {
    let (family, bits) = match to {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    let mut header = [0; RTMSG];
    header[RTM_FAMILY] = family as u8;
    header[RTM_DST_LEN] = bits;
    if arrival.is_some() {
        header[RTM_SRC_LEN] = bits;
    }
    let mut request = Request::with_header(libc::RTM_GETROUTE, 0, &header, 1)
        .attribute(libc::RTA_DST, &octets(to));
    if let Some(Arrival { from, interface }) = arrival {
        request = request
            .attribute(libc::RTA_SRC, &octets(from))
            .attribute(libc::RTA_IIF, &interface.to_ne_bytes());
    }
    match ports {
        // The kernel takes TCP, UDP and ICMP only (rtm_getroute_parse_ip_proto in
        // net/ipv4/fib_frontend.c).
        Some(ports) if i32::from(ports.protocol) != libc::IPPROTO_SCTP => request
            .attribute(RTA_IP_PROTO, &[ports.protocol])
            .attribute(RTA_SPORT, &ports.source.to_be_bytes())
            .attribute(RTA_DPORT, &ports.destination.to_be_bytes()),
        _ => request,
    }
}

fn route(message: &Message<'_>) -> Option<Route> {
    let attributes = Attributes(message.payload.get(RTMSG..)?);
    match message.payload[RTM_TYPE] {
        libc::RTN_LOCAL => Some(Route::Local),
        libc::RTN_UNICAST => {
            let index = attributes.get(libc::RTA_OIF)?.first_chunk().copied()?;
            Some(Route::Through(u32::from_ne_bytes(index)))
        }
        _ => None,
    }
}

/// This host's own addresses, and the broadcast ones, at one moment: the kernel's routing table `local`
/// (ip-route(8)), which `fib daddr type` looks into too.
#[derive(Debug, Default)]
pub struct Addresses {
    own: HashSet<IpAddr>,
    /// Whole networks of own addresses; there are few.
    networks: Vec<IpNet>,
    broadcast: HashSet<IpAddr>,
    /// Those on interfaces that were asked for, and on others but lo.
    on_interfaces: HashSet<IpAddr>,
    elsewhere: HashSet<IpAddr>,
}

impl Addresses {
    /// Dumps the table of both families. Needs no privileges.
    pub fn read() -> Result<Self, RtnetlinkError> {
        let socket = Socket::route()?;
        let mut addresses = Addresses::default();
        for family in [libc::AF_INET, libc::AF_INET6] {
            // Where no interface has had an address yet, there is no such table.
            let entries = or_missing(socket.list(&local_table_request(family), local_entry))?;
            for (kind, network) in entries {
                addresses.add(kind, network);
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

    /// Whether an address is this host's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.networks.iter().any(|own| own.contains(&address))
    }

    /// Whether an address is a multicast or broadcast one.
    pub fn is_group(&self, address: IpAddr) -> bool {
        address.is_multicast()
            || address == Ipv4Addr::BROADCAST
            || self.broadcast.contains(&address)
    }

    /// This host's own addresses, without those of whole networks.
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

fn local_table_request(family: i32) -> Request {
    let mut header = [0; RTMSG];
    header[RTM_FAMILY] = family as u8;
    // Before Linux 4.20 all tables are dumped all the same.
    header[RTM_TABLE] = libc::RT_TABLE_LOCAL;
    Request::dump(libc::RTM_GETROUTE, &header)
}

/// The type (`RTN_*`) and the network of an entry of the table `local`.
fn local_entry(message: &Message<'_>) -> Option<(u8, IpNet)> {
    let attributes = Attributes(message.payload.get(RTMSG..)?);
    if message.payload[RTM_TABLE] != libc::RT_TABLE_LOCAL {
        return None;
    }
    let destination = address(attributes.get(libc::RTA_DST)?)?;
    let network = IpNet::new(destination, message.payload[RTM_DST_LEN]);
    Some((message.payload[RTM_TYPE], network.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::any_messages;

    #[test]
    fn no_message_panics() {
        any_messages(RTMSG, |message| {
            route(message);
            local_entry(message);
        });
        any_messages(IFINFOMSG, |message| {
            Interface::read(message);
        });
    }
}
