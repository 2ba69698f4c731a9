//! What is listened on, and is not there; families that a host has no address of.

use super::firewall::is_forwarded;
use super::{BACKEND_PORT, Report, all_forwards, net, start};
use crate::fixture::{Family, Protocol, expect_parts};

/// What is listened on, and the levels of the lines about it.
const CASES: [(&str, &[&str]); 9] = [
    ("10.1.1.1", &[]),
    ("client", &[]),
    ("10.1.1.1,client,fd00:1:1::1", &[]),
    ("10.1.1.9", &["failure"]),
    ("fd00:1:1::9", &["failure"]),
    ("eth7", &["failure"]),
    ("eth7,10.1.1.9", &["failure", "failure"]),
    ("10.1.1.1,10.1.1.9", &["warning"]),
    ("client,eth7", &["warning"]),
];

#[test]
fn what_is_not_here_is_named_and_is_a_failure_if_nothing_else_is() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let forwards = "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080";
    for (listen, levels) in CASES {
        let arguments = format!("--listen={listen} {forwards}");
        let report = Report::of(&net.node, &arguments);
        let about = report.0.iter().filter(|line| line.subject == "listen");
        let found: Vec<&str> = about.map(|line| &*line.level).collect();
        assert_eq!(found, levels, "{listen}: {report:#?}");
        let _instance = start(&net, &arguments);
        let served = Family::BOTH.map(|family| is_forwarded(&net, Protocol::Tcp, family));
        assert_eq!(
            served.contains(&true),
            !levels.contains(&"failure"),
            "{listen}"
        );
    }
    // Once it is here, it is no failure.
    net.node.ip("addr add 10.1.1.9/24 dev client");
    let arguments = format!("--listen=10.1.1.9 {forwards}");
    assert_eq!(
        Report::of(&net.node, &arguments).of_level("failure").len(),
        0
    );
}

/// Routed on to another interface, packets to it pass through this host and are forwarded.
#[test]
fn an_address_that_this_host_only_routes_is_a_warning() {
    let net = net(1);
    let report = Report::of(&net.node, "--listen=10.2.1.9 tcp/80=10.2.1.2:8080");
    expect_parts(
        &report.only("warning", "listen").text,
        ["only packets that it routes there"],
    );
}

/// As in a pod with one family only, of a Service with externalTrafficPolicy Local: both of the node's addresses
/// are listed.
#[test]
fn a_family_that_this_host_has_no_address_of_is_no_failure() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    net.node.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    let _instance = start(&net, &all_forwards(&net));
    assert!(is_forwarded(&net, Protocol::Tcp, Family::V4));
    let report = Report::of(&net.node, "");
    report.expect_ok();
    expect_parts(&report.line("ok", "listen").text, ["no IPv6 address"]);
    let report = Report::of(&net.node, "--name=other tcp/81=[fd00:2:1::2]:8080");
    expect_parts(&report.line("failure", "listen").text, ["no IPv6 address"]);
}
