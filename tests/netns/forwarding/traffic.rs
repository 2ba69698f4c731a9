//! Which traffic is forwarded, and which is left as it was.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Protocol, expect_reply, forward, forward_to,
};

fn is_forwarded_while_it_runs(protocol: Protocol, family: Family) {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    let node_addr = net.node_addr(family, FORWARDED_PORT);
    net.client.expect_refused(protocol, node_addr);

    let forwarder = forward(protocol, &[backend.address(family)]).start(&net.node);
    // Masqueraded: the backend sees the node.
    let reply = net.client.request(protocol, node_addr);
    expect_reply(reply, "backend-1", backend.gateway(family));

    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    net.client.expect_refused(protocol, node_addr);
}

#[test]
fn tcp_over_ipv4_is_forwarded() {
    is_forwarded_while_it_runs(Protocol::Tcp, Family::V4);
}

#[test]
fn tcp_over_ipv6_is_forwarded() {
    is_forwarded_while_it_runs(Protocol::Tcp, Family::V6);
}

#[test]
fn udp_over_ipv4_is_forwarded() {
    is_forwarded_while_it_runs(Protocol::Udp, Family::V4);
}

#[test]
fn udp_over_ipv6_is_forwarded() {
    is_forwarded_while_it_runs(Protocol::Udp, Family::V6);
}

#[test]
fn other_ports_and_the_other_protocol_are_not_forwarded() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let _forwarder = forward_to(Protocol::Tcp, &net.backends).start(&net.node);
    for family in Family::BOTH {
        let node_addr = net.node_addr(family, FORWARDED_PORT);
        let reply = net.client.request(Protocol::Tcp, node_addr);
        reply.expect("a reply");
        net.client.expect_refused(Protocol::Udp, node_addr);
        for port in [FORWARDED_PORT - 1, FORWARDED_PORT + 1, BACKEND_PORT] {
            let not_forwarded = net.node_addr(family, port);
            net.client.expect_refused(Protocol::Tcp, not_forwarded);
        }
    }
}

#[test]
fn each_family_goes_to_its_own_backend() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let [first, second] = net.two_backends();
    let addresses = [first.address(Family::V4), second.address(Family::V6)];
    for protocol in Protocol::BOTH {
        let _forwarder = forward(protocol, &addresses).start(&net.node);
        for (family, server, backend) in [
            (Family::V4, "backend-1", first),
            (Family::V6, "backend-2", second),
        ] {
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            let reply = net.client.request(protocol, node_addr);
            expect_reply(reply, server, backend.gateway(family));
        }
    }
}

#[test]
fn traffic_to_other_hosts_is_left_alone() {
    let net = Net::new(2);
    let [backend, other] = net.two_backends();
    let _servers = [backend.serve(BACKEND_PORT), other.serve(FORWARDED_PORT)];
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends[..1]).start(&net.node);
        for family in Family::BOTH {
            let client = net.client.address(family);
            // Another host's service on the port that is forwarded here.
            let to = SocketAddr::new(other.address(family), FORWARDED_PORT);
            expect_reply(net.client.request(protocol, to), "backend-2", client);
            // A client that connects to the backend itself.
            let to = SocketAddr::new(backend.address(family), BACKEND_PORT);
            expect_reply(net.client.request(protocol, to), "backend-1", client);
        }
    }
}

#[test]
fn the_nodes_own_traffic_is_left_alone() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        for family in Family::BOTH {
            // Masquerading would replace this source by the address on the backend's link.
            let source = net.client.gateway(family);
            let from = SocketAddr::new(source, 0);
            let to = SocketAddr::new(backend.address(family), BACKEND_PORT);
            let reply = net.node.request_from(protocol, from, to);
            expect_reply(reply, "backend-1", source);
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            net.node.expect_refused(protocol, node_addr);
        }
    }
}
