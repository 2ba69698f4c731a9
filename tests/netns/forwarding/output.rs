//! `--output`: the host's own connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Protocol, Server, expect_reply, forward_to,
};

const LOOPBACK: [(Family, IpAddr); 3] = [
    (Family::V4, IpAddr::V4(Ipv4Addr::LOCALHOST)),
    (Family::V4, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))),
    (Family::V6, IpAddr::V6(Ipv6Addr::LOCALHOST)),
];

/// A node that serves the forwarded port itself, on its loopback addresses and on the address that
/// clients use.
struct Own {
    net: Net,
    _servers: [Server; 2],
}

impl Own {
    fn new() -> Self {
        let net = Net::new(1);
        let client_side = Family::BOTH.map(|family| net.node_addr(family, FORWARDED_PORT));
        let loopback = LOOPBACK.map(|(_, address)| SocketAddr::new(address, FORWARDED_PORT));
        let addresses = [&client_side[..], &loopback[..]].concat();
        Own {
            _servers: [
                Server::start(&net.node, "node", &addresses),
                net.backends[0].serve(BACKEND_PORT),
            ],
            net,
        }
    }

    /// The node reaches its own sockets at the loopback addresses.
    #[track_caller]
    fn expect_loopback_left_alone(&self, protocol: Protocol) {
        for (family, address) in LOOPBACK {
            let to = SocketAddr::new(address, FORWARDED_PORT);
            let source = match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            expect_reply(self.net.node.request(protocol, to), "node", source);
        }
    }

    /// The node's connections to its own address on the client's link, and where they arrive.
    #[track_caller]
    fn expect_forwarded(&self, protocol: Protocol, forwarded: bool) {
        for family in Family::BOTH {
            let to = self.net.node_addr(family, FORWARDED_PORT);
            let reply = self.net.node.request(protocol, to);
            if forwarded {
                expect_reply(reply, "backend-1", self.net.backends[0].gateway(family));
            } else {
                expect_reply(reply, "node", to.ip());
            }
        }
    }

    /// The node's connections to another host.
    #[track_caller]
    fn expect_others_left_alone(&self, protocol: Protocol) {
        for family in Family::BOTH {
            let backend = self.net.backends[0].address(family);
            let to = SocketAddr::new(backend, FORWARDED_PORT);
            self.net.node.expect_refused(protocol, to);
        }
    }

    /// An option with the node's addresses on the link of a host.
    fn listen(&self, gateway: impl Fn(Family) -> IpAddr) -> String {
        let addresses = Family::BOTH.map(|family| gateway(family).to_string());
        format!("--listen={}", addresses.join(","))
    }
}

#[test]
fn the_nodes_own_connections_are_forwarded_but_those_to_loopback_addresses_and_other_hosts() {
    let own = Own::new();
    let addresses = own.listen(|family| own.net.client.gateway(family));
    for listen in ["--listen=local", "--listen=any", &addresses] {
        for protocol in Protocol::BOTH {
            let call = forward_to(protocol, &own.net.backends);
            let _forwarder = call.args(&["--output", listen]).start(&own.net.node);
            own.expect_forwarded(protocol, true);
            own.expect_loopback_left_alone(protocol);
            own.expect_others_left_alone(protocol);
        }
    }
}

#[test]
fn with_addresses_to_listen_on_the_nodes_connections_to_its_other_addresses_are_left_alone() {
    let own = Own::new();
    let addresses = own.listen(|family| own.net.backends[0].gateway(family));
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &own.net.backends);
        let _forwarder = call.args(&["--output", &addresses]).start(&own.net.node);
        own.expect_forwarded(protocol, false);
        own.expect_loopback_left_alone(protocol);
    }
}

#[test]
fn without_output_the_nodes_own_connections_are_left_alone() {
    let own = Own::new();
    for listen in ["--listen=local", "--listen=any"] {
        for protocol in Protocol::BOTH {
            let call = forward_to(protocol, &own.net.backends).args(&[listen]);
            let _forwarder = call.start(&own.net.node);
            own.expect_forwarded(protocol, false);
            own.expect_loopback_left_alone(protocol);
        }
    }
}
