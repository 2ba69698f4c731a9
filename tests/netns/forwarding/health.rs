//! `--health`: a destination that fails gets no new connections.

mod attempts;
mod haproxy;
mod rules;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::balance::{add_addresses, the_one_server};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Host, Manager, Namespace, Net, Nodefwd, Process,
    Protocol, addresses, expect_parts, nodefwd, wait_until,
};

/// Forwards both protocols and families to these hosts, and tries them every second.
fn tried(hosts: &[Host]) -> Nodefwd {
    tried_every(1, hosts)
}

fn tried_every(seconds: u32, hosts: &[Host]) -> Nodefwd {
    let hosts: Vec<String> = hosts.iter().map(addresses).collect();
    nodefwd(["--name=web", "--dest-proto=tcp,udp"]).args(&[
        &format!("--health={seconds}"),
        &format!("--dest-ips={}", hosts.join(",")),
        &format!("--src-port={FORWARDED_PORT}"),
        &format!("--dest-port={BACKEND_PORT}"),
    ])
}

fn destination(host: &Host, family: Family) -> SocketAddr {
    SocketAddr::new(host.address(family), BACKEND_PORT)
}

/// What `status` says of each destination of these hosts: as many as there are forwards to it.
fn up(node: &Namespace, host: &Host) -> Vec<Option<bool>> {
    let json = nodefwd(["status", "--format=json"]).finish(node);
    let json: Value = serde_json::from_str(&json.expect_success()).expect("JSON");
    let forwards = json["instances"][0]["forwards"]
        .as_array()
        .expect("forwards");
    let destinations = forwards.iter().flat_map(|forward| {
        let destinations = forward["destinations"].as_array();
        destinations.expect("destinations").clone()
    });
    let own = Family::BOTH.map(|family| host.address(family).to_string());
    let of_host = destinations.filter(|destination| {
        own.iter()
            .any(|address| destination["to"]["address"] == address.as_str())
    });
    of_host
        .map(|destination| destination["up"].as_bool())
        .collect()
}

/// Waits until all forwards to a host say this of it.
#[track_caller]
fn wait_until_up(node: &Namespace, host: &Host, expected: bool) {
    let all = |up: &Vec<Option<bool>>| up.iter().all(|up| *up == Some(expected));
    let found = wait_until("what status says", || up(node, host), all);
    assert!(!found.is_empty());
}

/// The servers that new connections of each protocol and family reach.
fn reached(net: &Net) -> HashSet<String> {
    let mut reached = HashSet::new();
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            for _ in 0..40 {
                let node_addr = net.node_addr(family, FORWARDED_PORT);
                let reply = net.client.request(protocol, node_addr);
                reached.insert(reply.expect("a reply").server);
            }
        }
    }
    reached
}

fn said(forwarder: &Process, part: &str) -> usize {
    forwarder.stderr().matches(part).count()
}

#[test]
fn a_destination_that_is_killed_is_left_out_of_both_protocols_and_comes_back() {
    let net = Net::new(3);
    let _servers = [
        net.backends[0].serve(BACKEND_PORT),
        net.backends[2].serve(BACKEND_PORT),
    ];
    let killed = net.backends[1].serve(BACKEND_PORT);
    let manager = Manager::at_path("health");
    let forwarder = manager.of(tried(&net.backends)).start(&net.node);
    expect_parts(&manager.receive(), ["READY=1"]);
    let before = net.node.rules();
    wait_until_up(&net.node, &net.backends[1], true);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let mut kept = loop {
        let flow = net.client.live_flow(Protocol::Tcp, node_addr);
        if flow.reply.server != "backend-2" {
            break flow;
        }
    };

    drop(killed);
    wait_until_up(&net.node, &net.backends[1], false);
    let others = HashSet::from(["backend-1".to_owned(), "backend-3".to_owned()]);
    assert_eq!(reached(&net), others);
    kept.expect_unchanged();
    let address = destination(&net.backends[1], Family::V4);
    let down = format!(
        "warning: destination {address} is down: 3 connections in a row have failed, the last one with: Connection refused"
    );
    assert_eq!(said(&forwarder, &down), 1);
    let status = manager.receive();
    expect_parts(
        &status,
        ["STATUS=forwarding ", "; destinations that fail: "],
    );
    let text = nodefwd(["status"]).finish(&net.node).expect_success();
    expect_parts(&text, [format!("{address} (down)")]);
    let metrics = nodefwd(["status", "--format=prometheus"])
        .finish(&net.node)
        .expect_success();
    let metric = |protocol, value| {
        format!(
            "nodefwd_destination_up{{forwarder=\"web\",protocol=\"{protocol}\",ports=\"80\",family=\"ipv4\",destination=\"{address}\"}} {value}\n"
        )
    };
    expect_parts(&metrics, [metric("tcp", 0), metric("udp", 0)]);

    let _back = net.backends[1].serve(BACKEND_PORT);
    wait_until_up(&net.node, &net.backends[1], true);
    assert_eq!(reached(&net).len(), 3);
    assert_eq!(
        said(&forwarder, &format!("destination {address} is up again")),
        1
    );
    assert_eq!(net.node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn one_behind_a_link_that_is_cut_is_left_out() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let forwarder = tried(&net.backends).start(&net.node);
    net.node.ip("link set backend-2 down");
    wait_until_up(&net.node, &net.backends[1], false);
    assert_eq!(reached(&net), HashSet::from(["backend-1".to_owned()]));
    net.node.ip("link set backend-2 up");
    // Its addresses went with the link.
    let gateway = net.backends[1].gateway(Family::V6);
    net.node
        .ip(&format!("addr replace {gateway}/64 dev backend-2 nodad"));
    wait_until_up(&net.node, &net.backends[1], true);
    // A firewall that drops without a word.
    net.backends[1].load(
        "table inet silent {\n chain input {\n type filter hook input priority 0\n tcp dport 8080 drop\n udp dport 8080 drop\n }\n }",
    );
    wait_until_up(&net.node, &net.backends[1], false);
    expect_parts(&forwarder.stderr(), ["Connection timed out"]);
    assert_eq!(reached(&net), HashSet::from(["backend-1".to_owned()]));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn when_all_fail_all_stay_in() {
    let net = Net::new(2);
    let healthy = net.serve(BACKEND_PORT);
    let forwarder = tried(&net.backends).start(&net.node);
    let before = net.node.rules();
    drop(healthy);
    net.backends
        .iter()
        .for_each(|host| wait_until_up(&net.node, host, false));
    let with_lists = net.node.rules();
    for family in ["ipv4", "ipv6"] {
        let chain = |rules: &str| {
            let (_, rest) = rules
                .split_once(&format!("chain tcp-80-{family} {{"))
                .expect("a chain");
            rest.split_once('}').expect("an end").0.to_owned()
        };
        assert_eq!(chain(&with_lists), chain(&before));
    }
    let all_fail = "all destinations of tcp/80 over IPv4 fail: they get connections as if none did";
    assert_eq!(said(&forwarder, all_fail), 1);
    // One server that has just started is reached at once, however long it takes to be tried twice.
    let _server = net.backends[0].serve(BACKEND_PORT);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    wait_until(
        "a reply",
        || net.client.request(Protocol::Tcp, node_addr).is_ok(),
        |replied| *replied,
    );
    wait_until_up(&net.node, &net.backends[0], true);
    assert_eq!(reached(&net), HashSet::from(["backend-1".to_owned()]));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Not those of the others, nor, when all fail, of the last one, as all stay in then.
#[test]
fn a_reset_ends_the_flows_of_what_is_left_out_from_then_on_only() {
    let net = Net::new(3);
    let _servers = net.serve(BACKEND_PORT);
    let call = tried(&net.backends).args(&["--health-reset"]);
    let forwarder = call.start(&net.node);
    let refuse = |host: &Host| {
        host.load(
            "table inet busy {\n chain input {\n type filter hook input priority 0\n tcp dport 8080 tcp flags & (syn | ack) == syn reject with tcp reset\n }\n }",
        );
        wait_until_up(&net.node, host, false);
    };
    let to = net.node_addr(Family::V4, FORWARDED_PORT);
    let flow_to = |server| loop {
        let flow = net.client.live_flow(Protocol::Udp, to);
        if flow.reply.server == server {
            break flow;
        }
    };
    let mut third = flow_to("backend-3");
    let mut second = flow_to("backend-2");
    refuse(&net.backends[0]);
    refuse(&net.backends[1]);
    forwarder.wait_for_line("deleted the conntrack entries of");
    assert_ne!(second.request().expect("a reply").server, "backend-2");
    third.expect_unchanged();
    refuse(&net.backends[2]);
    forwarder.wait_for_line("warning: all destinations of tcp/80 over IPv4 fail");
    std::thread::sleep(std::time::Duration::from_secs(2));
    third.expect_unchanged();
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// With both kinds of connections open to the one that fails.
fn after_a_failure(reset: bool) -> Vec<bool> {
    let net = Net::new(2);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _failing = net.backends[1].serve(BACKEND_PORT);
    let option = format!("--health-reset={reset}");
    let forwarder = tried(&net.backends).args(&[&option]).start(&net.node);
    let to_failing = |protocol| loop {
        let flow = net
            .client
            .live_flow(protocol, net.node_addr(Family::V4, FORWARDED_PORT));
        if flow.reply.server == "backend-2" {
            break flow;
        }
    };
    let flows = Protocol::BOTH.map(to_failing);
    // It refuses new connections, and goes on with those that it has.
    net.backends[1].load(
        "table inet busy {\n chain input {\n type filter hook input priority 0\n tcp dport 8080 tcp flags & (syn | ack) == syn reject with tcp reset\n }\n }",
    );
    wait_until_up(&net.node, &net.backends[1], false);
    if reset {
        forwarder.wait_for_line("deleted the conntrack entries of");
    }
    let unchanged = flows.map(|mut flow| {
        let before = flow.reply.clone();
        flow.request().is_ok_and(|reply| reply == before)
    });
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    unchanged.to_vec()
}

/// From an address that the node does not listen on, to the same destination. One that listens on all of its own would take
/// it for a flow from before an address was removed.
#[test]
fn a_reset_leaves_alone_what_another_program_has_forwarded() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    net.node.load(
        "table ip other {\n chain prerouting {\n type nat hook prerouting priority dstnat\n ip daddr 10.9.9.9 udp dport 80 dnat to 10.2.2.2:8080\n }\n }",
    );
    let to_other = SocketAddr::from(([10, 9, 9, 9], FORWARDED_PORT));
    let mut others = net.client.live_flow(Protocol::Udp, to_other);
    // Without its entry it would go nowhere from now on.
    net.node.load("delete table ip other");
    let own = net.node_addr(Family::V4, FORWARDED_PORT);
    let own6 = net.node_addr(Family::V6, FORWARDED_PORT);
    let listen = format!("--listen={},{}", own.ip(), own6.ip());
    let call = tried(&net.backends).args(&["--health-reset", &listen]);
    let forwarder = call.start(&net.node);
    while net.client.live_flow(Protocol::Udp, own).reply.server != "backend-2" {}
    net.backends[1].load(
        "table inet busy {\n chain input {\n type filter hook input priority 0\n tcp dport 8080 reject with tcp reset\n }\n }",
    );
    forwarder.wait_for_line("deleted the conntrack entries of 1 connections");
    others.expect_unchanged();
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn running_flows_are_left_alone_unless_a_reset_is_asked_for() {
    assert_eq!(after_a_failure(false), [true, true]);
    assert_eq!(after_a_failure(true), [false, false]);
}

#[test]
fn by_source_only_the_clients_of_the_one_that_fails_move_and_they_come_back() {
    let net = Net::new(4);
    let mut servers: HashMap<usize, _> = net.serve(BACKEND_PORT).into_iter().enumerate().collect();
    let sources: Vec<IpAddr> = Family::BOTH
        .iter()
        .flat_map(|family| add_addresses(&net, *family))
        .collect();
    let call = tried(&net.backends).args(&["--balance=source"]);
    let forwarder = call.start(&net.node);
    let choices = || -> Vec<String> {
        sources
            .iter()
            .map(|source| the_one_server(&net, *source))
            .collect()
    };
    let all = choices();
    let mut before = all.clone();
    for failing in [1, 2] {
        servers.remove(&failing);
        wait_until_up(&net.node, &net.backends[failing], false);
        let after = choices();
        let name = format!("backend-{}", failing + 1);
        for (old, new) in before.iter().zip(&after) {
            assert!(
                *new != name && (old == new || *old == name),
                "{old} → {new}"
            );
        }
        let given: HashSet<&String> = before
            .iter()
            .zip(&after)
            .filter_map(|(old, new)| (*old == name).then_some(new))
            .collect();
        assert!(given.len() > 1, "all clients go to one other: {given:?}");
        before = after;
    }
    for back in [2, 1] {
        servers.insert(back, net.backends[back].serve(BACKEND_PORT));
        wait_until_up(&net.node, &net.backends[back], true);
    }
    assert_eq!(choices(), all);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn round_robin_stays_even_among_those_that_are_left() {
    let net = Net::new(4);
    let mut servers = net.serve(BACKEND_PORT);
    let forwarder = tried(&net.backends)
        .args(&["--balance=round-robin"])
        .start(&net.node);
    servers.remove(1);
    wait_until_up(&net.node, &net.backends[1], false);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let mut counts: HashMap<String, usize> = HashMap::new();
    for _ in 0..30 {
        let reply = net
            .client
            .request(Protocol::Tcp, node_addr)
            .expect("a reply");
        *counts.entry(reply.server).or_default() += 1;
    }
    // A client that had to send its first packet twice takes two turns.
    assert!(
        counts.len() == 3 && counts.values().all(|count| (9..=11).contains(count)),
        "{counts:?}"
    );
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
