//! Which flows are taken over, and that what is decided at the first packet stays so.

use std::collections::BTreeSet;
use std::mem;
use std::net::{IpAddr, SocketAddr};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    COUNTER, FORWARDS, Fast, INTERFACES, entry, expect_bypass, expect_taken, forward_both,
    forwarded, offloaded_flow,
};
use crate::check::Report;
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Host, Net, PROTOCOLS_AND_FAMILIES, Protocol,
    expect_parts, expect_reply, nodefwd,
};
use crate::forwarding::balance::add_addresses;

#[test]
#[ignore = "needs flowtables"]
fn flows_are_taken_over_and_bypass_other_rules() {
    for options in [
        &[INTERFACES][..],
        &["--fast-path=auto"],
        &["--fast-path=auto", "--masquerade=false"],
        &["--fast-path=auto", "--owner=false"],
    ] {
        let fast = Fast::start(options);
        let net = &fast.net;
        net.node.load(COUNTER);
        for (protocol, family) in PROTOCOLS_AND_FAMILIES {
            let source = if options.contains(&"--masquerade=false") {
                net.client.address(family)
            } else {
                net.backends[0].gateway(family)
            };
            let mut flow = fast.flow(protocol, family);
            expect_reply(flow.request(), "backend-1", source);
            expect_bypass(&net.node, &mut flow);
        }
        net.node
            .succeed("nft", &["delete", "table", "inet", "counting"]);
        expect_parts(&fast.forwarder.stderr(), ["fast path: on "]);
        fast.stop();
    }
}

/// Another program translates connections too, and others are only routed.
#[test]
#[ignore = "needs flowtables"]
fn flows_of_others_are_left_alone() {
    let fast = Fast::start(&[INTERFACES]);
    let net = &fast.net;
    let (node, backend) = (&net.node, &net.backends[0]);
    let _other_server = backend.serve(9090);
    let address = backend.address(Family::V4);
    node.load(&format!(
        "table ip other {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                tcp dport 81 dnat to {address}:9090
                udp dport 81 dnat to {address}:9090
            }}
        }}"
    ));
    node.load(COUNTER);
    for protocol in Protocol::BOTH {
        let translated = net.node_addr(Family::V4, 81);
        let routed = SocketAddr::new(address, BACKEND_PORT);
        for to in [translated, routed] {
            let mut flow = net.client.live_flow(protocol, to);
            let before = forwarded(node);
            (0..10).for_each(|_| flow.expect_unchanged());
            assert!(forwarded(node) >= before + 20, "{protocol:?} to {to}");
            let entry = entry(node, protocol, Family::V4, flow.source().port());
            assert!(!entry.contains("OFFLOAD"), "{entry}");
        }
        let mut own = fast.flow(protocol, Family::V4);
        expect_bypass(node, &mut own);
    }
}

#[test]
#[ignore = "needs flowtables"]
fn sources_that_may_not_connect_are_dropped_and_destinations_own_connections_are_left_alone() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let denied = net.another_client(2);
    net.node.load(COUNTER);
    let ranges = "--src-ranges=10.1.1.0/24,fd00:1:1::/64,10.2.0.0/16,fd00:2::/32";
    for hairpin in ["--hairpin=false", "--hairpin=true"] {
        let call = forward_both(&net.backends).args(&["--fast-path=auto", ranges, hairpin]);
        let _forwarder = call.start(&net.node);
        for (protocol, family) in PROTOCOLS_AND_FAMILIES {
            let mut flow = offloaded_flow(&net, &net.client, protocol, family);
            expect_bypass(&net.node, &mut flow);
            let to = |host: &Host| SocketAddr::new(host.gateway(family), FORWARDED_PORT);
            denied.expect_silence(protocol, to(&denied));
            let backend = &net.backends[0];
            if hairpin == "--hairpin=true" {
                offloaded_flow(&net, backend, protocol, family);
            } else {
                backend.expect_refused(protocol, to(backend));
            }
        }
    }
}

#[test]
#[ignore = "needs flowtables"]
fn connections_are_counted_balanced_and_shown_as_without() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let call = forward_both(&net.backends);
    let call = call.args(&["--fast-path=auto", "--balance=round-robin"]);
    let _forwarder = call.start(&net.node);
    let mut flows = Vec::new();
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let mut servers = BTreeSet::new();
        for _ in 0..4 {
            let flow = offloaded_flow(&net, &net.client, protocol, family);
            servers.insert(flow.reply.server.clone());
            flows.push(flow);
        }
        assert_eq!(servers.len(), 2, "{protocol:?} {family:?}");
    }
    let status = nodefwd(["status", "--format=json"]).finish(&net.node);
    let status: Value = serde_json::from_str(&status.expect_success()).expect("JSON");
    let instance = &status["instances"][0];
    let interfaces = instance["options"]["fast_path"].as_array();
    let names: BTreeSet<_> = interfaces
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(names, BTreeSet::from(["client", "backend-1", "backend-2"]));
    let forwards = instance["forwards"].as_array().expect("a list");
    assert_eq!(forwards.len(), 4);
    for forward in forwards {
        for destination in forward["destinations"].as_array().expect("a list") {
            let counts = ["connections", "active", "unanswered"].map(|count| &destination[count]);
            assert_eq!(counts, [2, 2, 0], "{forward:#}");
        }
    }
    let text = nodefwd(["status"]).finish(&net.node).expect_success();
    expect_parts(&text, ["fast-path client, backend-1, backend-2"]);
    flows.iter_mut().for_each(|flow| flow.expect_unchanged());
}

/// In the flowtable of a successor as well.
#[test]
#[ignore = "needs flowtables"]
fn balanced_by_source_the_flows_of_a_client_stay_with_its_backend() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let call = forward_both(&net.backends).args(&["--fast-path=auto", "--balance=source"]);
    let mut forwarder = call.start(&net.node);
    let taken = |protocol, family, source: IpAddr| {
        let from = SocketAddr::new(source, 0);
        let to = net.node_addr(family, FORWARDED_PORT);
        let mut flow = net.client.live_flow_from(protocol, from, to);
        expect_taken(&net.node, protocol, family, &mut flow);
        flow
    };
    let sources = Family::BOTH.map(|family| (family, add_addresses(&net, family)));
    let mut flows = Vec::new();
    for protocol in Protocol::BOTH {
        for (family, sources) in &sources {
            // Six of them choose the same backend with a probability of 2^-5, but always the same ones.
            let begin = |source: &IpAddr| {
                let flow = taken(protocol, *family, *source);
                (protocol, *family, *source, flow)
            };
            let of_family: Vec<_> = sources[..6].iter().map(begin).collect();
            let servers = of_family.iter().map(|(.., flow)| &flow.reply.server);
            assert_eq!(
                BTreeSet::from_iter(servers).len(),
                2,
                "{protocol:?} {family:?}"
            );
            flows.extend(of_family);
        }
    }
    for _ in 0..2 {
        for (protocol, family, source, flow) in &mut flows {
            flow.expect_unchanged();
            let other = taken(*protocol, *family, *source);
            assert_eq!(other.reply.server, flow.reply.server, "{source}");
        }
        let successor = call.clone().args(&["--replace"]).start(&net.node);
        mem::replace(&mut forwarder, successor)
            .finish()
            .expect_exit(0);
    }
}

/// What the kernel counts of a flow (net.netfilter.nf_conntrack_acct) goes on.
#[test]
#[ignore = "needs flowtables"]
fn packets_and_bytes_of_flows_are_counted() {
    let fast = Fast::start(&[INTERFACES]);
    let node = &fast.net.node;
    node.set_sysctl("net/netfilter/nf_conntrack_acct", "1");
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let mut flow = fast.flow(protocol, family);
        let packets = |entry: &str| {
            let counted = entry.split("packets=").skip(1);
            let counted = counted.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            counted.collect::<Vec<_>>()
        };
        let port = flow.source().port();
        let before = packets(&entry(node, protocol, family, port));
        (0..20).for_each(|_| flow.expect_unchanged());
        let after = packets(&entry(node, protocol, family, port));
        assert_eq!(before.len(), 2, "both directions");
        for (before, after) in before.iter().zip(&after) {
            assert!(
                *after >= before + 20,
                "{protocol:?} {family:?}: {before}, {after}"
            );
        }
    }
}

/// As many flowtables on the same interfaces gain nothing.
#[test]
#[ignore = "needs flowtables"]
fn beside_many_flowtables_auto_adds_none_and_a_list_does() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    for number in 0..10 {
        net.node.load(&format!(
            "table inet other{number} {{
                flowtable fast {{
                    hook ingress priority filter
                    devices = {{ client }}
                }}
            }}"
        ));
    }
    let call = forward_both(&net.backends);
    let auto = call.clone().args(&["--fast-path=auto"]);
    let report = Report::of(&net.node, &format!("{FORWARDS} --fast-path=auto"));
    expect_parts(
        &report.line("warning", "fast path").text,
        ["connections would not take it", "10 other flowtables"],
    );
    let forwarder = auto.start(&net.node);
    forwarder.wait_for_line("no fast path: 10 other flowtables");
    let mut flow = net
        .client
        .live_flow(Protocol::Tcp, net.node_addr(Family::V4, FORWARDED_PORT));
    (0..5).for_each(|_| flow.expect_unchanged());
    let port = flow.source().port();
    let found = entry(&net.node, Protocol::Tcp, Family::V4, port);
    assert!(!found.contains("OFFLOAD"), "{found}");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    let _forwarder = call.args(&[INTERFACES]).start(&net.node);
    let to = net.node_addr(Family::V4, FORWARDED_PORT);
    let mut flow = net.client.live_flow(Protocol::Tcp, to);
    expect_taken(&net.node, Protocol::Tcp, Family::V4, &mut flow);
}

#[test]
#[ignore = "needs flowtables"]
fn check_says_that_it_works_and_what_is_bypassed() {
    let net = Net::new(1);
    net.node.load(COUNTER);
    let call = forward_both(&net.backends).args(&["--fast-path=auto"]);
    let report = Report::of(&net.node, &format!("{FORWARDS} --fast-path=auto"));
    expect_parts(
        &report.line("ok", "fast path").text,
        [
            "on ",
            "backend-1",
            "client",
            "chain forward of table inet counting",
        ],
    );
    let _forwarder = call.start(&net.node);
    let running = Report::of(&net.node, "");
    expect_parts(&running.line("ok", "fast path").text, ["backend-1"]);
}
