//! Letting running connections end after the signal.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{Busy, FRONT, expect_answer, forward_to};
use crate::fixture::{Family, Net, Protocol};

/// Long enough that no test here sees its end.
const LONG: &str = "--drain=3600";

#[test]
fn running_connections_go_on_and_new_ones_are_refused() {
    for family in Family::BOTH {
        let mut busy = Busy::start(family, |call| call.args(&[LONG]));
        let (net, forwarder, first) = (&busy.net, &mut busy.forwarder, &mut busy.flow);
        let source = net.backends[0].gateway(family);
        let front = net.front(family, FRONT);
        let second = net.client.connect(Protocol::Tcp, front);
        let mut second = second.expect("a connection");
        expect_answer(second.ask(), "backend-1", source);

        forwarder.signal(Signal::SIGTERM);
        forwarder.wait_for_line("draining: 2 connections");
        net.client.expect_refused(Protocol::Tcp, front);
        expect_answer(first.ask(), "backend-1", source);
        drop(busy.flow);
        expect_answer(second.ask(), "backend-1", source);
        // It ends when the last connection has.
        drop(second);
        forwarder.wait_for_line("drained");
        let stderr = busy.forwarder.finish().expect_exit(0).stderr;
        // The kernel still remembers both, but neither runs.
        assert!(stderr.contains(" 0 running connections"), "{stderr}");
        assert_eq!(net.node.ruleset(), "");
    }
}

#[test]
fn without_connections_it_ends_at_once() {
    let net = Net::new(1);
    let mut forwarder = forward_to(Protocol::Tcp, &net.backends)
        .args(&[LONG])
        .start(&net.node);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining: 0 connections");
    forwarder.finish().expect_exit(0);
}

#[test]
fn a_second_signal_ends_the_wait() {
    let mut busy = Busy::start(Family::V4, |call| call.args(&[LONG]));
    busy.forwarder.signal(Signal::SIGTERM);
    busy.forwarder.wait_for_line("draining: 1 connections");
    busy.forwarder.signal(Signal::SIGTERM);
    busy.forwarder.wait_for_line("draining is cut short");
    busy.forwarder.finish().expect_exit(0);
    assert_eq!(busy.net.node.ruleset(), "");
}

#[test]
fn when_the_time_is_up_it_ends() {
    let mut busy = Busy::start(Family::V4, |call| call.args(&["--drain=1"]));
    let begin = Instant::now();
    busy.forwarder.signal(Signal::SIGTERM);
    busy.forwarder.wait_for_line("draining is over");
    busy.forwarder.finish().expect_exit(0);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(busy.net.node.ruleset(), "");
}
