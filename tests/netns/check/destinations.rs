//! Destinations that are down, as far as the kernel knows.

use super::{BACKEND_PORT, FORWARDED_PORT, Report, net, start};
use crate::fixture::{
    Family, PROTOCOLS_AND_FAMILIES, Protocol, SILENCE_TIMEOUT, expect_parts, wait_until,
};

#[test]
fn a_neighbour_that_does_not_reply_is_a_warning() {
    let net = net(1);
    for (destination, gateway) in [
        ("10.2.1.77", false),
        ("fd00:2:1::77", false),
        ("10.9.0.1", true),
    ] {
        if gateway {
            net.node.ip("route add 10.9.0.0/16 via 10.2.1.78");
        }
        let forward = format!("tcp/80=[{destination}]:8080").replace("=[10", "=10");
        let forward = if destination.contains(':') {
            forward
        } else {
            forward.replace("]:", ":")
        };
        let family = if destination.contains(':') {
            Family::V6
        } else {
            Family::V4
        };
        Report::of(&net.node, &forward).expect_ok();
        let instance = start(&net, &forward);
        let to = net.node_addr(family, FORWARDED_PORT);
        let request = net
            .client
            .request_within(SILENCE_TIMEOUT, Protocol::Tcp, None, to);
        assert!(request.is_err(), "{destination}");
        let report = || {
            Report::of(
                &net.node,
                &format!("--name=other {}", forward.replace("/80", "/81")),
            )
        };
        let fails = |report: &Report| {
            report
                .0
                .iter()
                .any(|line| line.text.contains("FAILED on backend-1"))
        };
        let report = wait_until("a neighbour that failed", report, fails);
        let warning = report.only("warning", "neighbours");
        let router = if gateway { "(router 10.2.1.78, " } else { " (" };
        expect_parts(&warning.text, [destination, router, "ip neigh"]);
        drop(instance);
        net.node.wait_for_rules("");
    }
}

/// It says why connections have had none.
#[test]
fn where_something_is_a_failure_there_is_no_line_about_connections_without_an_answer() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    net.node.load(
        "table ip fw { chain raw { type filter hook prerouting priority raw; tcp sport 8080 drop; }; }",
    );
    let to = net.node_addr(Family::V4, FORWARDED_PORT);
    let request = net
        .client
        .request_within(SILENCE_TIMEOUT, Protocol::Tcp, None, to);
    assert!(request.is_err());
    Report::of(&net.node, "").only("failure", "firewall");
    // The connection is there.
    net.node.load("delete table ip fw");
    let report = Report::of(&net.node, "");
    let warnings = report.of_level("warning");
    assert_eq!(warnings.len(), 1, "{report:#?}");
    expect_parts(&warnings[0].text, ["none has had an answer"]);
}

#[test]
fn connections_without_an_answer_are_a_warning_until_one_has_one() {
    let net = net(1);
    net.backends[0].load(
        "table inet fw { chain input { type filter hook input priority 0; th dport 8080 drop; }; }",
    );
    let _server = net.backends[0].serve(BACKEND_PORT);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let to = std::net::SocketAddr::new(net.backends[0].address(family), BACKEND_PORT);
        let instance = start(&net, &format!("{}/80={to}", protocol.name()));
        Report::of(&net.node, "").expect_ok();
        let node_addr = net.node_addr(family, FORWARDED_PORT);
        let request = || {
            net.client
                .request_within(SILENCE_TIMEOUT, protocol, None, node_addr)
        };
        assert!(request().is_err());
        let report = Report::of(&net.node, "");
        let texts: Vec<&str> = report
            .of_level("warning")
            .iter()
            .map(|line| &*line.text)
            .collect();
        assert_eq!(texts.len(), 1, "{report:#?}");
        let expected = format!("none has had an answer: 1 to {to}: ");
        expect_parts(texts[0], [&*expected, "nodefwd check --connect"]);

        net.backends[0].load("flush chain inet fw input");
        assert!(request().is_ok());
        Report::of(&net.node, "").expect_ok();
        net.backends[0].load("table inet fw { chain input { th dport 8080 drop; }; }");
        drop(instance);
        net.node.wait_for_rules("");
    }
}
