//! Room for more connections: in the conntrack table, and among the source ports for a destination.

use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;

use super::{Report, net, start};
use crate::fixture::{
    FORWARDED_PORT, Family, Namespace, Net, Protocol, RawTcp, Segment, expect_parts, flags,
};

fn entries(node: &Namespace) -> usize {
    let count = node.succeed("conntrack", &["--count"]);
    count.trim_end().parse().expect("a number")
}

/// Makes a flow from each of these ports, which gets no reply.
fn make_flows(net: &Net, protocol: Protocol, family: Family, ports: &Range<u16>) {
    let to = net.node_addr(family, FORWARDED_PORT);
    let from = |port| SocketAddr::new(net.client.address(family), port);
    let before = entries(&net.node);
    let tcp = RawTcp::open(&net.client, to.ip());
    let send = |port| match protocol {
        Protocol::Udp => {
            let socket = UdpSocket::bind(from(port)).expect("a socket");
            socket.send_to(b"hello", to).expect("sent");
        }
        Protocol::Tcp => tcp.send(from(port), to, SYN),
    };
    // A packet is lost where a queue is full: then all are sent again, which in an emulated machine takes minutes.
    let mut found = before;
    while found < before + ports.len() {
        net.client.run(|| ports.clone().for_each(send));
        let now = entries(&net.node);
        assert!(now > found, "{now} flows, and {found} before");
        found = now;
    }
}

const SYN: Segment = Segment {
    sequence: 1,
    acknowledgement: 0,
    flags: flags::SYN,
    length: 0,
};

/// Client ports, more than nine tenths of the source ports that there are for them, and how many those are.
const RANGES: [(Range<u16>, &str); 3] = [
    (1..480, "511 from client ports below 512"),
    (600..1000, "424 from client ports from 512 to 1023"),
    (2000..61_000, "64512"),
];

#[test]
fn source_ports_that_run_out_for_a_destination_are_a_warning() {
    for (protocol, family) in [(Protocol::Udp, Family::V6), (Protocol::Tcp, Family::V4)] {
        let net = net(1);
        net.node.keep_udp_entries();
        net.node
            .set_sysctl("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "3600");
        net.backends[0].load(
            "table inet silent { chain input { type filter hook input priority 0; th dport 8080 drop; }; }",
        );
        let to = SocketAddr::new(net.backends[0].address(family), 8080);
        let forwards = format!("{}/{FORWARDED_PORT}={to}", protocol.name());
        let _instance = start(&net, &forwards);
        Report::of(&net.node, "").expect_ok();
        for (number, (ports, of)) in RANGES.iter().enumerate() {
            make_flows(&net, protocol, family, ports);
            let report = Report::of(&net.node, "");
            let warnings = report.of_level("warning");
            assert!(warnings.iter().all(|line| line.subject == "connections"));
            // The last one says that no server is there.
            assert_eq!(warnings.len(), number + 2, "{report:#?}");
            let counted = format!(": {} {to} ({});", protocol.name(), ports.len());
            expect_parts(
                &warnings[number].text,
                [&format!("of {of} that can be"), &counted],
            );
        }
        // Without masquerading, each keeps its own address and port.
        let call = format!("--name=other --masquerade=false {forwards}");
        Report::of(&net.node, &call).line("ok", "connections");
    }
}
