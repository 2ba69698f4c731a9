//! Kernels before 5.12 have no owner flag for tables. There, as with `--owner=false`, the program
//! itself sees to what the flag is for: one instance of a name at a time, the rules of a dead instance
//! are replaced, and rules that another program removes are installed again.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fixture::{
    BACKEND_PORT, CHANGED, FORWARDED_PORT, Family, Namespace, Net, Nodefwd, OTHER_NAT, Protocol,
    expect_parts, expect_reply, forward_to, nodefwd,
};

const TABLE: &str = "table inet nodefwd-tcp-80";

fn without_owner(net: &Net) -> Nodefwd {
    forward_to(Protocol::Tcp, &net.backends).args(&["--owner=false"])
}

#[track_caller]
fn expect_forwarded(net: &Net) {
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let reply = net.client.request(Protocol::Tcp, node_addr);
    expect_reply(reply, "backend-1", net.backends[0].gateway(Family::V4));
}

/// Another program's command.
fn nft(node: &Namespace, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    node.succeed("nft", &words);
}

#[test]
fn a_start_replaces_the_rules_of_a_dead_instance() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let forwarder = without_owner(&net).start(&net.node);
    let ruleset = net.node.ruleset();
    assert!(!ruleset.contains("flags owner"), "{ruleset}");
    let ready = nodefwd(["status", "--ready", "tcp-80"]);
    ready.finish(&net.node).expect_exit(0);
    forwarder.stop(Signal::SIGKILL);
    expect_parts(&net.node.ruleset(), [TABLE]);
    // They still forward, but no process looks after them.
    let stderr = ready.finish(&net.node).expect_exit(1).stderr;
    expect_parts(&stderr, ["was left by an instance that died"]);

    let forwarder = without_owner(&net).start(&net.node);
    assert_eq!(net.node.ruleset(), ruleset);
    expect_forwarded(&net);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn status_tells_a_running_instance_from_what_a_dead_one_has_left() {
    let net = Net::new(1);
    let forwarder = without_owner(&net).start(&net.node);
    let expect_status = |running: bool| {
        let status = |format| nodefwd(["status", "--format", format]).finish(&net.node);
        let text = status("text").expect_success();
        let left = format!("tcp-80: {TABLE}, left by an instance that died: restart it");
        assert_eq!(text.contains(&left), !running, "{text}");
        let json = status("json").expect_success();
        let read: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read["instances"][0]["running"], running, "{json}");
        let metric = "nodefwd_instance_running{forwarder=\"tcp-80\"}";
        let value = u8::from(running);
        expect_parts(
            &status("prometheus").expect_success(),
            [format!("{metric} {value}\n")],
        );
    };
    expect_status(true);
    forwarder.stop(Signal::SIGKILL);
    expect_status(false);
    let _forwarder = without_owner(&net).start(&net.node);
    expect_status(true);
}

#[test]
fn a_start_does_not_replace_the_rules_of_a_running_instance_and_names_it() {
    let net = Net::new(1);
    let forwarder = without_owner(&net).start(&net.node);
    let stderr = without_owner(&net).finish(&net.node).expect_exit(1).stderr;
    let named = format!(
        "instance tcp-80, {TABLE}, runs in this network namespace already as process {}",
        forwarder.id()
    );
    expect_parts(&stderr, [named]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn rules_that_another_program_removes_are_installed_again() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let forwarder = without_owner(&net).start(&net.node);
    let before = net.node.rules();
    for removal in [
        "flush ruleset",
        "delete table inet nodefwd-tcp-80",
        "flush chain inet nodefwd-tcp-80 prerouting",
    ] {
        nft(&net.node, removal);
        net.node.wait_for_rules(&before);
        expect_forwarded(&net);
    }
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    expect_parts(&stderr, [format!("{CHANGED}nodefwd-tcp-80: ")]);
    assert_eq!(net.node.ruleset(), "");
}

/// So that two programs that fight over the rules do not use up the CPU.
#[test]
fn rules_are_installed_again_once_a_second_at_most() {
    let net = Net::new(1);
    let forwarder = without_owner(&net).start(&net.node);
    let before = net.node.rules();
    let begin = Instant::now();
    // The first time comes at once.
    for _ in 0..4 {
        nft(&net.node, "flush ruleset");
        net.node.wait_for_rules(&before);
    }
    assert!(begin.elapsed() >= Duration::from_secs(3));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// The rules of a UDP forward are in the kernel before it is ready, for as long as it takes to read
/// the conntrack entries.
#[test]
fn rules_that_another_program_removes_during_the_start_are_installed_again() {
    let net = Net::new(1);
    let call = forward_to(Protocol::Udp, &net.backends).args(&["--owner=false"]);
    let forwarder = call.start(&net.node);
    let expected = net.node.rules();
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    for _ in 0..30 {
        let forwarder = call.spawn(&net.node);
        // Without a pause, so that some come at that moment.
        while !forwarder.stderr().contains("ready") {
            nft(&net.node, "flush ruleset");
        }
        net.node.wait_for_rules(&expected);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// While it drains, rules that are installed again must not forward new connections. The other NAT
/// rules have the kernel go on with those that run.
#[test]
fn while_it_drains_rules_are_installed_again_without_new_connections() {
    let net = Net::new(1);
    net.node.load(OTHER_NAT);
    let _servers = net.serve(BACKEND_PORT);
    let call = without_owner(&net).args(&["--drain=3600"]);
    let mut forwarder = call.start(&net.node);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let mut flow = net.client.live_flow(Protocol::Tcp, node_addr);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(1);
    let draining = net.node.rules();
    for removal in [
        "delete table inet nodefwd-tcp-80",
        "delete chain inet nodefwd-tcp-80 prerouting",
    ] {
        nft(&net.node, removal);
        net.node.wait_for_rules(&draining);
        net.client.expect_refused(Protocol::Tcp, node_addr);
        flow.expect_unchanged();
    }
    drop(flow);
    forwarder.wait_until_drained();
    let stderr = forwarder.finish().expect_exit(0).stderr;
    expect_parts(&stderr, [" 0 running connections"]);
    let ruleset = net.node.ruleset();
    assert!(!ruleset.contains(TABLE), "{ruleset}");
}

/// The kernel knows no owner, but the lock has a holder.
#[test]
fn the_process_that_has_a_port_is_named_without_the_owner_flag_too() {
    let net = Net::new(1);
    let first = without_owner(&net).start(&net.node);
    let second = without_owner(&net).args(&["--name=b"]);
    let stderr = second.finish(&net.node).expect_exit(1).stderr;
    let named = format!("held by process {} (nodefwd): stop that one", first.id());
    expect_parts(&stderr, [named]);
    let status = nodefwd(["status"]).finish(&net.node).expect_success();
    let holder = format!("without an owner; process {} has its lock\n", first.id());
    expect_parts(&status, [holder]);

    first.stop(Signal::SIGKILL);
    let stderr = second.finish(&net.node).expect_exit(1).stderr;
    let fix = "without an owner: remove it with nft delete table inet nodefwd-tcp-80";
    expect_parts(&stderr, [fix]);
}

#[test]
fn changes_to_other_tables_are_ignored() {
    let net = Net::new(1);
    let forwarder = without_owner(&net).start(&net.node);
    net.node.load("table inet other { chain c { counter; }; }");
    nft(&net.node, "delete table inet other");
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert!(!stderr.contains(CHANGED), "{stderr}");
}
