//! Addresses that this host gets while an instance runs: a client that sent to one before is forwarded.

use std::net::SocketAddr;
use std::thread;

use nix::sys::signal::Signal;

use super::stale_flows::request_until_reply;
use crate::fixture::{
    Association, BACKEND_PORT, Chunk, FORWARDED_PORT, Family, Net, Nodefwd, Protocol, RawSctp,
    forward_to, nodefwd, track_without_checksums, wait_until,
};

/// An address that the node does not have, but routes to, and how `ip` adds it.
fn virtual_address(family: Family) -> (SocketAddr, &'static str) {
    match family {
        Family::V4 => (
            SocketAddr::from(([10, 9, 9, 9], FORWARDED_PORT)),
            "10.9.9.9/32",
        ),
        Family::V6 => {
            let address = "fd00:9::9".parse().expect("an address");
            (SocketAddr::new(address, FORWARDED_PORT), "fd00:9::9/128")
        }
    }
}

/// A net whose node sends packets to addresses that it does not know back to the client.
fn net_with_default_route() -> Net {
    let net = Net::new(1);
    net.node.keep_udp_entries();
    for family in Family::BOTH {
        let client = net.client.address(family);
        net.node.ip(&format!("route add default via {client}"));
    }
    net
}

/// Has a client send without a pause from before the change on, which must lead to a reply.
#[track_caller]
fn is_forwarded_after(net: &Net, family: Family, call: Nodefwd, change: &dyn Fn()) {
    let forwarder = call.start(&net.node);
    let (to, _) = virtual_address(family);
    let flow = net.client.connect(Protocol::Udp, to).expect("a socket");
    thread::scope(|scope| {
        let client = scope.spawn(move || {
            let (refused, _) = std::sync::mpsc::channel();
            request_until_reply(flow, &refused)
        });
        let selection = ["--proto", "udp", "--orig-dst", &to.ip().to_string()];
        let entries = || net.node.conntrack_entries(family, &selection);
        wait_until("an entry", entries, |entries| !entries.is_empty());
        change();
        let reply = client.join().expect("no panic").expect("a reply");
        assert_eq!(reply.server, "backend-1");
    });
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn a_udp_client_of_an_address_that_the_host_gets_later_is_forwarded() {
    for family in Family::BOTH {
        let net = net_with_default_route();
        let _servers = net.serve(BACKEND_PORT);
        let (_, address) = virtual_address(family);
        let forward = || forward_to(Protocol::Udp, &net.backends);
        is_forwarded_after(&net, family, forward(), &|| {
            net.node.ip(&format!("addr add {address} dev lo"));
        });
        net.node.ip(&format!("addr del {address} dev lo"));
        // Thousands of others come at the same time.
        is_forwarded_after(&net, family, forward(), &|| {
            let others = (0..2000).map(|number| {
                format!(
                    "addr add 10.77.{}.{}/32 dev lo\n",
                    number / 250,
                    number % 250 + 1
                )
            });
            let all: String = others
                .chain([format!("addr add {address} dev client\n")])
                .collect();
            net.node.ip(&all);
        });
    }
}

#[test]
fn so_is_one_of_an_interface_that_comes_later_or_of_an_address_that_moves_to_it() {
    for family in Family::BOTH {
        let net = net_with_default_route();
        let _servers = net.serve(BACKEND_PORT);
        let (_, address) = virtual_address(family);
        let listening =
            || forward_to(Protocol::Udp, &net.backends).args(&["--listen=client,later"]);
        is_forwarded_after(&net, family, listening(), &|| {
            net.node.ip(&format!(
                "link add later type veth peer name peer
                 link set later up
                 addr add {address} dev later"
            ));
        });
        net.node.ip("link del later");
        net.node.ip(&format!("addr add {address} dev backend-1"));
        let only_client = forward_to(Protocol::Udp, &net.backends).args(&["--listen=client"]);
        net.node.ip(&format!("addr del {address} dev backend-1"));
        is_forwarded_after(&net, family, only_client, &|| {
            net.node.ip(&format!("addr add {address} dev client"));
        });
    }
}

/// No address changes then: the kernel renames an interface that is up.
#[test]
fn so_is_one_of_an_interface_that_gets_a_name_to_listen_on() {
    for family in Family::BOTH {
        let net = net_with_default_route();
        let _servers = net.serve(BACKEND_PORT);
        let (_, address) = virtual_address(family);
        net.node.ip(&format!("addr add {address} dev lo"));
        let listening = forward_to(Protocol::Udp, &net.backends).args(&["--listen=later"]);
        is_forwarded_after(&net, family, listening, &|| {
            net.node.ip("link set client name later");
        });
    }
}

/// An SCTP client sends its INIT again and again, too.
#[test]
fn so_is_an_sctp_client() {
    for family in Family::BOTH {
        let net = net_with_default_route();
        track_without_checksums(&net.node);
        let [client, server] =
            [&net.client, &net.backends[0]].map(|host| RawSctp::open(host, family));
        let backend = net.backends[0].address(family);
        let backend = SocketAddr::new(backend, BACKEND_PORT);
        let call = nodefwd([format!("sctp/{FORWARDED_PORT}={backend}")]);
        let forwarder = call.start(&net.node);
        let (to, address) = virtual_address(family);
        client.send(4001, to, 0, Chunk::Init);
        let entries = || net.node.conntrack_entries(family, &["--proto", "sctp"]);
        wait_until("an entry", entries, |entries| !entries.is_empty());
        net.node.ip(&format!("addr add {address} dev lo"));
        forwarder.wait_for_line("deleted 1 stale");
        Association::begin(&client, &server, 4001, to);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}
