//! Letting running connections end after the signal.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{Family, Net, Protocol};
use crate::forward::{BACK, FRONT, expect_answer, forward_to};

/// Long enough that no test here sees its end.
const LONG: &str = "--drain=3600";

#[test]
fn running_connections_go_on_and_new_ones_are_refused() {
    for family in Family::BOTH {
        let net = Net::new(1);
        let backend = &net.backends[0];
        let _server = backend.serve(BACK);
        let mut forwarder = forward_to(Protocol::Tcp, &net.backends)
            .args(&[LONG])
            .start(&net.node);
        let front = net.front(family, FRONT);
        let mut first = net
            .client
            .connect(Protocol::Tcp, front)
            .expect("a connection");
        let mut second = net
            .client
            .connect(Protocol::Tcp, front)
            .expect("a connection");
        expect_answer(first.ask(), "backend-1", backend.gateway(family));
        expect_answer(second.ask(), "backend-1", backend.gateway(family));

        forwarder.signal(Signal::SIGTERM);
        forwarder.wait_for_line("draining: 2 connections");
        net.client.expect_refused(Protocol::Tcp, front);
        expect_answer(first.ask(), "backend-1", backend.gateway(family));
        drop(first);
        expect_answer(second.ask(), "backend-1", backend.gateway(family));
        // It ends when the last connection has.
        drop(second);
        forwarder.wait_for_line("drained");
        forwarder.finish().expect_exit(0);
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
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let mut forwarder = forward_to(Protocol::Tcp, &net.backends)
        .args(&[LONG])
        .start(&net.node);
    let front = net.front(Family::V4, FRONT);
    let mut flow = net
        .client
        .connect(Protocol::Tcp, front)
        .expect("a connection");
    flow.ask().expect("an answer");
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining: 1 connections");
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining is cut short");
    forwarder.finish().expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn when_the_time_is_up_it_ends() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let call = forward_to(Protocol::Tcp, &net.backends).args(&["--drain=1"]);
    let mut forwarder = call.start(&net.node);
    let front = net.front(Family::V4, FRONT);
    let mut flow = net
        .client
        .connect(Protocol::Tcp, front)
        .expect("a connection");
    flow.ask().expect("an answer");
    let begin = Instant::now();
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining is over");
    forwarder.finish().expect_exit(0);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(net.node.ruleset(), "");
}
