//! Sockets of this network namespace that wait for clients (sock_diag(7)). Reading them needs no
//! privileges.

mod unix;

pub use unix::stream_with_name;

use crate::config::Protocol;
use crate::netlink::{Attributes, Failure, Message, Request, Socket, address};
use crate::uapi::{
    INET_DIAG_SKV6ONLY, SOCK_DIAG_BY_FAMILY, TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN,
};
use nix::errno::Errno;
use nix::libc;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::{io, iter};
use thiserror::Error;

/// Why the sockets cannot be listed.
#[derive(Debug, Error)]
pub enum SockDiagError {
    #[error(
        "not looked at: the kernel does not list its sockets over netlink; load the modules with modprobe -a tcp_diag udp_diag"
    )]
    Unsupported(#[source] Errno),
    #[error("not looked at: cannot talk to the kernel over netlink")]
    Socket(#[from] io::Error),
}

impl From<Failure> for SockDiagError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => SockDiagError::Unsupported(refusal.errno),
            failure => SockDiagError::Socket(failure.into()),
        }
    }
}

/// A socket that accepts connections, or receives datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub protocol: Protocol,
    pub address: SocketAddr,
    /// Where datagrams must come from, if it is connected.
    pub peer: Option<SocketAddr>,
    /// Whether it takes no IPv4, though its address is an IPv6 one (IPV6_V6ONLY in ipv6(7)).
    pub ipv6_only: bool,
    pub inode: u32,
}

impl Bound {
    /// Whether it is for what `from` sends to `to`.
    pub fn receives(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let address = self.address.ip();
        let is_here = match to.ip() {
            IpAddr::V4(_) if address == IpAddr::from(Ipv6Addr::UNSPECIFIED) => !self.ipv6_only,
            to if address.is_unspecified() => to.is_ipv4() == address.is_ipv4(),
            to => address.to_canonical() == to,
        };
        let is_from =
            |peer: SocketAddr| (peer.ip().to_canonical(), peer.port()) == (from.ip(), from.port());
        is_here && self.address.port() == to.port() && self.peer.is_none_or(is_from)
    }
}

/// `struct inet_diag_req_v2` (linux/inet_diag.h): its length, and where it has its fields.
const REQUEST: usize = 56;
const SDIAG_FAMILY: usize = 0;
const SDIAG_PROTOCOL: usize = 1;
const IDIAG_STATES: usize = 4;

/// `struct inet_diag_msg`: its length, and where it has its fields.
const REPLY: usize = 72;
const IDIAG_FAMILY: usize = 0;
const IDIAG_SPORT: usize = 4;
const IDIAG_DPORT: usize = 6;
const IDIAG_SRC: usize = 8;
const IDIAG_DST: usize = 24;
const IDIAG_INODE: usize = 68;

/// The sockets of these protocols that receive from any source. The kernel lists none of SCTP.
pub fn bound(protocols: impl Iterator<Item = Protocol>) -> Result<Vec<Bound>, SockDiagError> {
    list(protocols.filter_map(|protocol| match protocol {
        Protocol::Tcp => Some((protocol, 1 << TCP_LISTEN)),
        // One that is not connected.
        Protocol::Udp => Some((protocol, 1 << TCP_CLOSE)),
        Protocol::Sctp => None,
    }))
}

/// All UDP sockets.
pub fn udp() -> Result<Vec<Bound>, SockDiagError> {
    list(iter::once((
        Protocol::Udp,
        1 << TCP_CLOSE | 1 << TCP_ESTABLISHED,
    )))
}

/// The sockets of each protocol that are in one of these states, a bit for each.
fn list(wanted: impl Iterator<Item = (Protocol, u32)>) -> Result<Vec<Bound>, SockDiagError> {
    let mut found = Vec::new();
    let mut socket = None;
    for (protocol, states) in wanted {
        let socket = match &socket {
            Some(socket) => socket,
            None => socket.insert(open()?),
        };
        for family in [libc::AF_INET, libc::AF_INET6] {
            let request = request(family as u8, protocol.number(), states);
            found.extend(socket.list_existing(&request, |message| read(protocol, message))?);
        }
    }
    Ok(found)
}

fn open() -> Result<Socket, SockDiagError> {
    Socket::sock_diag().map_err(|error| match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT) => SockDiagError::Unsupported(Errno::EPROTONOSUPPORT),
        _ => error.into(),
    })
}

/// `protocol` is IANA's number.
fn request(family: u8, protocol: u8, states: u32) -> Request {
    let mut header = [0; REQUEST];
    header[SDIAG_FAMILY] = family;
    header[SDIAG_PROTOCOL] = protocol;
    header[IDIAG_STATES..IDIAG_STATES + 4].copy_from_slice(&states.to_ne_bytes());
    Request::dump(SOCK_DIAG_BY_FAMILY, &header)
}

fn read(protocol: Protocol, message: &Message<'_>) -> Option<Bound> {
    let (reply, attributes) = message.payload.split_at_checked(REPLY)?;
    let octets = match i32::from(reply[IDIAG_FAMILY]) {
        libc::AF_INET => 4,
        libc::AF_INET6 => 16,
        _ => return None,
    };
    let end = |host: usize, port: usize| {
        let address = address(&reply[host..host + octets])?;
        let port = u16::from_be_bytes([reply[port], reply[port + 1]]);
        Some(SocketAddr::new(address, port))
    };
    let only = Attributes(attributes).get(INET_DIAG_SKV6ONLY);
    Some(Bound {
        protocol,
        address: end(IDIAG_SRC, IDIAG_SPORT)?,
        peer: end(IDIAG_DST, IDIAG_DPORT).filter(|peer| peer.port() != 0),
        ipv6_only: only.is_some_and(|only| only != [0]),
        inode: u32::from_ne_bytes(*reply[IDIAG_INODE..].first_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::any_messages;
    use crate::netns::in_own_namespace;

    /// The kernel has no module for a protocol that does not exist, and may have none for another.
    #[test]
    fn a_protocol_that_the_kernel_does_not_list_is_an_error() {
        let socket = open().unwrap();
        let request = request(libc::AF_INET as u8, 254, 1 << TCP_LISTEN);
        let listed = socket.list_existing(&request, |message| read(Protocol::Tcp, message));
        let error = SockDiagError::from(listed.unwrap_err());
        let unsupported = matches!(error, SockDiagError::Unsupported(Errno::ENOENT));
        assert!(unsupported, "{error:?}");
    }

    #[test]
    fn a_socket_receives_at_its_addresses_and_from_its_peer() {
        let socket = |address: &str, ipv6_only, peer: Option<&str>| Bound {
            protocol: Protocol::Udp,
            address: address.parse().unwrap(),
            peer: peer.map(|peer| peer.parse().unwrap()),
            ipv6_only,
            inode: 1,
        };
        let receives = |socket: &Bound, to: &str| {
            let from = if to.starts_with('[') {
                "[fd00:1::2]:9"
            } else {
                "10.1.0.2:9"
            };
            socket.receives(from.parse().unwrap(), to.parse().unwrap())
        };
        let (ipv4, ipv6, mapped) = ("10.1.0.1:53", "[fd00:1::1]:53", "[::ffff:10.1.0.1]:53");
        for (socket, expected) in [
            (socket("0.0.0.0:53", false, None), (true, false)),
            (socket("0.0.0.0:54", false, None), (false, false)),
            (socket("[::]:53", false, None), (true, true)),
            (socket("[::]:53", true, None), (false, true)),
            (socket("10.1.0.9:53", false, None), (false, false)),
            (socket(ipv4, false, None), (true, false)),
            (socket(mapped, false, None), (true, false)),
            (socket(ipv6, true, None), (false, true)),
            (socket(ipv4, false, Some("10.1.0.2:9")), (true, false)),
            (socket(ipv4, false, Some("10.1.0.2:8")), (false, false)),
            (
                socket(mapped, false, Some("[::ffff:10.1.0.2]:9")),
                (true, false),
            ),
            (socket(ipv6, false, Some("[fd00:1::2]:9")), (false, true)),
        ] {
            let found = (receives(&socket, ipv4), receives(&socket, ipv6));
            assert_eq!(found, expected, "{socket:?}");
        }
    }

    #[test]
    fn a_protocol_without_sockets_is_none() {
        let sockets = in_own_namespace(|| bound(Protocol::ALL.into_iter()));
        assert_eq!(sockets.unwrap(), []);
    }

    #[test]
    fn no_message_panics() {
        any_messages(REPLY, |message| {
            read(Protocol::Tcp, message);
        });
    }
}
