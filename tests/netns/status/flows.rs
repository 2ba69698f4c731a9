//! Connections that get no reply, and those to destinations that the rules no longer lead to.

use super::{by_backend, json, status};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Protocol, expect_parts, forward, forward_to, nodefwd,
};

/// A host that drops what it gets.
const SILENT: &str = "table inet silent { chain input {
    type filter hook input priority 0; meta l4proto { tcp, udp } th dport 8080 drop;
}; }";

#[test]
fn flows_without_a_reply_are_counted_apart() {
    let net = Net::new(2);
    let [silent, other] = net.two_backends();
    silent.load(SILENT);
    let _server = other.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let [silent, other] = [silent, other].map(|host| host.address(family));
            let call = forward(protocol, &[silent, other]).args(&["--balance=round-robin"]);
            let forwarder = call.start(&net.node);
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            net.client.expect_silence(protocol, node_addr);
            let flow = net.client.live_flow(protocol, node_addr);
            let instance = &status(&net.node)["instances"][0];
            let counted = |field| {
                let mut by_backend = by_backend(instance, field);
                [silent, other].map(|address| by_backend.remove(&address.to_string()))
            };
            let unanswered = counted(json::UNANSWERED);
            assert_eq!(unanswered, [Some(1), Some(0)], "{instance:#}");
            assert_eq!(counted(json::ACTIVE), [Some(1), Some(1)], "{instance:#}");
            drop((flow, forwarder));
        }
    }
}

/// TCP connections stay with their destination when the rules change.
#[test]
fn connections_to_a_destination_that_is_no_longer_listed_have_a_row() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let [before, after] = net.two_backends();
    let to = |hosts: &[std::net::IpAddr]| forward(Protocol::Tcp, hosts);
    let both = Family::BOTH.map(|family| before.address(family));
    let mut first = to(&both).start(&net.node);
    let mut flows = Family::BOTH.map(|family| {
        let node_addr = net.node_addr(family, FORWARDED_PORT);
        net.client.live_flow(Protocol::Tcp, node_addr)
    });
    let both = Family::BOTH.map(|family| after.address(family));
    let _second = to(&both).args(&["--replace"]).start(&net.node);
    first.wait();
    flows.iter_mut().for_each(|flow| flow.expect_unchanged());

    let instance = &status(&net.node)["instances"][0];
    let forwards = instance["forwards"].as_array().expect("a list");
    for (forward, family) in forwards.iter().zip(Family::BOTH) {
        let destinations = forward["destinations"].as_array().expect("a list");
        let row = |host: &crate::fixture::Host, listed: bool, active: u64| {
            serde_json::json!({
                "to": {
                    "address": host.address(family).to_string(),
                    "ports": {"first": BACKEND_PORT, "last": BACKEND_PORT},
                },
                "listed": listed,
                (json::CONNECTIONS): 0,
                (json::ACTIVE): active,
                (json::UNANSWERED): 0,
                "up": null,
            })
        };
        assert_eq!(
            destinations[..],
            [row(after, true, 0), row(before, false, 1)]
        );
    }
    let text = nodefwd(["status"]).finish(&net.node).expect_success();
    let address = before.address(Family::V4);
    let row = text.lines().find(|line| line.contains("not listed"));
    let words: Vec<&str> = row.expect("a row").split_whitespace().collect();
    let to = format!("{address}:{BACKEND_PORT}");
    assert_eq!(
        words,
        [to.as_str(), "(not", "listed)", "-", "1", "0"],
        "{text}"
    );
    let call = nodefwd(["status", "--format=prometheus"]);
    let metrics = call.finish(&net.node).expect_success();
    let of_it: Vec<&str> = metrics.lines().filter(|line| line.contains(&to)).collect();
    assert_eq!(of_it.len(), 2, "{metrics}");
    expect_parts(&metrics, [format!("destination=\"{to}\"}} 1")]);
}

/// What another program forwards, on the same port of another address, is its own matter.
#[test]
fn flows_that_another_program_forwards_are_not_shown() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let [ours, theirs] = net.two_backends();
    net.node.ip("addr add 10.8.0.1/32 dev lo");
    let to = theirs.address(Family::V4);
    net.node.load(&format!(
        "table ip theirs {{ chain c {{
            type nat hook prerouting priority -110;
            ip daddr {{ 10.9.0.1, 10.8.0.1 }} tcp dport {FORWARDED_PORT} dnat to {to}:{BACKEND_PORT};
        }}; }}"
    ));
    let listen = net.node_addr(Family::V4, 0).ip().to_string();
    for listen in ["local", &listen] {
        let call = forward_to(Protocol::Tcp, std::slice::from_ref(ours));
        let forwarder = call.args(&["--listen", listen]).start(&net.node);
        // One to no address of this host, and one to an address that only another program listens on.
        let passing = format!("10.9.0.1:{FORWARDED_PORT}")
            .parse()
            .expect("an address");
        let to_host = format!("10.8.0.1:{FORWARDED_PORT}")
            .parse()
            .expect("an address");
        let flows = [passing, to_host].map(|to| net.client.live_flow(Protocol::Tcp, to));
        let instance = status(&net.node)["instances"][0].clone();
        let unlisted = by_backend(&instance, json::ACTIVE).remove(&to.to_string());
        // The second one meets the other program's rule first: a fault that its row points to.
        let expected = (listen == "local").then_some(1);
        assert_eq!(unlisted, expected, "{listen}: {instance:#}");
        drop((flows, forwarder));
    }
}
