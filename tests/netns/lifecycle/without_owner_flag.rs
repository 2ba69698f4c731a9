//! Kernels before 5.12 know no tables with an owner. Then the program itself keeps its promises:
//! one instance of a name, a dead one's rules replaced, and rules that others remove brought back.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{BACK, FRONT, expect_answer, forward_to};
use crate::fixture::{Family, LIMIT, Namespace, Net, Nodefwd, Process, Protocol, nodefwd};

const TABLE: &str = "table inet nodefwd-tcp-80";

fn unowned(net: &Net) -> Nodefwd {
    forward_to(Protocol::Tcp, &net.backends).args(&["--owner=false"])
}

fn expect_forwarded(net: &Net) {
    let backend = &net.backends[0];
    let answer = net
        .client
        .request(Protocol::Tcp, net.front(Family::V4, FRONT));
    expect_answer(answer, "backend-1", backend.gateway(Family::V4));
}

fn kill(mut forwarder: Process) {
    forwarder.signal(Signal::SIGKILL);
    forwarder.wait();
}

#[test]
fn a_dead_instances_rules_are_replaced() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let forwarder = unowned(&net).start(&net.node);
    let ruleset = net.node.ruleset();
    assert!(!ruleset.contains("flags owner"), "{ruleset}");
    let ready = nodefwd(["status", "--ready", "tcp-80"]);
    ready.finish(&net.node).expect_exit(0);
    kill(forwarder);
    assert!(net.node.ruleset().contains(TABLE));
    // They still forward, but nobody minds them.
    let stderr = ready.finish(&net.node).expect_exit(1).stderr;
    assert!(
        stderr.contains("is what a dead instance has left"),
        "{stderr}"
    );

    let forwarder = unowned(&net).start(&net.node);
    assert_eq!(net.node.ruleset(), ruleset);
    expect_forwarded(&net);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn a_live_instances_rules_are_not() {
    let net = Net::new(1);
    let forwarder = unowned(&net).start(&net.node);
    let outcome = unowned(&net).finish(&net.node).expect_exit(1);
    let named = format!(
        "instance tcp-80, table inet nodefwd-tcp-80, runs in this network namespace already as process {}",
        forwarder.id()
    );
    assert!(outcome.stderr.contains(&named), "{outcome:?}");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn rules_that_others_remove_come_back() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let forwarder = unowned(&net).start(&net.node);
    let before = rules(&net.node);
    for removal in [
        "flush ruleset",
        "delete table inet nodefwd-tcp-80",
        "flush chain inet nodefwd-tcp-80 prerouting",
    ] {
        net.node
            .succeed("nft", &removal.split(' ').collect::<Vec<_>>());
        expect_rules(&net.node, &before);
        expect_forwarded(&net);
    }
    let outcome = forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert!(
        outcome
            .stderr
            .contains("warning: somebody else has changed table inet nodefwd-tcp-80"),
        "{outcome:?}"
    );
    assert_eq!(net.node.ruleset(), "");
}

/// Two programs that fight over the rules must not do it at full speed.
#[test]
fn they_come_back_once_a_second_at_most() {
    let net = Net::new(1);
    let forwarder = unowned(&net).start(&net.node);
    let before = rules(&net.node);
    let begin = Instant::now();
    // The first one comes at once.
    for _ in 0..4 {
        net.node.succeed("nft", &["flush", "ruleset"]);
        expect_rules(&net.node, &before);
    }
    assert!(begin.elapsed() >= Duration::from_secs(3));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// A change right behind the installation is as good as any other. The rules of a UDP forward are in
/// for as long as reading the kernel's connections takes before it is ready.
#[test]
fn so_do_rules_that_others_remove_while_it_starts() {
    let net = Net::new(1);
    let call = forward_to(Protocol::Udp, &net.backends).args(&["--owner=false"]);
    let forwarder = call.start(&net.node);
    let expected = rules(&net.node);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    for _ in 0..30 {
        let forwarder = call.spawn(&net.node);
        // As fast as it goes, so that some hit that moment.
        while !forwarder.stderr().contains("ready") {
            net.node.succeed("nft", &["flush", "ruleset"]);
        }
        expect_rules(&net.node, &expected);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// While it drains, what comes back must not take new connections. Somebody else's NAT rules have the
/// kernel go on with those that run.
#[test]
fn closed_rules_come_back_closed() {
    let net = Net::new(1);
    net.node.load(
        "table ip other { chain c { type nat hook prerouting priority 0; tcp dport 1 dnat to :2; }; }",
    );
    let _server = net.backends[0].serve(BACK);
    let mut forwarder = unowned(&net).args(&["--drain=3600"]).start(&net.node);
    let front = net.front(Family::V4, FRONT);
    let mut flow = net.client.connect(Protocol::Tcp, front).expect("a flow");
    let answer = flow.ask().expect("an answer");
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining: 1 connections");
    let closed = rules(&net.node);
    for removal in [
        "delete table inet nodefwd-tcp-80",
        "delete chain inet nodefwd-tcp-80 prerouting",
    ] {
        net.node
            .succeed("nft", &removal.split(' ').collect::<Vec<_>>());
        expect_rules(&net.node, &closed);
        net.client.expect_refused(Protocol::Tcp, front);
        assert_eq!(flow.ask().expect("an answer"), answer);
    }
    drop(flow);
    forwarder.wait_for_line("drained");
    let stderr = forwarder.finish().expect_exit(0).stderr;
    assert!(stderr.contains(" 0 running connections"), "{stderr}");
    assert!(!net.node.ruleset().contains(TABLE));
}

/// The kernel knows no owner, but the lock's holder is known.
#[test]
fn who_has_a_port_is_said_without_an_owner_too() {
    let net = Net::new(1);
    let first = unowned(&net).start(&net.node);
    let second = unowned(&net).args(&["--name=b"]);
    let stderr = second.finish(&net.node).expect_exit(1).stderr;
    let named = format!("held by process {} (nodefwd): stop that one", first.id());
    assert!(stderr.contains(&named), "{stderr}");

    kill(first);
    let stderr = second.finish(&net.node).expect_exit(1).stderr;
    assert!(
        stderr.contains("without an owner: remove it with nft delete table inet nodefwd-tcp-80"),
        "{stderr}"
    );
}

/// Changes to other tables are none of its business.
#[test]
fn others_tables_do_not_make_it_act() {
    let net = Net::new(1);
    let forwarder = unowned(&net).start(&net.node);
    net.node.load("table inet other { chain c { counter; }; }");
    net.node
        .succeed("nft", &["delete", "table", "inet", "other"]);
    let outcome = forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert!(!outcome.stderr.contains("somebody else"), "{outcome:?}");
}

/// All rules, without what they have counted.
fn rules(node: &Namespace) -> String {
    node.succeed("nft", &["--stateless", "list", "ruleset"])
}

#[track_caller]
fn expect_rules(node: &Namespace, expected: &str) {
    let deadline = Instant::now() + LIMIT;
    while rules(node) != expected {
        assert!(Instant::now() < deadline, "{}", rules(node));
    }
}
