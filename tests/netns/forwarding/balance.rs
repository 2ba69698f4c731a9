//! Which of several backends a connection goes to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Namespace, Net, PROTOCOLS_AND_FAMILIES, Protocol,
    forward, forward_to,
};

/// Each request is one fair choice out of three, independent of the others. By Hoeffding's
/// inequality a count out of n = 300 is t = 70 or more away from its mean of 100 with a
/// probability below 2 exp(-2 t^2 / n) = 1.3e-14, and there are 12 counts.
#[test]
fn connections_are_spread_at_random_over_all_backends() {
    let net = Net::new(3);
    let _servers = net.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        for family in Family::BOTH {
            let mut counts = HashMap::new();
            for _ in 0..300 {
                let node_addr = net.node_addr(family, FORWARDED_PORT);
                let reply = net.client.request(protocol, node_addr);
                *counts.entry(reply.expect("a reply").server).or_insert(0) += 1;
            }
            let is_fair = counts.len() == 3 && counts.values().all(|n| (31..170).contains(n));
            assert!(is_fair, "{protocol:?} {family:?}: {counts:?}");
        }
    }
}

#[test]
fn a_flow_stays_with_its_backend() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        let node_addr = net.node_addr(family, FORWARDED_PORT);
        let mut flow = net.client.live_flow(protocol, node_addr);
        // Were each packet balanced again, all would agree with a probability of 2^-50.
        for _ in 0..50 {
            flow.expect_unchanged();
        }
    }
}

#[test]
fn round_robin_gives_connections_to_each_backend_in_turn() {
    let net = Net::new(3);
    let _servers = net.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends).args(&["--balance=round-robin"]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            // They stay open: a UDP flow from the port of a closed one would be the same flow.
            let mut flows = Vec::new();
            for number in 1..=30 {
                flows.push(net.client.live_flow(protocol, node_addr));
                let mut counts = connections(&net.node, family);
                counts.sort();
                // A client that had to send its first packet twice takes two turns.
                let in_turn = counts[2] - counts[0] <= 1 && counts.iter().sum::<u64>() >= number;
                assert!(in_turn, "after {number} connections: {counts:?}");
            }
        }
    }
}

/// How many connections of a family the rules have given to each backend.
fn connections(node: &Namespace, family: Family) -> [u64; 3] {
    let dnat = match family {
        Family::V4 => "dnat ip to",
        Family::V6 => "dnat ip6 to",
    };
    let rules = node.ruleset();
    let rules = rules.lines().filter(|line| line.contains(dnat));
    let counts = rules.map(|rule| {
        let (_, count) = rule.split_once("counter packets ").expect("a counter");
        let count = count.split(' ').next().expect("a number");
        count.parse().expect("a number")
    });
    counts
        .collect::<Vec<u64>>()
        .try_into()
        .expect("three rules")
}

/// A hundred clients of each family choose between two backends. Were each request balanced
/// at random, a client's nine later ones would all agree with its first with a probability of
/// 2^-9, and so for all clients of 2^-1800. A fair hash sends all hundred to the same backend
/// with one of 2^-99.
#[test]
fn balanced_by_source_a_client_stays_with_its_backend_after_a_restart_and_in_any_order() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let sources = Family::BOTH.map(|family| add_addresses(&net, family));
    let call = forward_to(Protocol::Tcp, &net.backends).args(&["--balance=source"]);
    let choices = || -> Vec<_> {
        let sources = sources.iter().flatten();
        sources
            .map(|source| the_one_server(&net, *source))
            .collect()
    };

    let forwarder = call.start(&net.node);
    let before = choices();
    for family in before.chunks(100) {
        let is_balanced = family.iter().any(|server| *server != family[0]);
        assert!(is_balanced, "{before:?}");
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    let forwarder = call.start(&net.node);
    assert_eq!(choices(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    // As on another node, which lists the same backends in another order.
    let hosts = net.backends.iter().rev();
    let reversed: Vec<_> = hosts
        .flat_map(|host| Family::BOTH.map(|family| host.address(family)))
        .collect();
    let call = forward(Protocol::Tcp, &reversed).args(&["--balance=source"]);
    let _forwarder = call.start(&net.node);
    assert_eq!(choices(), before);
}

/// Gives the client a hundred more addresses.
pub fn add_addresses(net: &Net, family: Family) -> Vec<IpAddr> {
    let address = |number| match family {
        Family::V4 => (IpAddr::from([10, 1, 1, number]), "/24"),
        Family::V6 => {
            let number = u16::from(number);
            (
                IpAddr::from([0xfd00, 1, 1, 0, 0, 0, 0, number]),
                "/64 nodad",
            )
        }
    };
    let addresses: Vec<_> = (100..200).map(address).collect();
    let add = |(address, suffix)| format!("addr add dev eth0 {address}{suffix}\n");
    let lines: String = addresses.iter().copied().map(add).collect();
    net.client.ip(&lines);
    addresses.into_iter().map(|(address, _)| address).collect()
}

/// The server that replies to all of a client's requests.
#[track_caller]
pub fn the_one_server(net: &Net, source: IpAddr) -> String {
    let family = if source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let from = SocketAddr::new(source, 0);
    let to = net.node_addr(family, FORWARDED_PORT);
    let server = || {
        let reply = net.client.request_from(Protocol::Tcp, from, to);
        reply.expect("a reply").server
    };
    let first = server();
    for _ in 0..9 {
        assert_eq!(server(), first, "{source}");
    }
    first
}
