//! One process with very many forwards, backends or source ranges.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Host, Namespace, Net, Nodefwd, PROTOCOLS_AND_FAMILIES,
    Process, Protocol, Server, expect_parts, expect_reply, forward, forward_to, nodefwd,
};

/// Starts it in a namespace without rules, and expects one table.
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

/// Forwards so many ports from the first one on, for every protocol and family; `to` says where.
fn many_forwards(first: u16, ports: u16, to: impl Fn(Family, u16) -> String) -> Vec<String> {
    let forwards = (first..first + ports).flat_map(|port| {
        PROTOCOLS_AND_FAMILIES
            .map(|(protocol, family)| format!("{}/{port}={}", protocol.name(), to(family, port)))
    });
    forwards.collect()
}

/// Each port is forwarded for every protocol and family, each to a port of its own.
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
    let to = |family, port| SocketAddr::new(backend.address(family), port + OFFSET).to_string();
    let forwards = many_forwards(FIRST, PORTS, to);
    assert_eq!(forwards.len(), 10_000);

    let forwarder = start(&nodefwd(&forwards), &net.node);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        for port in probed {
            let reply = net.client.request(protocol, net.node_addr(family, port));
            expect_reply(reply, &format!("for-{port}"), backend.gateway(family));
        }
        for port in [FIRST - 1, FIRST + PORTS] {
            let not_forwarded = net.node_addr(family, port);
            net.client.expect_refused(protocol, not_forwarded);
        }
    }
    stop(forwarder, &net.node);
}

/// Far more backends than one of the shared maps holds.
#[test]
fn four_thousand_balanced_forwards() {
    const PORTS: u16 = 1000;
    const FIRST: u16 = 10000;
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let to = |family, _| {
        let to = |host: &Host| SocketAddr::new(host.address(family), BACKEND_PORT);
        net.two_backends()
            .map(|host| to(host).to_string())
            .join(",")
    };
    let forwards = many_forwards(FIRST, PORTS, to);
    assert_eq!(forwards.len(), 4000);

    let call = nodefwd(&forwards).args(&["--balance=round-robin"]);
    let forwarder = start(&call, &net.node);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        for port in [FIRST, FIRST + PORTS / 2, FIRST + PORTS - 1] {
            let node_addr = net.node_addr(family, port);
            // Both stay open: a UDP flow from the port of a closed one would be the same flow.
            let flows = [(); 2].map(|()| net.client.live_flow(protocol, node_addr));
            let mut servers = flows.each_ref().map(|flow| &*flow.reply.server);
            servers.sort();
            let both = ["backend-1", "backend-2"];
            assert_eq!(servers, both, "{protocol:?} {family:?} {port}");
        }
    }
    stop(forwarder, &net.node);
}

/// Each gets one of a thousand connections, as the counters of the rules say.
#[test]
fn a_thousand_backends_of_one_forward() {
    const COUNT: u16 = 1000;
    let net = Net::new(1);
    let backend = &net.backends[0];
    // All addresses of these networks are the backend's.
    net.node
        .ip("route add 10.9.0.0/16 via 10.2.1.2\nroute add fd00:9::/64 via fd00:2:1::2");
    backend.ip("route add local 10.9.0.0/16 dev lo\nroute add local fd00:9::/64 dev lo");
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), BACKEND_PORT);
    let _server = Server::start(backend, "backend-1", &[everywhere]);
    let address = |family, number: u16| -> IpAddr {
        let [high, low] = number.to_be_bytes();
        match family {
            Family::V4 => Ipv4Addr::new(10, 9, high, low).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number).into(),
        }
    };
    for family in Family::BOTH {
        let backends: Vec<_> = (1..=COUNT).map(|number| address(family, number)).collect();
        let call = forward(Protocol::Tcp, &backends).args(&["--balance=round-robin"]);
        let forwarder = start(&call, &net.node);
        for number in 1..=COUNT {
            let reply = net
                .client
                .request(Protocol::Tcp, net.node_addr(family, FORWARDED_PORT));
            let reply = reply.unwrap_or_else(|error| panic!("request {number}: {error}"));
            assert_eq!(reply.server, "backend-1");
        }
        let rules = net.node.ruleset();
        for address in backends {
            let to = SocketAddr::new(address, BACKEND_PORT);
            let of_rule = |line: &&str| line.ends_with(&format!(" to {to}"));
            let rule = rules.lines().find(of_rule).expect("a rule");
            assert!(rule.contains("counter packets 1 "), "{rule}");
        }
        stop(forwarder, &net.node);
    }
}

/// No two of the ranges can be merged. The client is in the highest of them, or next to it.
#[test]
fn five_thousand_source_ranges() {
    const COUNT: u16 = 5000;
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    let range = |family, number: u16| match family {
        Family::V4 => {
            let [high, low] = (number * 2).to_be_bytes();
            format!("9.20.{high}.{low}")
        }
        Family::V6 => format!("fc01:{:x}::/32", number * 2),
    };
    for family in Family::BOTH {
        let (around_client, next_to_client) = match family {
            Family::V4 => ("10.1.1.2/31", "10.1.1.0/31"),
            Family::V6 => ("fd00:1:1::2/127", "fd00:1:1::/127"),
        };
        for (last, allowed) in [(around_client, true), (next_to_client, false)] {
            let mut ranges: Vec<_> = (1..COUNT).map(|number| range(family, number)).collect();
            ranges.push(last.to_owned());
            for protocol in Protocol::BOTH {
                let call = forward_to(protocol, &net.backends).env("SRC_RANGES", ranges.join(","));
                let forwarder = start(&call, &net.node);
                let node_addr = net.node_addr(family, FORWARDED_PORT);
                if allowed {
                    let reply = net.client.request(protocol, node_addr);
                    expect_reply(reply, "backend-1", backend.gateway(family));
                } else {
                    net.client.expect_silence(protocol, node_addr);
                }
                stop(forwarder, &net.node);
            }
        }
    }
}

/// Each costs kernel memory.
#[test]
fn too_many_ports_that_go_to_other_ports_are_rejected_with_the_limit() {
    let backends: Vec<_> = (1..=5)
        .map(|host| format!("10.2.0.{host}:2-60001"))
        .collect();
    let forward = format!("tcp/1-60000={}", backends.join(","));
    let outcome = nodefwd([forward]).finish_here().expect_exit(2);
    let message = "300000 ports of ranges are mapped to other ports, counted for each destination; the limit is 262144";
    expect_parts(&outcome.stderr, [message]);
}

/// Each costs kernel memory. Without a limit, 20,000 ports times 5,000 destinations would take
/// gigabytes before anything is installed.
#[test]
fn too_many_destinations_of_balanced_forwards_are_rejected_with_the_limit() {
    let addresses: Vec<_> = (0..5000)
        .map(|host| format!("10.2.{}.{}", host / 250, host % 250))
        .collect();
    let ports: Vec<_> = (1..=20_000).map(|port| port.to_string()).collect();
    let classic = nodefwd(["render"])
        .env("DEST_IPS", addresses.join(","))
        .env("DEST_PROTO", "TCP")
        .env("SRC_PORT", ports.join(","));
    let listed = (1..=14).map(|port| format!("tcp/{port}={}", addresses.join(",")));
    let listed = nodefwd(iter::once("render".to_owned()).chain(listed));
    for (call, count) in [(classic, 100_000_000), (listed, 70_000)] {
        let outcome = call.finish_here().expect_exit(2);
        let message = format!(
            "forwards with several destinations have {count} destinations in all: at most 65536 are allowed, so list fewer in DEST_IPS"
        );
        expect_parts(&outcome.stderr, [message.as_str()]);
    }
    // One that alone stands for too many is refused before they are listed.
    let lists = format!("tcp,udp/{}={}", ports[..100].join(","), addresses.join(","));
    let outcome = nodefwd(["render", &lists]).finish_here().expect_exit(2);
    let message = "stands for 1000000 destinations, counted for each protocol and port: at most 262144 are allowed";
    expect_parts(&outcome.stderr, [message]);
    // One destination of each family is not balanced.
    let single = nodefwd(["render"])
        .env("DEST_IPS", "10.2.0.1,fd00:2::1")
        .env("DEST_PROTO", "TCP")
        .env("SRC_PORT", ports[..].join(","));
    single.finish_here().expect_exit(0);
}
