//! SCTP, in packets made by hand: the kernel of a test machine may have no such sockets, but it
//! tracks the connections.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use nix::libc::SOCK_RAW;
use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::fixture::{BACK, FRONT};
use crate::fixture::{Family, LIMIT, Net, nodefwd};

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

/// What each side asks the other to put into its packets.
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
        let limited = socket.set_read_timeout(Some(LIMIT));
        limited.expect("a time limit");
        Host(socket)
    }

    fn send(&self, from: u16, to: SocketAddr, tag: u32, chunk: Chunk) {
        // RFC 9260, sections 3.1 and 3.3.2: ports, tag, checksum, and a chunk with a tag, a window,
        // two numbers of streams and a sequence number. No chunk needs more for being tracked.
        let mut packet = Vec::new();
        packet.extend(from.to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend(tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend([chunk as u8, 0, 0, 20]);
        let asked = match chunk {
            Chunk::Init => CLIENT_TAG,
            _ => SERVER_TAG,
        };
        packet.extend(asked.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let sent = self.0.send_to(&packet, &SocketAddr::new(to.ip(), 0).into());
        sent.expect("sent");
    }

    /// Waits for this chunk from or to a port; says where it came from.
    fn receive(&self, port: u16, chunk: Chunk) -> SocketAddr {
        loop {
            let mut packet = [0; 256];
            let length = (&self.0).read(&mut packet).expect("a packet");
            // Behind an IPv4 header without options (RFC 791).
            let source: [u8; 4] = packet[12..16].try_into().expect("an address");
            let sctp = &packet[20..length];
            let number = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
            if sctp[12] == chunk as u8 && [number(0), number(2)].contains(&port) {
                return SocketAddr::new(IpAddr::from(source), number(0));
            }
        }
    }
}

/// A connection from one of the client's ports.
struct Association<'a> {
    client: &'a Host,
    server: &'a Host,
    from: u16,
    front: SocketAddr,
    /// Where the server sees the client.
    seen: SocketAddr,
}

impl<'a> Association<'a> {
    /// The client asks for it, and the server has not answered yet.
    fn begin(client: &'a Host, server: &'a Host, from: u16, front: SocketAddr) -> Self {
        client.send(from, front, 0, Chunk::Init);
        let seen = server.receive(BACK, Chunk::Init);
        Association {
            client,
            server,
            from,
            front,
            seen,
        }
    }

    fn ask(&self, chunk: Chunk) {
        self.client.send(self.from, self.front, SERVER_TAG, chunk);
        assert_eq!(self.server.receive(BACK, chunk), self.seen);
    }

    fn answer(&self, chunk: Chunk) {
        self.server.send(BACK, self.seen, CLIENT_TAG, chunk);
        assert_eq!(self.client.receive(self.from, chunk), self.front);
    }
}

/// The kernel remembers a connection that is over for a while, here for an hour; a drain must not
/// wait for that. One that is only asked for is in the same state, but not over.
#[test]
fn a_drain_waits_for_what_runs_and_not_for_what_is_over() {
    let net = Net::new(1);
    let destination = net.backends[0].address(Family::V4);
    let forward = format!("sctp/{FRONT}={destination}:{BACK}");
    let mut forwarder = nodefwd([&forward, "--drain=3600"]).start(&net.node);
    net.node
        .set_sysctl("net/netfilter/nf_conntrack_checksum", "0");
    net.node
        .set_sysctl("net/netfilter/nf_conntrack_sctp_timeout_closed", "3600");
    let (client, server) = (net.client.run(Host::new), net.backends[0].run(Host::new));
    let front = net.front(Family::V4, FRONT);
    let [closed, running, asked] =
        [4001, 4002, 4003].map(|from| Association::begin(&client, &server, from, front));
    for association in [&closed, &running] {
        association.answer(Chunk::InitAck);
        association.ask(Chunk::CookieEcho);
        association.answer(Chunk::CookieAck);
    }
    let close = |association: &Association| {
        association.ask(Chunk::Shutdown);
        association.answer(Chunk::ShutdownAck);
        association.ask(Chunk::ShutdownComplete);
    };
    close(&closed);

    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining: 2 connections");
    close(&running);
    asked.answer(Chunk::InitAck);
    asked.answer(Chunk::Abort);
    forwarder.wait_for_line("drained");
    let stderr = forwarder.finish().expect_exit(0).stderr;
    assert!(stderr.contains(" 0 running connections"), "{stderr}");
}
