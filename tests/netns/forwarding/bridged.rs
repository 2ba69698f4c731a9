//! `--listen any` on a host with a bridge, whose frames netfilter sees: what only passes through the bridge
//! is left alone, what is routed is forwarded.

use std::net::SocketAddr;

use crate::fixture::{
    BACKEND_PORT, Bridge, FORWARDED_PORT, Family, Host, Net, PROTOCOLS_AND_FAMILIES, Protocol,
    expect_reply, forward_to,
};

fn at(host: &Host, family: Family) -> SocketAddr {
    SocketAddr::new(host.address(family), FORWARDED_PORT)
}

/// A host's request on the forwarded port of a neighbour on the bridge arrives there.
#[track_caller]
fn expect_bridged(bridge: &Bridge, protocol: Protocol, family: Family) {
    let [from, to] = [&bridge.hosts[0], &bridge.hosts[1]];
    let reply = from.request(protocol, at(to, family));
    expect_reply(reply, "bridged-2", from.address(family));
}

#[test]
fn frames_between_ports_of_a_bridge_are_left_alone_and_packets_that_are_routed_are_forwarded() {
    let net = Net::new(2);
    let bridge = Bridge::new(&net.node, 2);
    let _servers = net.serve(BACKEND_PORT);
    let _neighbour = bridge.hosts[1].serve(FORWARDED_PORT);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        for masquerade in ["--masquerade=true", "--masquerade=false"] {
            let call = forward_to(protocol, &net.backends[..1]);
            let call = call.args(&["--listen=any", masquerade]);
            let _forwarder = call.start(&net.node);
            expect_bridged(&bridge, protocol, family);
            // From the bridge to another network and to the node itself, and from there to the bridge.
            let [inside, outside] = [&bridge.hosts[0], &net.client];
            let node = SocketAddr::new(inside.gateway(family), FORWARDED_PORT);
            for (from, to) in [
                (inside, at(&net.backends[1], family)),
                (inside, net.node_addr(family, FORWARDED_PORT)),
                (inside, node),
                (outside, at(&bridge.hosts[1], family)),
            ] {
                let source = if masquerade == "--masquerade=true" {
                    net.backends[0].gateway(family)
                } else {
                    from.address(family)
                };
                expect_reply(from.request(protocol, to), "backend-1", source);
            }
        }
    }
}

/// As on a host that only connects virtual machines: its routes know nothing of the hosts on the bridge.
#[test]
fn frames_of_a_bridge_without_addresses_are_left_alone() {
    let net = Net::new(1);
    let bridge = Bridge::new(&net.node, 2);
    let _servers = net.serve(BACKEND_PORT);
    let _neighbour = bridge.hosts[1].serve(FORWARDED_PORT);
    net.node
        .ip("addr del 10.7.0.1/24 dev br0\naddr del fd00:7::1/64 dev br0");
    for default_route in [false, true] {
        for (protocol, family) in PROTOCOLS_AND_FAMILIES {
            if default_route {
                let via = net.client.address(family);
                net.node.ip(&format!("route replace default via {via}"));
            }
            let call = forward_to(protocol, &net.backends).args(&["--listen=any"]);
            let _forwarder = call.start(&net.node);
            expect_bridged(&bridge, protocol, family);
        }
    }
}

/// It is to this host itself, so no frame passes, wherever the reply goes.
#[test]
fn a_packet_from_a_bridge_whose_source_is_elsewhere_is_forwarded_if_it_is_to_this_host() {
    let net = Net::new(1);
    let bridge = Bridge::new(&net.node, 1);
    let host = &bridge.hosts[0];
    for (family, source) in Family::BOTH.into_iter().zip(["10.9.9.9", "fd00:9::9"]) {
        let client = net.client.address(family);
        host.add_loopback_address(source.parse().expect("an address"));
        net.node.ip(&format!("route add {source} via {client}"));
        let call = forward_to(Protocol::Udp, &net.backends).args(&["--listen=any"]);
        let _forwarder = call.start(&net.node);
        let from = SocketAddr::new(source.parse().expect("an address"), 4001);
        let flow = host.connect_from(
            Protocol::Udp,
            from,
            SocketAddr::new(host.gateway(family), FORWARDED_PORT),
        );
        flow.expect("a socket").expect_silence();
        let selection = ["--proto", "udp", "--orig-src", source];
        let entries = net.node.conntrack_entries(family, &selection);
        let to = format!("src={}", net.backends[0].address(family));
        assert!(
            entries.iter().any(|entry| entry.contains(&to)),
            "{entries:?}"
        );
    }
}

/// As of a router with one interface.
#[test]
fn packets_that_leave_where_they_came_in_are_forwarded_unless_that_is_a_bridge() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let (client, gateway) = (net.client.address(family), net.backends[0].gateway(family));
        net.node.ip(&format!("route replace default via {client}"));
        let elsewhere = match family {
            Family::V4 => "10.9.9.9",
            Family::V6 => "fd00:9::9",
        };
        let to = SocketAddr::new(elsewhere.parse().expect("an address"), FORWARDED_PORT);
        let call = forward_to(protocol, &net.backends).args(&["--listen=any"]);
        let _forwarder = call.start(&net.node);
        expect_reply(net.client.request(protocol, to), "backend-1", gateway);
    }
}
