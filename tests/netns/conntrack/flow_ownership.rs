//! Which packets and flows an instance takes for its own, where that does not show at first sight.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use nix::sys::signal::Signal;

use crate::fixture::{
    Answer, Connection, Family, LIMIT, Namespace, Net, Nodefwd, Process, Protocol,
};
use crate::fixture::{BACK, FRONT, expect_answer, forward_to};

/// Somebody else's NAT, with which the kernel goes on translating the flows that it knows.
const OTHER: &str = "table inet other {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        tcp dport 1 dnat ip to 10.9.0.1
        tcp dport 1 dnat ip6 to fd00:9::1
    }
}";

fn with_other_nat(backends: u8) -> Net {
    let net = Net::new(backends);
    net.node.load(OTHER);
    net
}

fn live_flow(from: &Namespace, protocol: Protocol, to: SocketAddr) -> (Connection, Answer) {
    let mut flow = from.connect(protocol, to).expect("a connection");
    let answer = flow.ask().expect("an answer");
    (flow, answer)
}

/// Has another call take the place of a running instance.
fn replace(net: &Net, old: Process, call: &Nodefwd) -> Process {
    let new = call.clone().args(&["--replace"]).start(&net.node);
    old.finish().expect_exit(0);
    new
}

/// A TCP connection stays with its destination when the list changes, and is the instance's all the
/// same.
#[test]
fn flows_to_a_destination_of_before_are_drained_and_ended() {
    let net = with_other_nat(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    for family in Family::BOTH {
        for options in [&[][..], &["--drain=3600"]] {
            let call = |hosts| forward_to(Protocol::Tcp, hosts).args(options);
            let old = call(&net.backends[..1]).start(&net.node);
            let (mut flow, answer) =
                live_flow(&net.client, Protocol::Tcp, net.front(family, FRONT));
            let mut new = replace(&net, old, &call(&net.backends[1..]));
            assert_eq!(flow.ask().expect("an answer"), answer);
            new.signal(Signal::SIGTERM);
            if options.is_empty() {
                new.finish().expect_exit(0);
                let error = flow.ask().expect_err("a flow that has ended");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            } else {
                new.wait_for_line("draining: 1 connections");
                assert_eq!(flow.ask().expect("an answer"), answer);
                drop(flow);
                new.wait_for_line("drained");
                new.finish().expect_exit(0);
            }
        }
    }
}

/// A whole network may be this host's own, without an interface that has one of its addresses.
#[test]
fn an_address_of_a_local_network_is_this_hosts_own() {
    let net = with_other_nat(1);
    let _server = net.backends[0].serve(BACK);
    net.node.ip("route add local 192.0.2.0/24 dev lo");
    net.node.ip("route add local fd00:9::/64 dev lo");
    for address in ["192.0.2.5", "fd00:9::5"] {
        let front = SocketAddr::new(address.parse().expect("an address"), FRONT);
        let mut flow = net.client.connect(Protocol::Udp, front).expect("a socket");
        flow.ask().expect_err("nobody forwards it yet");
        let forwarder = forward_to(Protocol::Udp, &net.backends).start(&net.node);
        assert_eq!(flow.ask().expect("an answer").server, "backend-1");
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        flow.ask().expect_err("nobody forwards it any more");
    }
}

/// A virtual address may move to another host meanwhile.
#[test]
fn flows_to_an_address_that_is_gone_are_ended() {
    let net = with_other_nat(1);
    let _server = net.backends[0].serve(BACK);
    for (family, address) in Family::BOTH
        .into_iter()
        .zip(["10.1.1.99/24", "fd00:1:1::99/64"])
    {
        net.node
            .ip(&format!("address add {address} dev client nodad"));
        let forwarder = forward_to(Protocol::Tcp, &net.backends).start(&net.node);
        let (ip, _) = address.split_once('/').expect("a length");
        let front = SocketAddr::new(ip.parse().expect("an address"), FRONT);
        let _flow = live_flow(&net.client, Protocol::Tcp, front);
        net.node.ip(&format!("address delete {address} dev client"));
        let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
        assert!(
            stderr.contains(" 1 running connections"),
            "{family:?} {stderr}"
        );
    }
}

/// Who was forwarded without masquerading would be so for as long as it sends.
#[test]
fn flows_without_masquerading_are_masqueraded_by_the_next() {
    let net = with_other_nat(1);
    let _server = net.backends[0].serve(BACK);
    for family in Family::BOTH {
        let call = |masquerade| {
            let option = format!("--masquerade={masquerade}");
            forward_to(Protocol::Udp, &net.backends).args(&[&option])
        };
        let old = call(false).start(&net.node);
        let (mut flow, answer) = live_flow(&net.client, Protocol::Udp, net.front(family, FRONT));
        assert_eq!(answer.source, flow.source());
        let new = replace(&net, old, &call(true));
        expect_answer(flow.ask(), "backend-1", net.backends[0].gateway(family));
        new.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// Where all is taken in passing, broadcasts and multicasts still come to this host.
#[test]
fn listening_to_any_leaves_groups_of_hosts_alone() {
    let net = Net::new(1);
    let forward = forward_to(Protocol::Udp, &net.backends).args(&["--listen=any"]);
    let _forwarder = forward.start(&net.node);
    let here = net.node.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", FRONT)).expect("a socket");
        let group = Ipv4Addr::new(224, 0, 0, 251);
        let interface = Ipv4Addr::new(10, 1, 1, 1);
        let joined = socket.join_multicast_v4(&group, &interface);
        joined.expect("a group's member");
        socket
    });
    here.set_read_timeout(Some(LIMIT)).expect("a time limit");
    let client = net.client.run(|| {
        let socket = UdpSocket::bind(("10.1.1.2", 0)).expect("a socket");
        socket.set_broadcast(true).expect("a permission");
        socket
    });
    for group in ["10.1.1.255", "255.255.255.255", "224.0.0.251"] {
        client
            .send_to(group.as_bytes(), (group, FRONT))
            .expect("sent");
        let mut packet = [0; 64];
        let length = here.recv(&mut packet).expect("a packet");
        assert_eq!(&packet[..length], group.as_bytes());
    }
}

/// With `NODEFWD_OUTPUT` this host's connections to its own addresses are taken, and no others.
#[test]
fn this_hosts_connections_to_others_are_left_alone() {
    let net = with_other_nat(2);
    let [destination, stranger] = &net.backends[..] else {
        unreachable!()
    };
    let _servers = [destination.serve(BACK), stranger.serve(FRONT)];
    for family in Family::BOTH {
        let foreign = stranger.address(family);
        let front = SocketAddr::new(foreign, FRONT);
        for listen in ["any", &foreign.to_string()] {
            let (mut flow, answer) = live_flow(&net.node, Protocol::Udp, front);
            let number = || number(&net.node, flow_port(&flow));
            let before = number();
            let options = ["--output=true", "--listen", listen];
            let call = forward_to(Protocol::Udp, &net.backends[..1]).args(&options);
            let call = call.env("DEST_IPS", destination.address(family).to_string());
            let forwarder = call.start(&net.node);
            assert_eq!(number(), before, "{listen}");
            assert_eq!(flow.ask().expect("an answer"), answer);
            let new = net.node.request(Protocol::Udp, front);
            assert_eq!(new.expect("an answer").server, "backend-2", "{listen}");
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}

fn flow_port(flow: &Connection) -> u16 {
    flow.source().port()
}

/// The kernel's number of the UDP flow from this port.
fn number(node: &Namespace, port: u16) -> String {
    let port = port.to_string();
    let mut found = String::new();
    for family in ["ipv4", "ipv6"] {
        let list = [
            "-L",
            "-f",
            family,
            "-o",
            "id",
            "-p",
            "udp",
            "--orig-port-src",
            &port,
        ];
        found += &node.succeed("conntrack", &list);
    }
    let number = found
        .split_whitespace()
        .find(|word| word.starts_with("id="));
    number.expect("a flow").to_owned()
}
