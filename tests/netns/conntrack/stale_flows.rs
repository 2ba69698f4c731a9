//! Conntrack entries from before a start, and those that would outlive a stop.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, Connection, EVENT_TIMEOUT, FORWARDED_PORT, Family, Host, LiveFlow, Namespace,
    Net, Process, Protocol, Reply, SILENCE_TIMEOUT, addresses, forward_to,
};

/// How many flows of other programs one start and stop must leave alone.
pub const FOREIGN_FLOWS: usize = 100_000;

/// Another program's NAT rules, which forward a port of their own to the first backend. With them the
/// kernel tracks every flow, and goes on translating those that it has entries for.
const SIBLING: &str = "table inet sibling {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        udp dport 54 dnat ip to 10.2.1.2:8080
        udp dport 54 dnat ip6 to [fd00:2:1::2]:8080
    }
}";

/// The port that the sibling forwards.
const SIBLINGS_PORT: u16 = 54;

/// A net with the sibling's rules on the node, where no entry expires.
pub fn net_with_sibling(backends: u8) -> Net {
    let net = Net::new(backends);
    net.node.load(SIBLING);
    net.node.keep_udp_entries();
    net
}

/// Kills an instance, which then cannot delete any entry, and waits until its rules are gone.
pub fn crash(net: &Net, forwarder: Process) {
    forwarder.stop(Signal::SIGKILL);
    let ruleset = net.node.ruleset();
    let tables = ruleset
        .lines()
        .filter_map(|line| line.strip_prefix("table inet "));
    let names = tables.filter_map(|table| table.split(' ').next());
    for name in names.filter(|name| name.starts_with("nodefwd-")) {
        net.node.wait_for_removal(name);
    }
}

/// A flow of each family to the forwarded port.
fn live_flows(net: &Net, client: &Host, protocol: Protocol) -> [LiveFlow; 2] {
    let node_addrs = Family::BOTH.map(|family| net.node_addr(family, FORWARDED_PORT));
    node_addrs.map(|node_addr| client.live_flow(protocol, node_addr))
}

/// The entries of the flows to the forwarded port.
fn forwarded_entries(net: &Net, protocol: Protocol, family: Family) -> BTreeSet<String> {
    let port = FORWARDED_PORT.to_string();
    let selection = ["--proto", protocol.name(), "--orig-port-dst", &port];
    net.node.conntrack_entries(family, &selection)
}

/// Sends requests from one port without a pause until there is a reply. Reports every refusal.
pub fn request_until_reply(mut flow: Connection, refused: &Sender<()>) -> Option<Reply> {
    flow.set_read_timeout(Duration::from_millis(10));
    let deadline = Instant::now() + 2 * EVENT_TIMEOUT;
    while Instant::now() < deadline {
        match flow.request() {
            Ok(reply) => return Some(reply),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                // Only the first one is received.
                let _ = refused.send(());
            }
            // The kernel limits how often it says that a port is closed.
            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
        }
    }
    None
}

fn a_client_that_never_stops_sending_is_forwarded(net: &Net) {
    let _servers = net.serve(BACKEND_PORT);
    for family in Family::BOTH {
        let node_addr = net.node_addr(family, FORWARDED_PORT);
        let flow = net.client.connect(Protocol::Udp, node_addr);
        let flow = flow.expect("a socket");
        let (sender, refused) = channel();
        thread::scope(|scope| {
            let client = scope.spawn(move || request_until_reply(flow, &sender));
            refused.recv_timeout(EVENT_TIMEOUT).expect("a refusal");
            let forwarder = forward_to(Protocol::Udp, &net.backends).start(&net.node);
            let reply = client.join().expect("no panic").expect("a reply");
            assert_eq!(reply.server, "backend-1");
            // The next client is to be refused first, and not every kernel removes the rules of a killed instance.
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        });
    }
}

#[test]
fn a_udp_client_that_never_stops_sending_is_forwarded_after_a_start() {
    a_client_that_never_stops_sending_is_forwarded(&Net::new(1));
}

#[test]
fn a_udp_client_is_forwarded_after_a_start_though_other_nat_keeps_its_entry() {
    a_client_that_never_stops_sending_is_forwarded(&net_with_sibling(1));
}

#[test]
fn a_udp_flow_to_a_backend_that_is_no_longer_listed_moves_to_another() {
    let net = net_with_sibling(2);
    let _servers = net.serve(BACKEND_PORT);
    let forwarder = forward_to(Protocol::Udp, &net.backends[..1]).start(&net.node);
    let flows = live_flows(&net, &net.client, Protocol::Udp);
    crash(&net, forwarder);

    let _forwarder = forward_to(Protocol::Udp, &net.backends[1..]).start(&net.node);
    for mut flow in flows {
        assert_eq!(flow.reply.server, "backend-1");
        assert_eq!(flow.request().expect("a reply").server, "backend-2");
    }
}

/// Also if backends other than the flow's own are added or removed.
#[test]
fn a_healthy_flow_survives_a_crash_and_a_restart() {
    let net = net_with_sibling(2);
    let _servers = net.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let mut forwarder = forward_to(protocol, &net.backends[..1]).start(&net.node);
        let mut flows = live_flows(&net, &net.client, protocol);
        let entries = || Family::BOTH.map(|family| forwarded_entries(&net, protocol, family));
        let before = entries();
        assert!(before.iter().all(|flows| flows.len() == 1), "{before:?}");
        for hosts in [&net.backends[..1], &net.backends, &net.backends[..1]] {
            crash(&net, forwarder);
            forwarder = forward_to(protocol, hosts).start(&net.node);
            flows.iter_mut().for_each(LiveFlow::expect_unchanged);
            assert_eq!(entries(), before, "{protocol:?}");
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

#[test]
fn a_start_ends_the_flows_of_sources_that_are_no_longer_allowed() {
    let net = net_with_sibling(1);
    let other = net.another_client(2);
    let _servers = net.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends);
        let forwarder = call.start(&net.node);
        let denied = live_flows(&net, &net.client, protocol);
        let mut allowed = live_flows(&net, &other, protocol);
        crash(&net, forwarder);

        let call = call.env("SRC_RANGES", addresses(&other));
        let forwarder = call.start(&net.node);
        for mut flow in denied {
            flow.expect_silence();
        }
        allowed.iter_mut().for_each(LiveFlow::expect_unchanged);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

#[test]
fn a_stop_ends_its_flows_though_other_nat_rules_would_keep_them_alive() {
    let net = net_with_sibling(1);
    let _servers = net.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let closed = match protocol {
            Protocol::Tcp => ErrorKind::ConnectionReset,
            Protocol::Udp => ErrorKind::ConnectionRefused,
        };
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let forwarder = forward_to(protocol, &net.backends).start(&net.node);
            let flows = live_flows(&net, &net.client, protocol);
            forwarder.stop(signal).expect_exit(0);
            for (mut flow, family) in flows.into_iter().zip(Family::BOTH) {
                assert_eq!(forwarded_entries(&net, protocol, family), BTreeSet::new());
                assert_eq!(flow.expect_closed(), closed, "{protocol:?} {family:?}");
            }
        }
    }
}

/// How many flows there are of each kind and family.
const EACH: usize = 40;

/// Flows that differ from the forwarder's in one thing only.
fn foreign_flows(net: &Net) -> Vec<Connection> {
    let [backend, other] = net.two_backends();
    let mut flows = Vec::new();
    for family in Family::BOTH {
        let at = |host: &Host, port| SocketAddr::new(host.address(family), port);
        let udp: [(&Namespace, SocketAddr); 7] = [
            // another port of the node, and the one that the sibling forwards to the same backend
            (&net.client, net.node_addr(family, FORWARDED_PORT + 1)),
            (&net.client, net.node_addr(family, SIBLINGS_PORT)),
            // the same port of another host, and the backend itself
            (&net.client, at(other, FORWARDED_PORT)),
            (&net.client, at(backend, BACKEND_PORT)),
            // the node's own, and the backend's own
            (&net.node, net.node_addr(family, FORWARDED_PORT)),
            (&net.node, at(backend, BACKEND_PORT)),
            (
                backend,
                SocketAddr::new(backend.gateway(family), FORWARDED_PORT),
            ),
        ];
        let tcp = [(&*net.client, at(other, FORWARDED_PORT))];
        for (protocol, kinds) in [(Protocol::Udp, &udp[..]), (Protocol::Tcp, &tcp)] {
            for (from, to) in kinds.iter().flat_map(|kind| [*kind; EACH]) {
                let mut flow = from.connect(protocol, to).expect("a connection");
                // Some are refused or get no reply, but all are tracked.
                flow.set_read_timeout(SILENCE_TIMEOUT);
                let _ = flow.request();
                flows.push(flow);
            }
        }
    }
    flows
}

#[test]
fn flows_that_are_not_its_own_are_never_touched() {
    let net = net_with_sibling(2);
    let [backend, other] = net.two_backends();
    let _servers = [backend.serve(BACKEND_PORT), other.serve(FORWARDED_PORT)];
    let _foreign = foreign_flows(&net);
    let all = || Family::BOTH.map(|family| net.node.conntrack_entries(family, &[]));
    let before = all();
    for family in &before {
        assert!(family.len() >= 8 * EACH, "{} flows", family.len());
    }
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends[..1]);
        let crashing = call.start(&net.node);
        let _stale = live_flows(&net, &net.client, protocol);
        crash(&net, crashing);
        // Denies the client, so that the start has entries to delete.
        let denying = call.clone().env("SRC_RANGES", addresses(other));
        let forwarder = denying.start(&net.node);
        assert_eq!(all(), before, "{protocol:?}: started");
        forwarder.stop(Signal::SIGTERM).expect_exit(0);

        let forwarder = call.start(&net.node);
        let _ours = live_flows(&net, &net.client, protocol);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(all(), before, "{protocol:?}: stopped");
    }
}

/// As many flows to another host as a busy node has, made from two ports; gives their entries.
fn many_foreign_flows(net: &Net) -> BTreeSet<String> {
    let other = net.backends[1].address(Family::V4);
    let send = || {
        for source in [20_001, 20_002] {
            let socket = UdpSocket::bind(("0.0.0.0", source)).expect("a socket");
            for port in 1..=(FOREIGN_FLOWS / 2) as u16 {
                // It may be refused; that is a flow too.
                let _ = socket.send_to(b"hello", (other, port));
            }
        }
    };
    let deadline = Instant::now() + EVENT_TIMEOUT;
    loop {
        net.client.run(send);
        let entries = net.node.conntrack_entries(Family::V4, &[]);
        // A datagram is lost where a queue is full.
        if entries.len() >= FOREIGN_FLOWS {
            return entries;
        }
        assert!(Instant::now() < deadline, "only {} flows", entries.len());
    }
}

#[test]
fn of_a_hundred_thousand_flows_that_are_not_its_own_none_is_lost() {
    let net = net_with_sibling(2);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let stale = net.client.connect(Protocol::Udp, node_addr);
    let mut stale = stale.expect("a socket");
    // It is not forwarded yet.
    stale.expect_closed();
    let stale_entry = forwarded_entries(&net, Protocol::Udp, Family::V4);
    assert_eq!(stale_entry.len(), 1);
    let all = many_foreign_flows(&net);
    let foreign: BTreeSet<String> = all.difference(&stale_entry).cloned().collect();

    let entries = || net.node.conntrack_entries(Family::V4, &[]);
    let forwarder = forward_to(Protocol::Udp, &net.backends[..1]).start(&net.node);
    assert!(entries() == foreign, "the start has changed other entries");
    stale.request().expect("a reply");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert!(entries() == foreign, "the stop has changed other entries");
}
