//! Which packets an instance forwards, and which flows are its own, where that is not obvious.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, Net, Nodefwd, OTHER_NAT, Process,
    Protocol, expect_parts, expect_reply, forward_to,
};

fn net_with_other_nat(backends: u8) -> Net {
    let net = Net::new(backends);
    net.node.load(OTHER_NAT);
    net
}

/// Replaces a running instance by another call.
fn replace(net: &Net, old: Process, call: &Nodefwd) -> Process {
    let new = call.clone().args(&["--replace"]).start(&net.node);
    old.finish().expect_exit(0);
    new
}

/// A TCP connection stays with its backend when the list of backends changes, and is still one of the
/// instance's own.
#[test]
fn flows_to_a_backend_of_the_replaced_instance_are_drained_and_ended() {
    let net = net_with_other_nat(2);
    let _servers = net.serve(BACKEND_PORT);
    for family in Family::BOTH {
        for options in [&[][..], &["--drain=3600"]] {
            let call = |hosts| forward_to(Protocol::Tcp, hosts).args(options);
            let old = call(&net.backends[..1]).start(&net.node);
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            let mut flow = net.client.live_flow(Protocol::Tcp, node_addr);
            let mut new = replace(&net, old, &call(&net.backends[1..]));
            flow.expect_unchanged();
            new.signal(Signal::SIGTERM);
            if options.is_empty() {
                new.finish().expect_exit(0);
                assert_eq!(flow.expect_closed(), ErrorKind::ConnectionReset);
            } else {
                new.wait_until_draining(1);
                flow.expect_unchanged();
                drop(flow);
                new.wait_until_drained();
                new.finish().expect_exit(0);
            }
        }
    }
}

/// A route of type local makes a whole network the host's own, without an interface that has one of
/// its addresses.
#[test]
fn an_address_of_a_local_route_is_the_hosts_own() {
    let net = net_with_other_nat(1);
    let _servers = net.serve(BACKEND_PORT);
    net.node.ip("route add local 192.0.2.0/24 dev lo");
    net.node.ip("route add local fd00:9::/64 dev lo");
    for address in ["192.0.2.5", "fd00:9::5"] {
        let to = SocketAddr::new(address.parse().expect("an address"), FORWARDED_PORT);
        let flow = net.client.connect(Protocol::Udp, to);
        let mut flow = flow.expect("a socket");
        flow.expect_closed();
        let forwarder = forward_to(Protocol::Udp, &net.backends).start(&net.node);
        assert_eq!(flow.request().expect("a reply").server, "backend-1");
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        flow.expect_closed();
    }
}

/// A virtual address may have moved to another host meanwhile.
#[test]
fn flows_to_an_address_that_the_host_no_longer_has_are_ended() {
    let net = net_with_other_nat(1);
    let _servers = net.serve(BACKEND_PORT);
    for address in ["10.1.1.99/24", "fd00:1:1::99/64"] {
        net.node
            .ip(&format!("address add {address} dev client nodad"));
        let forwarder = forward_to(Protocol::Tcp, &net.backends).start(&net.node);
        let (ip, _) = address.split_once('/').expect("a length");
        let to = SocketAddr::new(ip.parse().expect("an address"), FORWARDED_PORT);
        let _flow = net.client.live_flow(Protocol::Tcp, to);
        net.node.ip(&format!("address delete {address} dev client"));
        let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
        expect_parts(&stderr, [" 1 running connections"]);
    }
}

/// Otherwise such a flow would stay without masquerading for as long as the client sends.
#[test]
fn a_udp_flow_without_masquerading_is_masqueraded_by_a_successor_that_masquerades() {
    let net = net_with_other_nat(1);
    let _servers = net.serve(BACKEND_PORT);
    for family in Family::BOTH {
        let call = |masquerade| {
            let option = format!("--masquerade={masquerade}");
            forward_to(Protocol::Udp, &net.backends).args(&[&option])
        };
        let old = call(false).start(&net.node);
        let node_addr = net.node_addr(family, FORWARDED_PORT);
        let mut flow = net.client.live_flow(Protocol::Udp, node_addr);
        assert_eq!(flow.reply.source, flow.source());
        let new = replace(&net, old, &call(true));
        expect_reply(flow.request(), "backend-1", net.backends[0].gateway(family));
        new.stop(Signal::SIGTERM).expect_exit(0);
    }
}

#[test]
fn with_listen_any_broadcasts_and_multicasts_are_left_alone() {
    let net = Net::new(1);
    let forward = forward_to(Protocol::Udp, &net.backends).args(&["--listen=any"]);
    let _forwarder = forward.start(&net.node);
    let receiver = net.node.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", FORWARDED_PORT)).expect("a socket");
        let group = Ipv4Addr::new(224, 0, 0, 251);
        let interface = Ipv4Addr::new(10, 1, 1, 1);
        let joined = socket.join_multicast_v4(&group, &interface);
        joined.expect("a member of the multicast group");
        socket
    });
    let set = receiver.set_read_timeout(Some(EVENT_TIMEOUT));
    set.expect("a read timeout");
    let sender = net.client.run(|| {
        let socket = UdpSocket::bind(("10.1.1.2", 0)).expect("a socket");
        socket.set_broadcast(true).expect("leave to broadcast");
        socket
    });
    for group in ["10.1.1.255", "255.255.255.255", "224.0.0.251"] {
        let sent = sender.send_to(group.as_bytes(), (group, FORWARDED_PORT));
        sent.expect("sent");
        let mut packet = [0; 64];
        let length = receiver.recv(&mut packet).expect("a packet");
        assert_eq!(&packet[..length], group.as_bytes());
    }
}

#[test]
fn with_output_the_hosts_connections_to_other_hosts_are_left_alone() {
    let net = net_with_other_nat(2);
    let [backend, other] = net.two_backends();
    let _servers = [backend.serve(BACKEND_PORT), other.serve(FORWARDED_PORT)];
    for family in Family::BOTH {
        let foreign = other.address(family);
        let to = SocketAddr::new(foreign, FORWARDED_PORT);
        for listen in ["any", &foreign.to_string()] {
            let mut flow = net.node.live_flow(Protocol::Udp, to);
            let port = flow.source().port();
            let id = || net.node.conntrack_id(Protocol::Udp, family, port);
            let before = id();
            let options = ["--output=true", "--listen", listen];
            let call = forward_to(Protocol::Udp, &net.backends[..1]).args(&options);
            let call = call.env("DEST_IPS", backend.address(family).to_string());
            let forwarder = call.start(&net.node);
            assert_eq!(id(), before, "--listen {listen}");
            flow.expect_unchanged();
            let reply = net.node.request(Protocol::Udp, to);
            let server = reply.expect("a reply").server;
            assert_eq!(server, "backend-2", "--listen {listen}");
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}
