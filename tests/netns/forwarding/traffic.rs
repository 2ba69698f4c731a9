//! Which traffic goes where, and what stays as it was.

use std::collections::HashMap;
use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::fixture::{BACK, FRONT, expect_answer, forward, forward_to};
use crate::fixture::{Family, Net, Protocol, nodefwd};

fn a_request_reaches_the_backend_and_its_answer_comes_back(protocol: Protocol, family: Family) {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    let front = net.front(family, FRONT);
    net.client.expect_refused(protocol, front);

    let forwarder = forward(protocol, &[backend.address(family)]).start(&net.node);
    // Masqueraded: the backend sees the node.
    let answer = net.client.request(protocol, front);
    expect_answer(answer, "backend-1", backend.gateway(family));

    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    net.client.expect_refused(protocol, front);
}

#[test]
fn tcp_over_ipv4_is_forwarded() {
    a_request_reaches_the_backend_and_its_answer_comes_back(Protocol::Tcp, Family::V4);
}

#[test]
fn tcp_over_ipv6_is_forwarded() {
    a_request_reaches_the_backend_and_its_answer_comes_back(Protocol::Tcp, Family::V6);
}

#[test]
fn udp_over_ipv4_is_forwarded() {
    a_request_reaches_the_backend_and_its_answer_comes_back(Protocol::Udp, Family::V4);
}

#[test]
fn udp_over_ipv6_is_forwarded() {
    a_request_reaches_the_backend_and_its_answer_comes_back(Protocol::Udp, Family::V6);
}

#[test]
fn only_the_protocol_and_port_asked_for_are_forwarded() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let _forwarder = forward_to(Protocol::Tcp, &net.backends).start(&net.node);
    for family in Family::BOTH {
        let front = net.front(family, FRONT);
        net.client.request(Protocol::Tcp, front).expect("an answer");
        net.client.expect_refused(Protocol::Udp, front);
        for port in [FRONT - 1, FRONT + 1, BACK] {
            let beside = net.front(family, port);
            net.client.expect_refused(Protocol::Tcp, beside);
        }
    }
}

#[test]
fn flags_mean_the_same_as_variables() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    let destinations = Family::BOTH.map(|family| backend.address(family).to_string());
    let arguments = format!(
        "--dest-ips {} --dest-proto udp --src-port {FRONT} --dest-port {BACK}",
        destinations.join(",")
    );
    let _forwarder = nodefwd(arguments.split(' ')).start(&net.node);
    for family in Family::BOTH {
        let answer = net.client.request(Protocol::Udp, net.front(family, FRONT));
        expect_answer(answer, "backend-1", backend.gateway(family));
    }
}

#[test]
fn without_a_destination_port_the_port_stays_the_same() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(FRONT);
    let _forwarder = nodefwd([""; 0])
        .env("DEST_IPS", backend.address(Family::V4).to_string())
        .env("DEST_PROTO", "TCP")
        .env("SRC_PORT", FRONT.to_string())
        .start(&net.node);
    let answer = net
        .client
        .request(Protocol::Tcp, net.front(Family::V4, FRONT));
    expect_answer(answer, "backend-1", backend.gateway(Family::V4));
}

#[test]
fn each_family_goes_to_its_own_destination() {
    let net = Net::new(2);
    let [first, second] = &net.backends[..] else {
        unreachable!()
    };
    let _servers = [first.serve(BACK), second.serve(BACK)];
    let destinations = [first.address(Family::V4), second.address(Family::V6)];
    for protocol in Protocol::BOTH {
        let _forwarder = forward(protocol, &destinations).start(&net.node);
        let answer = net.client.request(protocol, net.front(Family::V4, FRONT));
        expect_answer(answer, "backend-1", first.gateway(Family::V4));
        let answer = net.client.request(protocol, net.front(Family::V6, FRONT));
        expect_answer(answer, "backend-2", second.gateway(Family::V6));
    }
}

/// Each request is one fair choice out of three, independent of the others. By Hoeffding's
/// inequality a count out of n = 300 is t = 70 or more away from its mean of 100 with a
/// probability below 2 exp(-2 t^2 / n) = 1.3e-14, and there are 12 counts.
#[test]
fn connections_are_spread_at_random_over_all_destinations() {
    let net = Net::new(3);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        for family in Family::BOTH {
            let mut counts = HashMap::new();
            for _ in 0..300 {
                let answer = net.client.request(protocol, net.front(family, FRONT));
                *counts.entry(answer.expect("an answer").server).or_insert(0) += 1;
            }
            assert_eq!(counts.len(), 3, "{protocol:?} {family:?}: {counts:?}");
            for count in counts.values() {
                assert!(
                    (31..170).contains(count),
                    "{protocol:?} {family:?}: {counts:?}"
                );
            }
        }
    }
}

#[test]
fn a_flow_stays_with_its_destination() {
    let net = Net::new(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        for family in Family::BOTH {
            let front = net.front(family, FRONT);
            let mut flow = net.client.connect(protocol, front).expect("a connection");
            let first = flow.ask().expect("an answer");
            // Were each packet balanced anew, all would agree with a probability of 2^-50.
            for _ in 0..50 {
                assert_eq!(flow.ask().expect("an answer"), first);
            }
        }
    }
}

#[test]
fn a_destination_is_not_forwarded_to_itself() {
    let net = Net::new(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        for family in Family::BOTH {
            for backend in &net.backends {
                let front = SocketAddr::new(backend.gateway(family), FRONT);
                backend.expect_refused(protocol, front);
            }
            // The very same address and port serve everyone else.
            let front = SocketAddr::new(net.backends[0].gateway(family), FRONT);
            net.client.request(protocol, front).expect("an answer");
        }
    }
}

#[test]
fn with_hairpin_a_destination_reaches_itself() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    for protocol in Protocol::BOTH {
        let hairpin = forward_to(protocol, &net.backends).args(&["--hairpin=true"]);
        let _forwarder = hairpin.start(&net.node);
        for family in Family::BOTH {
            let front = SocketAddr::new(backend.gateway(family), FRONT);
            let answer = backend.request(protocol, front);
            expect_answer(answer, "backend-1", backend.gateway(family));
        }
    }
}

/// It takes itself for the client.
#[test]
fn with_hairpin_and_without_masquerading_a_start_warns_that_it_does_not() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    let call = forward_to(Protocol::Tcp, &net.backends);
    let forwarder = call
        .args(&["--hairpin=true", "--masquerade=false"])
        .start(&net.node);
    let stderr = forwarder.stderr();
    let about = |line: &&str| line.starts_with("warning: NODEFWD_HAIRPIN");
    assert_eq!(stderr.lines().filter(about).count(), 1, "{stderr}");
    for family in Family::BOTH {
        let front = SocketAddr::new(backend.gateway(family), FRONT);
        backend.expect_silence(Protocol::Tcp, front);
    }
}

#[test]
fn traffic_that_passes_through_is_left_alone() {
    let net = Net::new(2);
    let [destination, stranger] = &net.backends[..] else {
        unreachable!()
    };
    let _servers = [destination.serve(BACK), stranger.serve(FRONT)];
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends[..1]).start(&net.node);
        for family in Family::BOTH {
            let client = net.client.address(family);
            // Somebody else's service on the port that is forwarded here.
            let to = SocketAddr::new(stranger.address(family), FRONT);
            expect_answer(net.client.request(protocol, to), "backend-2", client);
            // And the destination itself, when it is asked directly.
            let to = SocketAddr::new(destination.address(family), BACK);
            expect_answer(net.client.request(protocol, to), "backend-1", client);
        }
    }
}

#[test]
fn the_nodes_own_traffic_is_left_alone() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        for family in Family::BOTH {
            // Masquerading would replace this source by the address on the backend's link.
            let source = net.client.gateway(family);
            let to = SocketAddr::new(backend.address(family), BACK);
            let answer = net
                .node
                .request_from(protocol, SocketAddr::new(source, 0), to);
            expect_answer(answer, "backend-1", source);
            net.node.expect_refused(protocol, net.front(family, FRONT));
        }
    }
}
