//! Packets to the node's link-local addresses: no router forwards what comes from a client's, so they are
//! left to the node itself.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::sys::signal::Signal;

use crate::fixture::{
    FORWARDED_PORT, Family, Namespace, Net, Protocol, Server, addresses, expect_parts, forward_to,
    nodefwd,
};

const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, 1);

/// The address by way of an interface.
fn on(namespace: &Namespace, interface: &str, port: u16) -> SocketAddr {
    let line = namespace.succeed("ip", &["-oneline", "link", "show", interface]);
    let (index, _) = line.split_once(':').expect("an index");
    let index = index.parse().expect("a number");
    SocketAddrV6::new(ADDRESS, port, 0, index).into()
}

#[test]
fn packets_to_link_local_addresses_are_left_to_the_host() {
    let net = Net::new(1);
    let _backend = net.serve(8080);
    net.node
        .ip(&format!("addr add {ADDRESS}/64 dev client nodad"));
    let here = on(&net.node, "client", FORWARDED_PORT);
    let _server = Server::start(&net.node, "node", &[here]);
    let to = on(&net.client, "eth0", FORWARDED_PORT);
    for options in [
        &[][..],
        &["--listen=any"],
        &["--masquerade=false", "--output"],
        &["--src-ranges=fd00:1::/32"],
        &["--listen=client"],
    ] {
        for protocol in Protocol::BOTH {
            let call = forward_to(protocol, &net.backends).args(options);
            let mut before = net.client.live_flow(Protocol::Udp, to);
            let forwarder = call.start(&net.node);
            before.expect_unchanged();
            let reply = net.client.request(protocol, to).expect("a reply");
            assert_eq!(reply.server, "node", "{protocol:?} {options:?}");
            let node_addr = net.node_addr(Family::V6, FORWARDED_PORT);
            let reply = net.client.request(protocol, node_addr).expect("a reply");
            assert_eq!(reply.server, "backend-1", "{protocol:?} {options:?}");
            // Nor is what the kernel knows of them deleted.
            let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
            assert!(!stderr.contains(" stale "), "{options:?}: {stderr}");
        }
    }
}

/// They are routed, unlike those of IPv6.
#[test]
fn ipv4_link_local_destinations_are_forwarded_to() {
    let net = Net::new(1);
    let metadata = "169.254.169.254";
    net.backends[0].ip(&format!("addr add {metadata}/32 dev eth0"));
    let [via, _] = Family::BOTH.map(|family| net.backends[0].address(family));
    net.node.ip(&format!("route add {metadata} via {via}"));
    let address = SocketAddr::new(metadata.parse().expect("an address"), FORWARDED_PORT);
    let _server = Server::start(&net.backends[0], "metadata", &[address]);
    let forward = format!("tcp/{FORWARDED_PORT}={metadata}");
    let _forwarder = nodefwd([forward]).start(&net.node);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let reply = net.client.request(Protocol::Tcp, node_addr);
    assert_eq!(reply.expect("a reply").server, "metadata");
    let stderr = nodefwd(["render", &format!("tcp/80={}", addresses(&net.backends[0]))])
        .args(&["--listen=fe80::1"])
        .finish_here()
        .expect_exit(2)
        .stderr;
    expect_parts(&stderr, ["NODEFWD_LISTEN", "'fe80::1'", "link-local"]);
}
