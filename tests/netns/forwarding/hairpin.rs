//! Backends that connect to the forwarded port themselves.

use std::net::SocketAddr;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Protocol, expect_reply, forward_to,
};

#[test]
fn a_backend_that_connects_to_the_forwarded_port_is_not_forwarded() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        for family in Family::BOTH {
            for backend in &net.backends {
                let node_addr = SocketAddr::new(backend.gateway(family), FORWARDED_PORT);
                backend.expect_refused(protocol, node_addr);
            }
            // The very same address and port are forwarded for every other host.
            let node_addr = SocketAddr::new(net.backends[0].gateway(family), FORWARDED_PORT);
            let reply = net.client.request(protocol, node_addr);
            reply.expect("a reply");
        }
    }
}

#[test]
fn with_hairpin_a_backend_reaches_itself() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends).args(&["--hairpin=true"]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let node_addr = SocketAddr::new(backend.gateway(family), FORWARDED_PORT);
            let reply = backend.request(protocol, node_addr);
            expect_reply(reply, "backend-1", backend.gateway(family));
        }
    }
}

/// The backend would receive packets with its own address as their source.
#[test]
fn with_hairpin_and_without_masquerading_a_backend_does_not_reach_itself_and_a_warning_says_so() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    let call = forward_to(Protocol::Tcp, &net.backends);
    let forwarder = call
        .args(&["--hairpin=true", "--masquerade=false"])
        .start(&net.node);
    let stderr = forwarder.stderr();
    let about = |line: &&str| line.starts_with("warning: NODEFWD_HAIRPIN");
    assert_eq!(stderr.lines().filter(about).count(), 1, "{stderr}");
    for family in Family::BOTH {
        let node_addr = SocketAddr::new(backend.gateway(family), FORWARDED_PORT);
        backend.expect_silence(Protocol::Tcp, node_addr);
    }
}
