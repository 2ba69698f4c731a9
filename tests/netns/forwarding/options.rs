//! What `--masquerade`, `--fully-random` and `--listen` change in traffic.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Host, Net, PROTOCOLS_AND_FAMILIES, Protocol,
    expect_reply, forward_to,
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

/// As IKE does, whose peers expect port 500 on both sides.
#[test]
fn without_random_ports_the_clients_port_is_kept_where_it_is_free() {
    let net = Net::new(1);
    let other = net.another_client(2);
    let _servers = net.serve(BACKEND_PORT);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let call = forward_to(protocol, &net.backends);
        let source = |client: &Host, port| {
            let from = SocketAddr::new(client.address(family), port);
            let to = SocketAddr::new(client.gateway(family), FORWARDED_PORT);
            let mut flow = client.connect_from(protocol, from, to).expect("a flow");
            let reply = flow.request().expect("a reply");
            assert_eq!(reply.server, "backend-1");
            (reply.source.port(), flow)
        };
        let kept = call.clone().args(&["--fully-random=false"]);
        let forwarder = kept.start(&net.node);
        let (port, _flow) = source(&net.client, 500);
        assert_eq!(port, 500, "{protocol:?} {family:?}");
        assert_ne!(source(&other, 500).0, 500, "{protocol:?} {family:?}");
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        // Among 64,512 ports.
        let _forwarder = call.start(&net.node);
        assert_ne!(source(&net.client, 50_000).0, 50_000);
    }
}
