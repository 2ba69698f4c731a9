//! Backends that connect to the forwarded port themselves.

use std::net::SocketAddr;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Protocol, expect_reply, forward_to, nodefwd,
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

/// The first backend has a range, the second another.
#[test]
fn a_backend_of_a_range_reaches_other_backends_but_not_itself() {
    let net = Net::new(2);
    let ports = [8000, 9000];
    let _servers = ports.map(|port| net.serve(port));
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let forwards = [0, 1].map(|index: usize| {
                let (first, to) = (ports[index], net.backends[index].address(family));
                let to = SocketAddr::new(to, first);
                format!(
                    "{}/{first}-{}={to}-{}",
                    protocol.name(),
                    first + 1,
                    first + 1
                )
            });
            let _forwarder = nodefwd(forwards).start(&net.node);
            for (own, backend) in net.backends.iter().enumerate() {
                let node = backend.gateway(family);
                backend.expect_refused(protocol, SocketAddr::new(node, ports[own]));
                let other = 1 - own;
                let reply = backend.request(protocol, SocketAddr::new(node, ports[other]));
                let masqueraded_as = net.backends[other].gateway(family);
                expect_reply(reply, &format!("backend-{}", other + 1), masqueraded_as);
            }
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
