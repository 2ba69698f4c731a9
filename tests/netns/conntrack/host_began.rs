//! UDP flows that the host itself began from the forwarded port, as WireGuard, NTP and SIP do.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::stale_flows::net_with_sibling;
use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, Net, Protocol, forward_to,
};

/// The peer's port.
const PEER_PORT: u16 = 9000;

/// How the host's own socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bind {
    /// To all addresses of the family, or to one.
    All,
    One,
    /// To all IPv6 addresses, which receives IPv4 too, or to the IPv4 address as an IPv6 one.
    BothFamilies,
    Mapped,
    /// To one address, and connected to the peer.
    Connected,
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        v6 => v6,
    }
}

/// The peer's socket.
fn peer(net: &Net, family: Family) -> UdpSocket {
    let address = SocketAddr::new(net.client.address(family), PEER_PORT);
    let peer = net.client.run(|| UdpSocket::bind(address));
    let peer = peer.expect("a socket");
    let set = peer.set_read_timeout(Some(EVENT_TIMEOUT));
    set.expect("a read timeout");
    peer
}

/// The host's socket at the forwarded port, from which the peer has received a packet.
fn begin(net: &Net, peer: &UdpSocket, family: Family, bind: Bind) -> UdpSocket {
    let node_addr = net.node_addr(family, FORWARDED_PORT);
    let peer_addr = peer.local_addr().expect("an address");
    let any = |address: SocketAddr| match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, FORWARDED_PORT).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, FORWARDED_PORT).into(),
    };
    let (local, to) = match bind {
        Bind::All => (any(node_addr), peer_addr),
        Bind::BothFamilies => (any(mapped(node_addr)), mapped(peer_addr)),
        Bind::Mapped => (mapped(node_addr), mapped(peer_addr)),
        Bind::One | Bind::Connected => (node_addr, peer_addr),
    };
    let socket = net.node.run(|| {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None);
        let socket = socket.expect("a socket");
        if local.is_ipv6() {
            let set = socket.set_only_v6(family == Family::V6 && bind != Bind::BothFamilies);
            set.expect("a choice of families");
        }
        socket.bind(&local.into()).expect("bound");
        UdpSocket::from(socket)
    });
    if bind == Bind::Connected {
        socket.connect(to).expect("connected");
        socket.send(b"hello").expect("sent");
    } else {
        socket.send_to(b"hello", to).expect("sent");
    }
    let set = socket.set_read_timeout(Some(EVENT_TIMEOUT));
    set.expect("a read timeout");
    let from = loop {
        match peer.recv_from(&mut [0; 8]) {
            // A timeout keeps the kernel from going on after another test's signal (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => break received.expect("a packet").1,
        }
    };
    assert_eq!(from, node_addr);
    socket
}

const BINDS: [Bind; 5] = [
    Bind::All,
    Bind::One,
    Bind::BothFamilies,
    Bind::Mapped,
    Bind::Connected,
];

fn entries_from_host(net: &Net, family: Family) -> usize {
    let port = FORWARDED_PORT.to_string();
    let selection = ["--proto", "udp", "--orig-port-src", &port];
    net.node.conntrack_entries(family, &selection).len()
}

#[test]
fn a_peer_of_a_socket_that_is_closed_is_forwarded() {
    for family in Family::BOTH {
        for bind in BINDS {
            let net = net_with_sibling(1);
            let _servers = net.serve(BACKEND_PORT);
            let peer = peer(&net, family);
            drop(begin(&net, &peer, family, bind));
            assert_eq!(entries_from_host(&net, family), 1);
            // A socket for another peer, and one at another port, receive none of it.
            let at = |port| {
                let address = net.node_addr(family, port);
                net.node.run(|| UdpSocket::bind(address)).expect("a socket")
            };
            let others = [FORWARDED_PORT, FORWARDED_PORT + 1].map(at);
            let other_peer = (net.client.address(family), PEER_PORT + 1);
            others[0].connect(other_peer).expect("connected");
            let forwarder = forward_to(Protocol::Udp, &net.backends).start(&net.node);
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            peer.send_to(b"?\n", node_addr).expect("sent");
            let mut reply = [0; 64];
            let (length, _) = peer.recv_from(&mut reply).expect("a reply");
            let reply = String::from_utf8_lossy(&reply[..length]).into_owned();
            assert!(
                reply.starts_with("backend-1 "),
                "{family:?} {bind:?} {reply}"
            );
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}

#[test]
fn a_peer_of_a_socket_that_is_open_still_reaches_it() {
    for family in Family::BOTH {
        for bind in BINDS {
            let net = net_with_sibling(1);
            let peer = peer(&net, family);
            let socket = begin(&net, &peer, family, bind);
            let forwarder = forward_to(Protocol::Udp, &net.backends).start(&net.node);
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            peer.send_to(b"?\n", node_addr).expect("sent");
            socket.recv_from(&mut [0; 8]).expect("a packet");
            let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
            assert!(!stderr.contains("stale"), "{family:?} {bind:?} {stderr}");
            assert_eq!(entries_from_host(&net, family), 1);
        }
    }
}
