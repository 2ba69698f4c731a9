//! Kernels before 5.12 know no tables with an owner. Then the program itself keeps its promises:
//! one instance of a name, a dead one's rules replaced, and rules that others remove brought back.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::fixture::{Family, LIMIT, Namespace, Net, Nodefwd, Process, Protocol};
use crate::forward::{BACK, FRONT, expect_answer, forward_to};

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
    kill(forwarder);
    assert!(net.node.ruleset().contains(TABLE));

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
    let before = net.node.ruleset();
    for removal in [
        "flush ruleset",
        "delete table inet nodefwd-tcp-80",
        "flush chain inet nodefwd-tcp-80 prerouting",
    ] {
        net.node
            .succeed("nft", &removal.split(' ').collect::<Vec<_>>());
        expect_ruleset(&net.node, &before);
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

#[track_caller]
fn expect_ruleset(node: &Namespace, expected: &str) {
    let deadline = Instant::now() + LIMIT;
    while node.ruleset() != expected {
        assert!(Instant::now() < deadline, "{}", node.ruleset());
    }
}
