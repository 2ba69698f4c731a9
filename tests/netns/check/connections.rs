//! Room for more connections: in the conntrack table, and among the source ports for a destination.

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use super::{Report, net, start};
use crate::fixture::{EVENT_TIMEOUT, FORWARDED_PORT, Family, Namespace, Net, expect_parts};

/// How many flows are masqueraded to one destination: more than nine tenths of the source ports from 1024 on.
const FLOWS: u16 = 59_000;

fn entries(node: &Namespace) -> usize {
    let count = node.succeed("conntrack", &["--count"]);
    count.trim_end().parse().expect("a number")
}

/// Makes a flow from each of so many ports.
fn make_flows(net: &Net, family: Family) {
    let to = net.node_addr(family, FORWARDED_PORT);
    let own = net.client.address(family);
    let before = entries(&net.node);
    let send = || {
        for port in 2000..2000 + FLOWS {
            let socket = UdpSocket::bind(SocketAddr::new(own, port)).expect("a socket");
            socket.send_to(b"hello", to).expect("sent");
        }
    };
    let deadline = Instant::now() + EVENT_TIMEOUT;
    // A datagram is lost where a queue is full.
    while entries(&net.node) < before + usize::from(FLOWS) {
        assert!(Instant::now() < deadline, "{} flows", entries(&net.node));
        net.client.run(send);
    }
}

#[test]
fn source_ports_that_run_out_for_a_destination_are_a_warning() {
    let net = net(2);
    net.node.keep_udp_entries();
    let forwards = "udp/80=[fd00:2:1::2]:8080 tcp/80=[fd00:2:2::2]:8080";
    let _instance = start(&net, forwards);
    Report::of(&net.node, "").expect_ok();
    make_flows(&net, Family::V6);
    let report = Report::of(&net.node, "");
    let warnings = report.of_level("warning");
    let [taken, unanswered] = warnings[..] else {
        panic!("there should be two warnings: {report:#?}");
    };
    assert_eq!(taken.subject, "connections");
    let counted = format!(": udp [fd00:2:1::2]:8080 ({FLOWS});");
    expect_parts(&taken.text, [counted]);
    // No server is there.
    assert_eq!(unanswered.subject, "connections");
    let counted = format!("none has had an answer: {FLOWS} to [fd00:2:1::2]:8080:");
    expect_parts(&unanswered.text, [counted]);
    // Without masquerading, each keeps its own address and port.
    let call = format!("--name=other --masquerade=false {forwards}");
    Report::of(&net.node, &call).line("ok", "connections");
}
