//! Packets that conntrack finds invalid: those of forwarded connections are dropped and counted, and
//! the connections go on. All others are left alone.

use std::net::SocketAddr;

use serde_json::Value;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Namespace, Net, Nodefwd, Protocol, RawTcp, Segment,
    Server, expect_parts, flags, forward_to, has_fast_path, nodefwd, wait_until,
};

/// Who sends segments that are out of window.
#[derive(Clone, Copy, Debug)]
pub enum Sender {
    Client,
    Backend,
}

/// How far they are ahead of what the other side expects: its window is one of a new connection.
const AHEAD: [u32; 2] = [200_000, 10_000_000];

/// How many invalid packets the instance has dropped.
pub fn invalid(node: &Namespace) -> u64 {
    let call = nodefwd(["status", "--format=json"]);
    let status: Value = serde_json::from_str(&call.finish(node).expect_success()).expect("JSON");
    status["instances"][0]["invalid"]
        .as_u64()
        .expect("a number")
}

/// Has the client, or the backend at this port, send segments out of window on a new connection, which
/// must live on. It drops and counts each of them, unless the connection is in a flowtable: there they are passed on,
/// and the other side drops them.
#[track_caller]
pub fn expect_survival(net: &Net, sender: Sender, to: SocketAddr, backend_port: u16) {
    let backend = &net.backends[0];
    let taps = [&net.client, backend].map(|host| RawTcp::open(host, to.ip()));
    let mut flow = net.client.live_flow(Protocol::Tcp, to);
    let (tap, from, peer) = match sender {
        Sender::Client => (&taps[0], flow.source(), to),
        Sender::Backend => {
            let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
            let from = SocketAddr::new(backend.address(family), backend_port);
            (&taps[1], from, flow.reply.source)
        }
    };
    let before = invalid(&net.node);
    let last = tap.receive_data(peer.port(), from.port());
    for ahead in AHEAD {
        tap.send(from, peer, out_of_window(last, ahead));
    }
    let awaited = format!("the {sender:?}'s segments on a connection to {to} are dropped");
    let all = before + AHEAD.len() as u64;
    if !has_fast_path() {
        wait_until(&awaited, || invalid(&net.node), |count| *count == all);
    }
    flow.expect_unchanged();
}

/// Data with the right acknowledgement, so far ahead of what comes next.
fn out_of_window(last_received: Segment, ahead: u32) -> Segment {
    Segment {
        sequence: last_received.acknowledgement.wrapping_add(ahead),
        acknowledgement: (last_received.sequence).wrapping_add(last_received.length as u32),
        flags: flags::PSH | flags::ACK,
        length: 10,
    }
}

fn serve(net: &Net, ports: &[u16]) -> Vec<Server> {
    let ports = ports.iter();
    ports.map(|port| net.backends[0].serve(*port)).collect()
}

/// The shapes of a forward, with a port of each and the backend's: single, a range to the same ports, to
/// others, and to one port.
const SHAPES: [(&str, &str, u16, u16); 4] = [
    ("80", ":8080", 80, 8080),
    ("8100-8101", "", 8100, 8100),
    ("7200-7201", ":8200-8201", 7201, 8201),
    ("7300-7301", ":8300", 7300, 8300),
];

/// A call with these options that forwards every shape.
fn shapes(net: &Net, options: &[&str]) -> Nodefwd {
    let [v4, v6] = Family::BOTH.map(|family| net.backends[0].address(family));
    let forwards = SHAPES.iter().flat_map(|(ports, to, ..)| {
        [v4.to_string(), format!("[{v6}]")].map(|address| format!("tcp/{ports}={address}{to}"))
    });
    nodefwd(forwards).args(options)
}

#[test]
fn a_connection_survives_segments_out_of_window_whatever_is_forwarded() {
    let net = Net::new(1);
    let ports = SHAPES.map(|(.., port)| port);
    let _servers = serve(&net, &ports);
    for masquerade in ["--masquerade=true", "--masquerade=false"] {
        let _forwarder = shapes(&net, &[masquerade]).start(&net.node);
        for family in Family::BOTH {
            for (.., port, backend_port) in SHAPES {
                for sender in [Sender::Client, Sender::Backend] {
                    expect_survival(&net, sender, net.node_addr(family, port), backend_port);
                }
            }
        }
    }
}

#[test]
fn a_connection_survives_segments_out_of_window_with_every_option() {
    let net = Net::new(1);
    let _server = serve(&net, &[BACKEND_PORT]);
    let listen = Family::BOTH.map(|family| net.client.gateway(family).to_string());
    let listen = format!("--listen={}", listen.join(","));
    for options in [
        &[&*listen][..],
        &[&listen, "--masquerade=false"],
        &["--listen=any"],
        &["--listen=any", "--masquerade=false"],
        &["--output"],
        &["--src-ranges=10.1.0.0/16,fd00:1::/32"],
        &["--owner=false", "--hairpin"],
    ] {
        let _forwarder = shapes(&net, options).start(&net.node);
        for family in Family::BOTH {
            for sender in [Sender::Client, Sender::Backend] {
                let to = net.node_addr(family, FORWARDED_PORT);
                expect_survival(&net, sender, to, BACKEND_PORT);
            }
        }
    }
}

/// What a router in the client's way takes for the client's segment to another host is a segment of the
/// forwarded connection, and that host would answer it with RST.
#[test]
fn a_connection_to_another_host_survives_too_where_those_are_forwarded() {
    let net = Net::new(2);
    let _servers = serve(&net, &[BACKEND_PORT]);
    for masquerade in ["--masquerade=true", "--masquerade=false"] {
        let call = shapes(&net, &["--listen=any", masquerade]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let to = SocketAddr::new(net.backends[1].address(family), FORWARDED_PORT);
            for sender in [Sender::Client, Sender::Backend] {
                expect_survival(&net, sender, to, BACKEND_PORT);
            }
        }
    }
}

#[test]
fn a_balanced_connection_survives_segments_out_of_window() {
    let net = Net::new(1);
    // Both destinations are one host.
    let _servers = serve(&net, &[BACKEND_PORT, 8081]);
    for masquerade in ["--masquerade=true", "--masquerade=false"] {
        let [v4, v6] = Family::BOTH.map(|family| net.backends[0].address(family));
        let forward = format!("tcp/80={v4}:8080,{v4}:8081,[{v6}]:8080,[{v6}]:8081");
        let _forwarder = nodefwd([&*forward, "--balance=round-robin", masquerade]).start(&net.node);
        for family in Family::BOTH {
            let to = net.node_addr(family, FORWARDED_PORT);
            for _ in 0..2 {
                expect_survival(&net, Sender::Client, to, BACKEND_PORT);
            }
        }
    }
}

/// The node's stack answers it, as it would without nodefwd.
#[track_caller]
fn expect_reset(net: &Net, to: SocketAddr) {
    let tap = RawTcp::open(&net.client, to.ip());
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let from = SocketAddr::new(net.client.address(family), 40_000);
    // Conntrack takes ACK without SYN for the middle of a connection, but not FIN.
    tap.send(
        from,
        to,
        Segment {
            sequence: 1,
            acknowledgement: 1,
            flags: flags::FIN | flags::ACK,
            length: 0,
        },
    );
    let is_reset = |segment: &Segment| segment.flags & flags::RST != 0;
    tap.receive(to.port(), from.port(), is_reset);
}

#[test]
fn invalid_packets_to_ports_and_addresses_that_are_not_forwarded_are_left_alone() {
    let net = Net::new(1);
    let other = net.another_client(2);
    for masquerade in ["--masquerade=true", "--masquerade=false"] {
        let listen = Family::BOTH.map(|family| net.client.gateway(family).to_string());
        let listen = format!("--listen={}", listen.join(","));
        let _forwarder = shapes(&net, &[masquerade, &listen]).start(&net.node);
        for family in Family::BOTH {
            expect_reset(&net, net.node_addr(family, 81));
            // The destination's port is not forwarded, nor is another address of the node.
            expect_reset(&net, net.node_addr(family, BACKEND_PORT));
            expect_reset(&net, SocketAddr::new(other.gateway(family), FORWARDED_PORT));
        }
        assert_eq!(invalid(&net.node), 0);
    }
}

/// The other side of a connection that is only routed gets its segments, and ignores them.
#[test]
fn a_connection_that_is_only_routed_survives_too_and_nothing_of_it_is_dropped() {
    let net = Net::new(1);
    let _servers = serve(&net, &[BACKEND_PORT, 8081]);
    for masquerade in ["--masquerade=true", "--masquerade=false"] {
        let _forwarder = shapes(&net, &[masquerade]).start(&net.node);
        for family in Family::BOTH {
            let to = SocketAddr::new(net.backends[0].address(family), 8081);
            let taps = [&net.client, &net.backends[0]].map(|host| RawTcp::open(host, to.ip()));
            let mut flow = net.client.live_flow(Protocol::Tcp, to);
            let ends = [flow.source(), to];
            let last =
                [0, 1].map(|end| taps[end].receive_data(ends[1 - end].port(), ends[end].port()));
            for (from, to) in [(0, 1), (1, 0)] {
                for ahead in AHEAD {
                    let segment = out_of_window(last[from], ahead);
                    taps[from].send(ends[from], ends[to], segment);
                    let arrives = |seen: &Segment| seen.sequence == segment.sequence;
                    taps[to].receive(ends[from].port(), ends[to].port(), arrives);
                }
            }
            flow.expect_unchanged();
        }
        assert_eq!(invalid(&net.node), 0);
    }
}

#[test]
fn invalid_packets_are_shown_in_every_format() {
    let net = Net::new(1);
    let _server = serve(&net, &[BACKEND_PORT]);
    let call = forward_to(Protocol::Tcp, &net.backends).env("NODEFWD_FAST_PATH", "off");
    let _forwarder = call.start(&net.node);
    let status = |format| {
        let call = nodefwd(["status", "--format", format]);
        call.finish(&net.node).expect_success()
    };
    let metric = "nodefwd_invalid_packets_total{forwarder=\"tcp-80\"}";
    expect_parts(&status("prometheus"), [format!("{metric} 0\n")]);
    let text = status("text");
    assert!(!text.contains("invalid"), "{text}");
    let to = net.node_addr(Family::V4, FORWARDED_PORT);
    expect_survival(&net, Sender::Backend, to, BACKEND_PORT);
    let counted = |shown: &String| shown.contains(&format!("{metric} 2\n"));
    wait_until("the count", || status("prometheus"), counted);
    expect_parts(&status("text"), ["dropped as invalid: 2"]);
}
