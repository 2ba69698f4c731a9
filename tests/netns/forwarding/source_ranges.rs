//! SRC_RANGES: which clients may connect.

use std::net::SocketAddr;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Nodefwd, Protocol, addresses, expect_reply,
    forward_to,
};

fn allowing(net: &Net, protocol: Protocol, ranges: &str) -> Nodefwd {
    forward_to(protocol, &net.backends).env("SRC_RANGES", ranges)
}

#[test]
fn clients_in_a_range_are_forwarded_and_others_get_no_reply() {
    let net = Net::new(1);
    let other = net.another_client(2);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        // The second client's networks are next to these.
        let call = allowing(&net, protocol, "10.1.1.0/24,fd00:1:1::/64,10.9.0.0/16");
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            let reply = net.client.request(protocol, node_addr);
            expect_reply(reply, "backend-1", backend.gateway(family));
            other.expect_silence(protocol, node_addr);
        }
    }
}

/// The first packet is dropped, and so is every later one from the same port.
#[test]
fn a_denied_client_that_tries_again_is_denied_again() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let call = allowing(&net, Protocol::Udp, "10.9.0.0/16,fd00:9::/64");
    let _forwarder = call.start(&net.node);
    for family in Family::BOTH {
        let from = SocketAddr::new(net.client.address(family), 40000);
        let to = net.node_addr(family, FORWARDED_PORT);
        for _ in 0..2 {
            net.client.expect_silence_from(Protocol::Udp, from, to);
        }
    }
}

#[test]
fn a_single_address_is_a_range() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let other = net.another_client(2);
    let _server = backend.serve(BACKEND_PORT);
    let ranges = addresses(&other).replace(',', " ");
    let _forwarder = allowing(&net, Protocol::Tcp, &ranges).start(&net.node);
    for family in Family::BOTH {
        let node_addr = net.node_addr(family, FORWARDED_PORT);
        let reply = other.request(Protocol::Tcp, node_addr);
        expect_reply(reply, "backend-1", backend.gateway(family));
        net.client.expect_silence(Protocol::Tcp, node_addr);
    }
}

#[test]
fn a_family_without_a_range_is_denied_with_a_warning() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    let forwarder = allowing(&net, Protocol::Tcp, "10.1.0.0/16").start(&net.node);
    let [v4, v6] = Family::BOTH.map(|family| net.node_addr(family, FORWARDED_PORT));
    let reply = net.client.request(Protocol::Tcp, v4);
    expect_reply(reply, "backend-1", backend.gateway(Family::V4));
    net.client.expect_silence(Protocol::Tcp, v6);
    let stderr = forwarder.stderr();
    let warned = |line: &str| line.contains("SRC_RANGES") && line.contains("IPv6");
    assert!(stderr.lines().any(warned), "{stderr}");
}
