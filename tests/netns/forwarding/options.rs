//! What the options change, in traffic.

use std::net::{IpAddr, SocketAddr};

use nix::sys::signal::Signal;

use crate::fixture::{BACK, FRONT, expect_answer, forward_to};
use crate::fixture::{Family, Namespace, Net, Protocol, Server, nodefwd};

#[test]
fn without_masquerading_the_backend_sees_the_client() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends).args(&["--masquerade=false"]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let front = net.front(family, FRONT);
            let mut flow = net.client.connect(protocol, front).expect("a connection");
            let source = flow.source();
            assert_eq!(flow.ask().expect("an answer").source, source);
        }
    }
}

#[test]
fn with_output_the_nodes_own_connections_are_forwarded() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends).args(&["--output=true"]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let answer = net.node.request(protocol, net.front(family, FRONT));
            expect_answer(answer, "backend-1", backend.gateway(family));
        }
    }
}

#[test]
fn listening_to_any_takes_what_passes_through() {
    let net = Net::new(2);
    let [destination, stranger] = &net.backends[..] else {
        unreachable!()
    };
    let _servers = [destination.serve(BACK), stranger.serve(FRONT)];
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends[..1]).args(&["--listen=any"]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let to = SocketAddr::new(stranger.address(family), FRONT);
            let answer = net.client.request(protocol, to);
            expect_answer(answer, "backend-1", destination.gateway(family));
        }
    }
}

#[test]
fn listening_to_addresses_takes_only_theirs() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    // Addresses of the client's link; the backend's link has others, as local as these.
    let listen = Family::BOTH.map(|family| net.client.gateway(family).to_string());
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends).env("NODEFWD_LISTEN", listen.join(","));
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let answer = net.client.request(protocol, net.front(family, FRONT));
            expect_answer(answer, "backend-1", backend.gateway(family));
            let elsewhere = SocketAddr::new(backend.gateway(family), FRONT);
            net.client.expect_refused(protocol, elsewhere);
        }
    }
}

#[test]
fn round_robin_takes_each_destination_in_turn() {
    let net = Net::new(3);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends).args(&["--balance=round-robin"]);
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let front = net.front(family, FRONT);
            for number in 1..=30 {
                net.client.request(protocol, front).expect("an answer");
                let mut taken = taken(&net.node, family);
                taken.sort();
                // A client that had to send its first packet twice takes two turns.
                let in_turn = taken[2] - taken[0] <= 1 && taken.iter().sum::<u64>() >= number;
                assert!(in_turn, "after {number}: {taken:?}");
            }
        }
    }
}

/// How many connections of a family the rules have given to each destination.
fn taken(node: &Namespace, family: Family) -> [u64; 3] {
    let dnat = match family {
        Family::V4 => "dnat ip to",
        Family::V6 => "dnat ip6 to",
    };
    let rules = node.ruleset();
    let rules = rules.lines().filter(|line| line.contains(dnat));
    let taken = rules.map(|rule| {
        let (_, count) = rule.split_once("counter packets ").expect("a counter");
        let count = count.split(' ').next().expect("a number");
        count.parse().expect("a number")
    });
    taken.collect::<Vec<u64>>().try_into().expect("three rules")
}

/// A hundred clients of each family choose between two destinations. Were each request balanced
/// at random, a client's nine later ones would all agree with its first with a probability of
/// 2^-9, and so for all clients of 2^-1800. A fair hash sends all hundred to the same destination
/// with one of 2^-99.
#[test]
fn balanced_by_source_a_client_stays_with_its_destination() {
    let net = Net::new(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    let sources = Family::BOTH.map(|family| many_addresses(&net, family));
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
        assert!(
            family.iter().any(|server| *server != family[0]),
            "{before:?}"
        );
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    // The list is the same, so the choices survive a restart.
    let _forwarder = call.start(&net.node);
    assert_eq!(choices(), before);
}

/// Gives the client a hundred more addresses.
fn many_addresses(net: &Net, family: Family) -> Vec<IpAddr> {
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

/// The server that answers all of a client's requests.
#[track_caller]
fn the_one_server(net: &Net, source: IpAddr) -> String {
    let family = if source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let (from, to) = (SocketAddr::new(source, 0), net.front(family, FRONT));
    let request = || {
        net.client
            .request_from(Protocol::Tcp, from, to)
            .expect("an answer")
            .server
    };
    let first = request();
    for _ in 0..9 {
        assert_eq!(request(), first, "{source}");
    }
    first
}

#[test]
fn one_process_forwards_many_ports_and_protocols() {
    let net = Net::new(2);
    let [first, second] = &net.backends[..] else {
        unreachable!()
    };
    let ports = [8080, 5353, 9000, 9001, 9002];
    let _servers = ports.map(|port| [first.serve(port), second.serve(port)]);
    for family in Family::BOTH {
        let [one, two] = [first, second].map(|host| match host.address(family) {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
        let forwarder = nodefwd([
            format!("tcp/80={one}:8080"),
            format!("udp/53={two}:5353"),
            format!("tcp/7000-7002={one}:9000-9002"),
            format!("tcp/7100-7200={two}:9001"),
        ])
        .start(&net.node);
        for (protocol, port, host, server) in [
            (Protocol::Tcp, 80, first, "backend-1"),
            (Protocol::Udp, 53, second, "backend-2"),
            (Protocol::Tcp, 7000, first, "backend-1"),
            (Protocol::Tcp, 7002, first, "backend-1"),
            (Protocol::Tcp, 7100, second, "backend-2"),
            (Protocol::Tcp, 7200, second, "backend-2"),
        ] {
            let answer = net.client.request(protocol, net.front(family, port));
            expect_answer(answer, server, host.gateway(family));
        }
        for port in [53, 79, 81, 6999, 7003, 7099, 7201] {
            net.client
                .expect_refused(Protocol::Tcp, net.front(family, port));
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// A range goes to the port at the same place in the other range: seen by which port answers.
#[test]
fn a_range_is_forwarded_port_by_port() {
    let net = Net::new(1);
    let back = &net.backends[0];
    for family in Family::BOTH {
        let server = |port: u16| {
            let address = SocketAddr::new(back.address(family), port);
            Server::start(back, &format!("port-{port}"), &[address])
        };
        let _servers = [9000, 9001, 9002].map(server);
        let call = nodefwd(["--dest-proto=tcp,udp", "--src-port=7000-7002"])
            .env("DEST_IPS", back.address(family).to_string())
            .env("DEST_PORT", "9000-9002");
        let forwarder = call.start(&net.node);
        for protocol in Protocol::BOTH {
            for (front, server) in [
                (7000, "port-9000"),
                (7001, "port-9001"),
                (7002, "port-9002"),
            ] {
                let answer = net.client.request(protocol, net.front(family, front));
                expect_answer(answer, server, back.gateway(family));
            }
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}
