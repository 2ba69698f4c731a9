//! What `--masquerade` and `--listen` change in traffic.

use std::net::SocketAddr;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Protocol, expect_reply, forward_to,
};

#[test]
fn without_masquerading_the_backend_sees_the_client() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends).args(&["--masquerade=false"]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            let flow = net.client.live_flow(protocol, node_addr);
            assert_eq!(flow.reply.source, flow.source());
        }
    }
}

#[test]
fn with_listen_any_traffic_to_other_hosts_is_forwarded_too() {
    let net = Net::new(2);
    let [backend, other] = net.two_backends();
    let _servers = [backend.serve(BACKEND_PORT), other.serve(FORWARDED_PORT)];
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends[..1]).args(&["--listen=any"]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let to = SocketAddr::new(other.address(family), FORWARDED_PORT);
            let reply = net.client.request(protocol, to);
            expect_reply(reply, "backend-1", backend.gateway(family));
        }
    }
}

#[test]
fn with_addresses_to_listen_on_only_these_are_forwarded() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    // Addresses of the client's link; the addresses of the backend's link are the node's too.
    let listen = Family::BOTH.map(|family| net.client.gateway(family).to_string());
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends).env("NODEFWD_LISTEN", listen.join(","));
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            let reply = net.client.request(protocol, node_addr);
            expect_reply(reply, "backend-1", backend.gateway(family));
            let not_listened_on = SocketAddr::new(backend.gateway(family), FORWARDED_PORT);
            net.client.expect_refused(protocol, not_listened_on);
        }
    }
}
