//! What `--masquerade`, `--fully-random` and `--listen` change in traffic.

use std::net::{SocketAddr, UdpSocket};

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, Net, Protocol, expect_reply, forward_to,
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
fn without_random_ports_the_clients_port_is_kept() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    for family in Family::BOTH {
        let from = SocketAddr::new(net.client.address(family), 500);
        let to = net.node_addr(family, FORWARDED_PORT);
        let request = || {
            net.client.run(|| -> std::io::Result<String> {
                let socket = UdpSocket::bind(from)?;
                socket.set_read_timeout(Some(EVENT_TIMEOUT))?;
                socket.send_to(b"?", to)?;
                let mut reply = [0; 256];
                let length = socket.recv(&mut reply)?;
                Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
            })
        };
        let call = forward_to(Protocol::Udp, &net.backends);
        let kept = SocketAddr::new(backend.gateway(family), 500);
        let forwarder = call
            .clone()
            .args(&["--fully-random=false"])
            .start(&net.node);
        assert_eq!(request().expect("a reply"), format!("backend-1 {kept}\n"));
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        // Below 512, a random port would be below 512 too, were it not fully random.
        let _forwarder = call.start(&net.node);
        assert!(!request().expect("a reply").ends_with(":500\n"));
    }
}
