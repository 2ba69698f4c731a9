//! `--drain`: running connections may end after the signal, before the instance does.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{
    Family, ForwardedConnection, Net, Protocol, expect_parts, expect_reply, forward_to,
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
