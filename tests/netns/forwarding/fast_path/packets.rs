//! What packets of flows in the flowtable look like, and what becomes of those that do not fit.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use socket2::SockRef;

use super::{
    COUNTER, Fast, INTERFACES, entry, expect_bypass, expect_taken, forward_both, forwarded,
};
use crate::fixture::{
    EVENT_TIMEOUT, FORWARDED_PORT, Family, Host, Net, PROTOCOLS_AND_FAMILIES, Protocol, RawTcp,
    Segment, flags, nodefwd, wait_until,
};
use crate::forwarding::clamp_mss::{BYTES, exchange, serve};

/// A segment far out of window is no reason to end a connection: in the flowtable it is passed on, and the peer drops
/// it.
#[test]
#[ignore = "needs flowtables"]
fn a_connection_survives_segments_out_of_window() {
    let fast = Fast::start(&[INTERFACES]);
    for family in Family::BOTH {
        let to = fast.net.node_addr(family, FORWARDED_PORT);
        let tap = RawTcp::open(&fast.net.client, to.ip());
        let mut flow = fast.flow(Protocol::Tcp, family);
        flow.expect_unchanged();
        let last = tap.receive_data(to.port(), flow.source().port());
        for ahead in [200_000, 10_000_000] {
            let segment = Segment {
                sequence: last.acknowledgement.wrapping_add(ahead),
                acknowledgement: last.sequence.wrapping_add(last.length as u32),
                flags: flags::PSH | flags::ACK,
                length: 10,
            };
            tap.send(flow.source(), to, segment);
            flow.expect_unchanged();
        }
    }
}

/// Sends as much as needs many full segments, and gets as much back.
#[track_caller]
fn expect_large_transfers(net: &Net, options: &[&str]) {
    let _forwarder = forward_both(&net.backends).args(options).start(&net.node);
    for family in Family::BOTH {
        serve(&net.backends[0], family);
        let to = net.node_addr(family, FORWARDED_PORT);
        let bytes = net.client.run(|| exchange(to, EVENT_TIMEOUT));
        let bytes = bytes.unwrap_or_else(|error| panic!("{family:?} {options:?}: {error}"));
        assert_eq!(bytes, BYTES, "{family:?} {options:?}");
    }
}

/// The client's host learns the MTU from the node, by ICMP.
#[test]
#[ignore = "needs flowtables"]
fn large_segments_fit_a_narrow_route() {
    let net = Net::new(1);
    for network in ["10.2.1.0/24", "fd00:2:1::/64"] {
        net.node.ip(&format!(
            "route replace {network} dev backend-1 mtu lock 1300"
        ));
    }
    expect_large_transfers(&net, &[INTERFACES]);
}

/// Frames that do not fit are lost without a word there.
#[test]
#[ignore = "needs flowtables"]
fn the_mss_is_clamped() {
    for (link, options) in [
        ("backend-1", &[INTERFACES, "--clamp-mss"][..]),
        (
            "client",
            &["--fast-path=auto", "--clamp-mss", "--masquerade=false"],
        ),
    ] {
        let net = Net::new(1);
        net.node.ip(&format!("link set {link} mtu 1300"));
        expect_large_transfers(&net, options);
    }
}

/// A client's UDP socket with a flow in the flowtable, which is told of ICMP errors.
fn udp_flow(fast: &Fast, family: Family) -> UdpSocket {
    let socket = fast.net.client.run(|| {
        let any = SocketAddr::new(fast.net.client.address(family), 0);
        UdpSocket::bind(any).expect("a socket")
    });
    let to = fast.net.node_addr(family, FORWARDED_PORT);
    socket.connect(to).expect("connected");
    match family {
        Family::V4 => setsockopt(&socket, Ipv4RecvErr, &true).expect("IP_RECVERR"),
        Family::V6 => setsockopt(&socket, Ipv6RecvErr, &true).expect("IPV6_RECVERR"),
    }
    let set = socket.set_read_timeout(Some(EVENT_TIMEOUT));
    set.expect("a read timeout");
    let port = socket.local_addr().expect("a port").port();
    wait_until(
        "a flow in the flowtable",
        || {
            ask(&socket, 1).expect("a reply");
            entry(&fast.net.node, Protocol::Udp, family, port)
        },
        |entry| entry.contains("[OFFLOAD]"),
    );
    socket
}

/// Sends so many bytes, and waits for the reply.
fn ask(socket: &UdpSocket, bytes: usize) -> std::io::Result<()> {
    socket.send(&vec![b'?'; bytes])?;
    socket.recv(&mut [0; 256]).map(|_| ())
}

#[test]
#[ignore = "needs flowtables"]
fn the_hop_limit_counts_down_and_ends_packets() {
    let fast = Fast::start(&[INTERFACES]);
    for family in Family::BOTH {
        let socket = udp_flow(&fast, family);
        let limit = |hops| match family {
            Family::V4 => SockRef::from(&socket).set_ttl_v4(hops).expect("a TTL"),
            Family::V6 => SockRef::from(&socket)
                .set_unicast_hops_v6(hops)
                .expect("a hop limit"),
        };
        // The node is one hop, the backend the next.
        limit(2);
        ask(&socket, 1).expect("a reply");
        limit(1);
        let error = ask(&socket, 1).expect_err("time exceeded");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{error}");
        limit(64);
        ask(&socket, 1).expect("a reply");
    }
}

#[test]
#[ignore = "needs flowtables"]
fn packets_that_are_too_big_get_an_error_or_are_fragmented() {
    let fast = Fast::start(&[INTERFACES]);
    let net = &fast.net;
    net.node.ip("link set backend-1 mtu 1300");
    net.backends[0].ip("link set eth0 mtu 1300");
    for family in Family::BOTH {
        let socket = udp_flow(&fast, family);
        // Path MTU discovery: the first tells the host, which refuses the second.
        let refused = || {
            let error = ask(&socket, 1400).err();
            error.and_then(|error| error.raw_os_error())
        };
        wait_until("an ICMP error", refused, |errno| {
            *errno == Some(nix::libc::EMSGSIZE)
        });
        // The host now fragments, or sends less.
        wait_until("a reply", || ask(&socket, 1000).is_ok(), |replied| *replied);
        let other = udp_flow(&fast, family);
        // More than any link takes at once.
        ask(&other, 4000).expect("a reply to fragments");
        ask(&other, 1).expect("a reply");
    }
}

/// The entry of a flow that one side alone uses, and its time-outs.
#[test]
#[ignore = "needs flowtables"]
fn a_udp_flow_that_is_busy_in_one_direction_only_does_not_time_out() {
    let fast = Fast::start(&[INTERFACES]);
    let node = &fast.net.node;
    for name in [
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
    ] {
        node.set_sysctl(&format!("net/netfilter/{name}"), "3");
    }
    node.set_sysctl("net/netfilter/nf_flowtable_udp_timeout", "2");
    for family in Family::BOTH {
        for from_client in [true, false] {
            one_way(&fast, family, from_client);
        }
    }
}

fn one_way(fast: &Fast, family: Family, from_client: bool) {
    let backend = &fast.net.backends[0];
    let bind = |host: &Host, port| {
        let address = SocketAddr::new(host.address(family), port);
        let socket = host.run(|| UdpSocket::bind(address)).expect("a socket");
        let set = socket.set_read_timeout(Some(EVENT_TIMEOUT));
        set.expect("a read timeout");
        socket
    };
    // The server of the backend has the port already.
    let [client, server] = [bind(&fast.net.client, 0), bind(backend, 9999)];
    let other = nodefwd([format!(
        "udp/99={}",
        SocketAddr::new(backend.address(family), 9999)
    )])
    .args(&[INTERFACES])
    .start(&fast.net.node);
    client
        .connect(fast.net.node_addr(family, 99))
        .expect("connected");
    let port = client.local_addr().expect("a port").port();
    let mut seen = None;
    for _ in 0..3 {
        client.send(b"?").expect("sent");
        let (_, source) = server.recv_from(&mut [0; 9]).expect("a packet");
        server.send_to(b"!", source).expect("sent");
        client.recv(&mut [0; 9]).expect("a reply");
        seen = Some(source);
    }
    let source = seen.expect("packets");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(8) {
        if from_client {
            client.send(b"?").expect("sent");
            let (_, from) = server.recv_from(&mut [0; 9]).expect("a packet");
            assert_eq!(from, source, "the flow has been replaced by another");
        } else {
            server.send_to(b"!", source).expect("sent");
            client.recv(&mut [0; 9]).expect("a packet");
        }
        thread::sleep(Duration::from_millis(200));
    }
    // An idle one does. It may have by now, on a slow machine.
    let entry = || entry(&fast.net.node, Protocol::Udp, family, port);
    wait_until("the end of an idle flow", entry, String::is_empty);
    drop(other);
}

/// A flow that idles leaves the flowtable, goes on, and comes back.
#[test]
#[ignore = "needs flowtables"]
fn an_idle_flow_comes_back() {
    let fast = Fast::start(&[INTERFACES]);
    let node = &fast.net.node;
    node.load(COUNTER);
    let set_timeouts = |seconds| {
        for name in ["tcp", "udp"] {
            node.set_sysctl(
                &format!("net/netfilter/nf_flowtable_{name}_timeout"),
                seconds,
            );
        }
    };
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        set_timeouts("1");
        let mut flow = fast.flow(protocol, family);
        let port = flow.source().port();
        let entry = || entry(node, protocol, family, port);
        wait_until("an entry out of the flowtable", entry, |entry| {
            !entry.contains("OFFLOAD")
        });
        let before = forwarded(node);
        flow.expect_unchanged();
        assert!(forwarded(node) > before);
        // So that it stays, however slow the machine is.
        set_timeouts("3600");
        expect_taken(node, protocol, family, &mut flow);
        expect_bypass(node, &mut flow);
    }
}
