//! What it tells a service manager that listens on NOTIFY_SOCKET (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{
    Family, ForwardedConnection, Manager, Namespace, Net, Nodefwd, Protocol, forward_to, nodefwd,
};

const FORWARDING: &str = "forwarding tcp/80=10.2.0.11:80 in table inet nodefwd-tcp-80";
const STOPPED: &str = "stopped: removed table inet nodefwd-tcp-80, and deleted the conntrack entries of 0 running connections";

const SECOND: Duration = Duration::from_secs(1);

fn forward() -> Nodefwd {
    nodefwd(["tcp/80=10.2.0.11"])
}

#[test]
fn the_manager_is_notified_of_the_start_and_the_stop() {
    let node = Namespace::forwarding("node");
    for manager in [
        Manager::at_path("begin-and-end"),
        Manager::at_abstract_name(&node),
    ] {
        let forwarder = manager.of(forward()).spawn(&node);
        assert_eq!(manager.receive(), format!("READY=1\nSTATUS={FORWARDING}\n"));
        assert!(node.ruleset().contains("table inet nodefwd-tcp-80"));
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(manager.receive(), "STOPPING=1\nSTATUS=stopping\n");
        assert_eq!(manager.receive(), format!("STATUS={STOPPED}\n"));
        manager.expect_no_more();
    }
}

/// The last step before it is ready is the kernel's commit, which fails here.
#[test]
fn it_is_not_ready_before_the_rules_are_in_the_kernel() {
    let node = Namespace::forwarding("node");
    let manager = Manager::at_path("not-ready");
    node.load("table inet nodefwd-tcp-80 { chain theirs { counter accept; }; }");
    manager.of(forward()).finish(&node).expect_exit(1);
    manager.expect_no_more();
}

#[test]
fn while_it_drains_the_manager_is_asked_to_wait_and_told_why() {
    let manager = Manager::at_path("drain");
    let mut forwarded =
        ForwardedConnection::start(Family::V4, |call| manager.of(call.args(&["--drain=86400"])));
    assert!(manager.receive().starts_with("READY=1\n"));
    forwarded.forwarder.signal(Signal::SIGTERM);
    // A minute more than the drain may take, in microseconds.
    assert_eq!(
        manager.receive(),
        "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=86460000000\n"
    );
    let draining = "STATUS=draining: 1 connections, for at most 86400s\n";
    assert_eq!(manager.receive(), draining);
    drop(forwarded.flow);
    forwarded.forwarder.finish().expect_exit(0);
    assert!(manager.receive().starts_with("STATUS=stopped: "));
    manager.expect_no_more();
}

#[test]
fn without_a_manager_there_is_no_notification_and_no_warning() {
    let net = Net::new(1);
    let node = &net.node;
    let manager = Manager::at_abstract_name(node);
    let forward = || forward_to(Protocol::Tcp, &net.backends);
    let absent = forward().env("NOTIFY_SOCKET", "/nonexistent/notify");
    let nameless = forward().env("NOTIFY_SOCKET", "");
    for call in [forward(), absent, nameless] {
        let outcome = call.start(node).stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    }
    manager.expect_no_more();
}

/// It waits a second for it in all, and not for each of the messages: ready, stopping, and what was drained.
#[test]
fn a_manager_that_does_not_read_does_not_keep_it_from_stopping() {
    let node = Namespace::forwarding("node");
    let manager = Manager::at_path("does-not-read");
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.set_nonblocking(true).expect("non-blocking");
    while sender.send_to(b"full", manager.name()).is_ok() {}
    let call = manager.of(forward()).args(&["--drain=1", "-v"]);
    let forwarder = call.start(&node);
    let failed = "debug: cannot notify the service manager";
    forwarder.wait_for_line(failed);
    let begin = Instant::now();
    let outcome = forwarder.stop(Signal::SIGTERM).expect_exit(0);
    // With the same wait for each, it would be longer than this.
    let messages = outcome.stderr.matches(failed).count() as u32 - 1;
    assert!(messages >= 3, "{}", outcome.stderr);
    assert!(begin.elapsed() < messages * SECOND, "{:?}", begin.elapsed());
    assert_eq!(node.ruleset(), "");

    // TERM ends the first wait.
    let mut forwarder = call.spawn(&node);
    forwarder.wait_for_line("ready");
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line(failed);
    forwarder.finish().expect_exit(0);
}
