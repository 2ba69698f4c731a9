//! Who may connect.

use std::net::SocketAddr;

use crate::fixture::{BACK, FRONT, expect_answer, forward_to};
use crate::fixture::{Family, Net, Nodefwd, Protocol};

fn allowing(net: &Net, protocol: Protocol, ranges: &str) -> Nodefwd {
    forward_to(protocol, &net.backends).env("SRC_RANGES", ranges)
}

#[test]
fn who_is_in_a_range_is_served_and_others_get_no_answer() {
    let net = Net::new(1);
    let other = net.another_client(2);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    for protocol in Protocol::BOTH {
        // The second client lives right beside each range.
        let call = allowing(&net, protocol, "10.1.1.0/24,fd00:1:1::/64,10.9.0.0/16");
        let _forwarder = call.start(&net.node);
        for family in Family::BOTH {
            let front = net.front(family, FRONT);
            expect_answer(
                net.client.request(protocol, front),
                "backend-1",
                backend.gateway(family),
            );
            other.expect_silence(protocol, front);
        }
    }
}

/// Dropped on the first try, and on every later one of the same flow.
#[test]
fn who_is_refused_once_is_refused_again() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let call = allowing(&net, Protocol::Udp, "10.9.0.0/16,fd00:9::/64");
    let _forwarder = call.start(&net.node);
    for family in Family::BOTH {
        let from = SocketAddr::new(net.client.address(family), 40000);
        for _ in 0..2 {
            net.client
                .expect_silence_from(Protocol::Udp, from, net.front(family, FRONT));
        }
    }
}

#[test]
fn a_single_address_is_a_range() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let other = net.another_client(2);
    let _server = backend.serve(BACK);
    let ranges = Family::BOTH.map(|family| other.address(family).to_string());
    let _forwarder = allowing(&net, Protocol::Tcp, &ranges.join(" ")).start(&net.node);
    for family in Family::BOTH {
        let front = net.front(family, FRONT);
        let answer = other.request(Protocol::Tcp, front);
        expect_answer(answer, "backend-1", backend.gateway(family));
        net.client.expect_silence(Protocol::Tcp, front);
    }
}

#[test]
fn a_family_without_a_range_is_denied_with_a_warning() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    let forwarder = allowing(&net, Protocol::Tcp, "10.1.0.0/16").start(&net.node);
    let answer = net
        .client
        .request(Protocol::Tcp, net.front(Family::V4, FRONT));
    expect_answer(answer, "backend-1", backend.gateway(Family::V4));
    net.client
        .expect_silence(Protocol::Tcp, net.front(Family::V6, FRONT));
    let stderr = forwarder.stderr();
    let warned = |line: &str| line.contains("SRC_RANGES") && line.contains("IPv6");
    assert!(stderr.lines().any(warned), "{stderr}");
}

#[test]
fn an_empty_list_allows_everyone() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    let _forwarder = allowing(&net, Protocol::Tcp, "").start(&net.node);
    for family in Family::BOTH {
        let answer = net.client.request(Protocol::Tcp, net.front(family, FRONT));
        expect_answer(answer, "backend-1", backend.gateway(family));
    }
}
