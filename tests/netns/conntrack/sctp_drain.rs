//! `--drain` with SCTP, in hand-made packets: the kernel of a test machine may have no SCTP sockets,
//! but it tracks SCTP.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use nix::libc::SOCK_RAW;
use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, Net, expect_parts, nodefwd,
};

/// RFC 9260, section 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Init = 1,
    InitAck = 2,
    Abort = 6,
    Shutdown = 7,
    ShutdownAck = 8,
    CookieEcho = 10,
    CookieAck = 11,
    ShutdownComplete = 14,
}

/// The verification tag that each side wants in the other's packets.
const CLIENT_TAG: u32 = 0x0c0c_0c0c;
const SERVER_TAG: u32 = 0x0505_0505;

struct Host(Socket);

impl Host {
    fn new() -> Self {
        let socket = Socket::new(
            Domain::IPV4,
            Type::from(SOCK_RAW),
            Some(Protocol::from(132)),
        );
        let socket = socket.expect("a raw socket");
        let set = socket.set_read_timeout(Some(EVENT_TIMEOUT));
        set.expect("a read timeout");
        Host(socket)
    }

    fn send(&self, from: u16, to: SocketAddr, tag: u32, chunk: Chunk) {
        // RFC 9260, sections 3.1 and 3.3.2: ports, tag, checksum, and a chunk with a tag, a window,
        // two numbers of streams and a sequence number. Tracking needs no more of any chunk.
        let mut packet = Vec::new();
        packet.extend(from.to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend(tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend([chunk as u8, 0, 0, 20]);
        let wanted = match chunk {
            Chunk::Init => CLIENT_TAG,
            _ => SERVER_TAG,
        };
        packet.extend(wanted.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let sent = self.0.send_to(&packet, &SocketAddr::new(to.ip(), 0).into());
        sent.expect("sent");
    }

    /// Waits for this chunk from or to a port, and gives its source.
    fn receive(&self, port: u16, chunk: Chunk) -> SocketAddr {
        loop {
            let mut packet = [0; 256];
            let length = (&self.0).read(&mut packet).expect("a packet");
            // After an IPv4 header without options (RFC 791).
            let source: [u8; 4] = packet[12..16].try_into().expect("an address");
            let sctp = &packet[20..length];
            let number = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
            if sctp[12] == chunk as u8 && [number(0), number(2)].contains(&port) {
                return SocketAddr::new(IpAddr::from(source), number(0));
            }
        }
    }
}

/// An SCTP connection from one of the client's ports.
struct Association<'a> {
    client: &'a Host,
    server: &'a Host,
    from: u16,
    node_addr: SocketAddr,
    /// The client's address as the server sees it.
    seen: SocketAddr,
}

impl<'a> Association<'a> {
    /// The client's INIT has arrived; the server has not replied yet.
    fn begin(client: &'a Host, server: &'a Host, from: u16, node_addr: SocketAddr) -> Self {
        client.send(from, node_addr, 0, Chunk::Init);
        let seen = server.receive(BACKEND_PORT, Chunk::Init);
        Association {
            client,
            server,
            from,
            node_addr,
            seen,
        }
    }

    fn client_sends(&self, chunk: Chunk) {
        self.client
            .send(self.from, self.node_addr, SERVER_TAG, chunk);
        assert_eq!(self.server.receive(BACKEND_PORT, chunk), self.seen);
    }

    fn server_sends(&self, chunk: Chunk) {
        self.server.send(BACKEND_PORT, self.seen, CLIENT_TAG, chunk);
        assert_eq!(self.client.receive(self.from, chunk), self.node_addr);
    }
}

/// The kernel keeps the entry of a connection that is over for a while, here for an hour; a drain must
/// not wait for that. The entry of one whose INIT has no reply yet is in the same state, but that
/// connection is not over.
#[test]
fn a_drain_waits_for_running_sctp_connections_and_not_for_closed_ones() {
    let net = Net::new(1);
    let backend = net.backends[0].address(Family::V4);
    let forward = format!("sctp/{FORWARDED_PORT}={backend}:{BACKEND_PORT}");
    let mut forwarder = nodefwd([&forward, "--drain=3600"]).start(&net.node);
    net.node
        .set_sysctl("net/netfilter/nf_conntrack_checksum", "0");
    net.node
        .set_sysctl("net/netfilter/nf_conntrack_sctp_timeout_closed", "3600");
    let (client, server) = (net.client.run(Host::new), net.backends[0].run(Host::new));
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let [closed, running, starting] =
        [4001, 4002, 4003].map(|from| Association::begin(&client, &server, from, node_addr));
    for association in [&closed, &running] {
        association.server_sends(Chunk::InitAck);
        association.client_sends(Chunk::CookieEcho);
        association.server_sends(Chunk::CookieAck);
    }
    let close = |association: &Association| {
        association.client_sends(Chunk::Shutdown);
        association.server_sends(Chunk::ShutdownAck);
        association.client_sends(Chunk::ShutdownComplete);
    };
    close(&closed);

    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(2);
    close(&running);
    starting.server_sends(Chunk::InitAck);
    starting.server_sends(Chunk::Abort);
    forwarder.wait_until_drained();
    let stderr = forwarder.finish().expect_exit(0).stderr;
    expect_parts(&stderr, [" 0 running connections"]);
}
