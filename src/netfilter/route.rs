//! Where the kernel would send a packet: its own answer to the question (rtnetlink(7)).

use super::elements::octets;
use super::message::{Attributes, Message, Request};
use super::socket::{Failure, Socket};
use super::{Interface, NetfilterError, error::plain};
use crate::config::Protocol;
use nix::libc;
use std::net::IpAddr;

/// Length in bytes of `struct rtmsg` (linux/rtnetlink.h).
pub const ROUTE_HEADER: usize = 12;

/// The routing tables and rules of this network namespace.
pub struct Routes(Socket);

/// The way of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// It ends on this host itself.
    Local,
    /// It leaves through the interface of this number.
    Through(u32),
}

/// A packet's protocol and ports, which rules of routing can depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// The source port.
    pub source: u16,
    /// The destination port.
    pub destination: u16,
}

/// A packet that comes in from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its source.
    pub from: IpAddr,
    /// The number of the interface that it comes in on.
    pub interface: u32,
}

impl Routes {
    /// Connects. Needs no privileges.
    pub fn open() -> Result<Self, NetfilterError> {
        let socket = Socket::open_routes().map_err(NetfilterError::Socket)?;
        Ok(Routes(socket))
    }

    /// The way of a packet to `to`: of this host's own, or of one that arrives. Nothing if it would
    /// be dropped: for want of a route, or because a filter of this kind (`rp_filter`) finds its
    /// source on another way.
    pub fn find(
        &self,
        to: IpAddr,
        arrival: Option<Arrival>,
        ports: Option<Ports>,
    ) -> Result<Option<Route>, NetfilterError> {
        self.ask(&request(to, arrival, ports), |message| route(&message))
    }

    /// The interface of this number; nothing if there is none any more.
    pub fn interface(&self, index: u32) -> Result<Option<Interface>, NetfilterError> {
        // linux/rtnetlink.h: struct ifinfomsg; linux/if_link.h: IFLA_IFNAME
        const HEADER: usize = 16;
        const INDEX: usize = 4;
        const NAME: u16 = 3;
        let mut header = [0; HEADER];
        header[INDEX..INDEX + 4].copy_from_slice(&index.to_ne_bytes());
        let request = Request::with_header(libc::RTM_GETLINK, 0, &header, 1);
        let name = |message: Message<'_>| {
            let attributes = Attributes(message.payload.get(HEADER..)?);
            attributes.text(NAME).map(str::to_owned)
        };
        let name = self.ask(&request, name)?;
        Ok(name.map(|name| Interface { index, name }))
    }

    /// What there is to read in the answer; nothing if the kernel refuses to give one.
    fn ask<T>(
        &self,
        request: &Request,
        read: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, NetfilterError> {
        let mut found = None;
        let answer = self
            .0
            .dump(request, |message| found = message.and_then(&read));
        match answer {
            Ok(()) => Ok(found),
            Err(Failure::Refused(_)) => Ok(None),
            Err(failure) => Err(plain(failure)),
        }
    }
}

fn request(to: IpAddr, arrival: Option<Arrival>, ports: Option<Ports>) -> Request {
    // linux/rtnetlink.h: enum rtattr_type_t
    const DESTINATION: u16 = 1;
    const SOURCE: u16 = 2;
    const INPUT_INTERFACE: u16 = 3;
    const PROTOCOL: u16 = 27;
    const SOURCE_PORT: u16 = 28;
    const DESTINATION_PORT: u16 = 29;
    let (family, bits) = match to {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    let mut header = [0; ROUTE_HEADER];
    header[0] = family as u8;
    header[1] = bits;
    if arrival.is_some() {
        header[2] = bits;
    }
    let mut request =
        Request::with_header(libc::RTM_GETROUTE, 0, &header, 1).attribute(DESTINATION, &octets(to));
    if let Some(Arrival { from, interface }) = arrival {
        request = request
            .attribute(SOURCE, &octets(from))
            .attribute(INPUT_INTERFACE, &interface.to_ne_bytes());
    }
    match ports {
        // The kernel takes no others here (rtm_getroute_parse_ip_proto in net/ipv4/fib_frontend.c).
        Some(ports) if ports.protocol != Protocol::Sctp => request
            .attribute(PROTOCOL, &[ports.protocol.number()])
            .attribute(SOURCE_PORT, &ports.source.to_be_bytes())
            .attribute(DESTINATION_PORT, &ports.destination.to_be_bytes()),
        _ => request,
    }
}

/// Nothing for a way that leads to no host, such as a broadcast.
fn route(message: &Message<'_>) -> Option<Route> {
    // linux/rtnetlink.h: struct rtmsg, RTA_OIF
    const TYPE: usize = 7;
    const OUTPUT_INTERFACE: u16 = 4;
    let attributes = Attributes(message.payload.get(ROUTE_HEADER..)?);
    match message.payload[TYPE] {
        libc::RTN_LOCAL => Some(Route::Local),
        libc::RTN_UNICAST => {
            let index = attributes.get(OUTPUT_INTERFACE)?.first_chunk().copied()?;
            Some(Route::Through(u32::from_ne_bytes(index)))
        }
        _ => None,
    }
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
                route(&message);
            });
        }
    }
}
