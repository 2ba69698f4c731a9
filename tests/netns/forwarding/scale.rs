//! Many of everything in one process: it goes in, works, and comes out again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::signal::Signal;

use crate::fixture::{BACK, FRONT, expect_answer, forward, forward_to};
use crate::fixture::{Family, Namespace, Net, Nodefwd, Process, Protocol, Server, nodefwd};

/// Starts it where nothing is, and expects one table.
fn start(call: &Nodefwd, node: &Namespace) -> Process {
    assert_eq!(node.ruleset(), "");
    let forwarder = call.start(node);
    let tables = node.succeed("nft", &["list", "tables"]);
    assert_eq!(tables.lines().count(), 1, "{tables}");
    forwarder
}

fn stop(forwarder: Process, node: &Namespace) {
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

/// Each port is forwarded for both protocols and families, each to a port of its own.
#[test]
fn ten_thousand_forwards() {
    const PORTS: u16 = 2500;
    const FIRST: u16 = 10000;
    const OFFSET: u16 = 20000;
    let net = Net::new(1);
    let backend = &net.backends[0];
    let probed = [FIRST, FIRST + PORTS / 2, FIRST + PORTS - 1];
    let _servers = probed.map(|port| {
        let addresses = Family::BOTH.map(|family| (backend.address(family), port + OFFSET).into());
        Server::start(backend, &format!("for-{port}"), &addresses)
    });
    let forward = |protocol: Protocol, family, port| {
        let to = SocketAddr::new(backend.address(family), port + OFFSET);
        format!("{}/{port}={to}", protocol.name())
    };
    let ways = Protocol::BOTH.map(|protocol| Family::BOTH.map(|family| (protocol, family)));
    let ways = ways.as_flattened();
    let forwards: Vec<_> = (FIRST..FIRST + PORTS)
        .flat_map(|port| ways.iter().map(move |way| forward(way.0, way.1, port)))
        .collect();
    assert_eq!(forwards.len(), 10_000);

    let forwarder = start(&nodefwd(&forwards), &net.node);
    for &(protocol, family) in ways {
        for port in probed {
            let answer = net.client.request(protocol, net.front(family, port));
            expect_answer(answer, &format!("for-{port}"), backend.gateway(family));
        }
        for beside in [FIRST - 1, FIRST + PORTS] {
            net.client
                .expect_refused(protocol, net.front(family, beside));
        }
    }
    stop(forwarder, &net.node);
}

/// Far more than one of the shared maps holds.
#[test]
fn four_thousand_balanced_forwards() {
    const PORTS: u16 = 1000;
    const FIRST: u16 = 10000;
    let net = Net::new(2);
    let _servers = [0, 1].map(|number| {
        let backend = &net.backends[number];
        let addresses = Family::BOTH.map(|family| (backend.address(family), BACK).into());
        Server::start(backend, &format!("backend-{}", number + 1), &addresses)
    });
    let forward = |protocol: Protocol, family, port| {
        let to = |number: usize| SocketAddr::new(net.backends[number].address(family), BACK);
        format!("{}/{port}={},{}", protocol.name(), to(0), to(1))
    };
    let ways = Protocol::BOTH.map(|protocol| Family::BOTH.map(|family| (protocol, family)));
    let ways = ways.as_flattened();
    let forwards: Vec<_> = (FIRST..FIRST + PORTS)
        .flat_map(|port| ways.iter().map(move |way| forward(way.0, way.1, port)))
        .collect();
    assert_eq!(forwards.len(), 4000);

    let call = nodefwd(&forwards).args(&["--balance=round-robin"]);
    let forwarder = start(&call, &net.node);
    for &(protocol, family) in ways {
        for port in [FIRST, FIRST + PORTS / 2, FIRST + PORTS - 1] {
            let ask = || net.client.request(protocol, net.front(family, port));
            let mut servers = [ask(), ask()].map(|answer| answer.expect("an answer").server);
            servers.sort();
            assert_eq!(
                servers,
                ["backend-1", "backend-2"],
                "{protocol:?} {family:?} {port}"
            );
        }
    }
    stop(forwarder, &net.node);
}

/// Every one of them gets its turn: the rules count it.
#[test]
fn a_thousand_destinations_of_one_forward() {
    const COUNT: u16 = 1000;
    let net = Net::new(1);
    let backend = &net.backends[0];
    // All addresses of these networks are the backend's.
    net.node
        .ip("route add 10.9.0.0/16 via 10.2.1.2\nroute add fd00:9::/64 via fd00:2:1::2");
    backend.ip("route add local 10.9.0.0/16 dev lo\nroute add local fd00:9::/64 dev lo");
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), BACK);
    let _server = Server::start(backend, "backend-1", &[everywhere]);
    let address = |family, number: u16| -> IpAddr {
        let [high, low] = number.to_be_bytes();
        match family {
            Family::V4 => Ipv4Addr::new(10, 9, high, low).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number).into(),
        }
    };
    for family in Family::BOTH {
        let destinations: Vec<_> = (1..=COUNT).map(|number| address(family, number)).collect();
        let call = forward(Protocol::Tcp, &destinations).args(&["--balance=round-robin"]);
        let forwarder = start(&call, &net.node);
        for number in 1..=COUNT {
            let answer = net.client.request(Protocol::Tcp, net.front(family, FRONT));
            let answer = answer.unwrap_or_else(|error| panic!("request {number}: {error}"));
            assert_eq!(answer.server, "backend-1");
        }
        let rules = net.node.ruleset();
        for destination in destinations {
            let to = SocketAddr::new(destination, BACK);
            let of_rule = |line: &&str| line.ends_with(&format!(" to {to}"));
            let rule = rules.lines().find(of_rule).expect("a rule");
            assert!(rule.contains("counter packets 1 "), "{rule}");
        }
        stop(forwarder, &net.node);
    }
}

/// No two of the ranges make a larger one. The client is in the highest of them, or just beside it.
#[test]
fn five_thousand_source_ranges() {
    const COUNT: u16 = 5000;
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    let range = |family, number: u16| match family {
        Family::V4 => {
            let [high, low] = (number * 2).to_be_bytes();
            format!("9.20.{high}.{low}")
        }
        Family::V6 => format!("fc01:{:x}::/32", number * 2),
    };
    for family in Family::BOTH {
        let (inside, beside) = match family {
            Family::V4 => ("10.1.1.2/31", "10.1.1.0/31"),
            Family::V6 => ("fd00:1:1::2/127", "fd00:1:1::/127"),
        };
        for (last, allowed) in [(inside, true), (beside, false)] {
            let mut ranges: Vec<_> = (1..COUNT).map(|number| range(family, number)).collect();
            ranges.push(last.to_owned());
            for protocol in Protocol::BOTH {
                let call = forward_to(protocol, &net.backends).env("SRC_RANGES", ranges.join(","));
                let forwarder = start(&call, &net.node);
                let front = net.front(family, FRONT);
                if allowed {
                    let answer = net.client.request(protocol, front);
                    expect_answer(answer, "backend-1", backend.gateway(family));
                } else {
                    net.client.expect_silence(protocol, front);
                }
                stop(forwarder, &net.node);
            }
        }
    }
}

/// Each costs memory of the kernel's, so there is an end, and it is said.
#[test]
fn too_many_ports_that_go_to_other_ports_are_refused() {
    let destinations: Vec<_> = (1..=5)
        .map(|host| format!("10.2.0.{host}:2-60001"))
        .collect();
    let forward = format!("tcp/1-60000={}", destinations.join(","));
    let outcome = nodefwd([forward]).finish_here().expect_exit(2);
    let said = "ranges of ports go to other ports in 300000 cases, counted for each destination: at most 262144 may";
    assert!(outcome.stderr.contains(said), "{outcome:?}");
}
