//! `--drain`: running connections may end after the signal, before the instance does.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::stale_flows::crash;
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, ForwardedConnection, Namespace, Net, Protocol,
    expect_parts, expect_reply, forward_to,
};

/// So long that no test reaches its end.
const LONG: &str = "--drain=3600";

#[test]
fn while_it_drains_running_connections_go_on_and_new_ones_are_refused() {
    for family in Family::BOTH {
        let forwarded = ForwardedConnection::start(family, |call| call.args(&[LONG]));
        let mut second = forwarded.another_flow();
        let ForwardedConnection {
            flow: mut first,
            node_addr,
            mut forwarder,
            server: _server,
            net,
        } = forwarded;
        let source = net.backends[0].gateway(family);
        expect_reply(second.request(), "backend-1", source);

        forwarder.signal(Signal::SIGTERM);
        forwarder.wait_until_draining(2);
        net.client.expect_refused(Protocol::Tcp, node_addr);
        expect_reply(first.request(), "backend-1", source);
        drop(first);
        expect_reply(second.request(), "backend-1", source);
        drop(second);
        forwarder.wait_until_drained();
        let stderr = forwarder.finish().expect_exit(0).stderr;
        // The kernel still has entries of both, but neither runs.
        expect_parts(&stderr, [" 0 running connections"]);
        assert_eq!(net.node.ruleset(), "");
    }
}

#[test]
fn without_connections_it_ends_at_once() {
    let net = Net::new(1);
    let call = forward_to(Protocol::Tcp, &net.backends).args(&[LONG]);
    let mut forwarder = call.start(&net.node);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(0);
    forwarder.finish().expect_exit(0);
}

#[test]
fn a_second_signal_cuts_the_drain_short() {
    let mut forwarded = ForwardedConnection::start(Family::V4, |call| call.args(&[LONG]));
    let forwarder = &mut forwarded.forwarder;
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(1);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining is cut short");
    forwarded.forwarder.finish().expect_exit(0);
    assert_eq!(forwarded.net.node.ruleset(), "");
}

#[test]
fn at_the_limit_it_ends() {
    let mut forwarded = ForwardedConnection::start(Family::V4, |call| call.args(&["--drain=1"]));
    let begin = Instant::now();
    forwarded.forwarder.signal(Signal::SIGTERM);
    forwarded.forwarder.wait_for_line("draining is over");
    forwarded.forwarder.finish().expect_exit(0);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(forwarded.net.node.ruleset(), "");
}

/// The kernel then sends no events of connections.
#[test]
fn without_events_of_conntrack_it_ends_with_the_last_connection() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let events = "net/netfilter/nf_conntrack_events";
    net.node.set_sysctl(events, "0");
    for family in Family::BOTH {
        let call = forward_to(Protocol::Tcp, &net.backends).args(&[LONG]);
        let mut forwarder = call.start(&net.node);
        let node_addr = net.node_addr(family, FORWARDED_PORT);
        let mut flow = net.client.live_flow(Protocol::Tcp, node_addr);
        forwarder.signal(Signal::SIGTERM);
        forwarder.wait_until_draining(1);
        flow.expect_unchanged();
        drop(flow);
        forwarder.wait_until_drained();
        forwarder.finish().expect_exit(0);
    }
}

/// Conntrack does not see the end of a connection while no rules need it, so its entry stays as of one that runs, for
/// five days. One that has sent since the start runs.
#[test]
fn what_a_killed_instance_has_left_is_not_waited_for_unless_it_goes_on() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let call = forward_to(Protocol::Tcp, &net.backends).args(&[LONG]);
    for family in Family::BOTH {
        let to = net.node_addr(family, FORWARDED_PORT);
        let killed = call.start(&net.node);
        let [dead, mut alive] = [(); 2].map(|()| net.client.live_flow(Protocol::Tcp, to));
        crash(&net, killed);
        drop(dead);
        // The kernel tells times in seconds.
        thread::sleep(Duration::from_secs(3));
        let mut forwarder = call.start(&net.node);
        alive.expect_unchanged();
        forwarder.signal(Signal::SIGTERM);
        forwarder.wait_for_line("not waiting for 1 connections that idle since before the start");
        forwarder.wait_until_draining(1);
        alive.expect_unchanged();
        drop(alive);
        forwarder.wait_until_drained();
        forwarder.finish().expect_exit(0);
    }
}

/// How many flows others make and end while it drains, and how many of theirs are there all the time: enough for
/// the kernel to be asked for each port by itself.
pub const FLOOD: usize = 50_000;
pub const OTHERS: usize = 20_000;

/// Makes flows from the host itself to as many closed ports of one of its addresses.
fn make_flows(node: &Namespace, address: &str, count: usize) {
    node.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for port in 1..=count as u16 {
            // The port is closed, which may be an error here.
            let _ = socket.send_to(b"?", (address, port));
        }
    });
}

/// Makes flows, and deletes their conntrack entries.
fn flood(node: &Namespace) {
    for _ in 0..10 {
        make_flows(node, "127.0.0.1", FLOOD / 10);
        let deletion = ["-D", "-p", "udp", "--orig-dst", "127.0.0.1"];
        node.output("conntrack", &deletion).expect_exit(0);
    }
}

/// Whatever others do, it asks the kernel at most once a second, and only for its own flows: all entries would be
/// over a hundred datagrams.
#[test]
fn connections_of_others_cost_a_draining_instance_nothing() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drain");
    let output = format!("--output={}", file.display());
    let strace = ["--trace=sendto,recvmsg", "--decode-fds=all", &output];
    let forwarded =
        ForwardedConnection::start(Family::V4, |call| call.args(&[LONG]).traced(&strace));
    let ForwardedConnection {
        net,
        mut forwarder,
        mut flow,
        server: _server,
        ..
    } = forwarded;
    net.node.keep_udp_entries();
    make_flows(&net.node, "127.0.0.2", OTHERS);
    let begin = Instant::now();
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(1);
    flood(&net.node);
    let others = net.node.succeed("conntrack", &["--count"]);
    let others: usize = others.trim_end().parse().expect("a number");
    assert!(others > OTHERS - OTHERS / 100, "only {others} entries stay");
    flow.expect_unchanged();
    drop(flow);
    forwarder.wait_until_drained();
    forwarder.finish().expect_exit(0);
    let seconds = begin.elapsed().as_secs() as usize;
    let trace = fs::read_to_string(file).expect("a trace");
    let count = |call: &str, kind: &str| {
        let lines = trace.lines();
        lines
            .filter(|line| line.starts_with(call) && line.contains(kind))
            .count()
    };
    let requests = count("sendto", "IPCTNL_MSG_CT_GET");
    // One dump for each family at a look. There is one at the start, one when the drain begins and one for the stop,
    // and one more if the last second was begun only; many times more would be one for each change.
    let limit = 2 * (seconds + 6);
    assert!((2..=limit).contains(&requests), "{requests} in {seconds} s");
    let received = count("recvmsg", "NFNL_SUBSYS_CTNETLINK<<8|IPCTNL_MSG_CT_");
    // Of all entries it would be a hundred for each family.
    assert!(received <= 10 * requests, "{received} for {requests}");
}
