//! NODEFWD_LISTEN with names of interfaces.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Host, Net, Nodefwd, PROTOCOLS_AND_FAMILIES, Protocol,
    expect_parts, expect_reply, forward_to, nodefwd,
};

fn listening(net: &Net, protocol: Protocol, listen: &str) -> Nodefwd {
    forward_to(protocol, &net.backends).env("NODEFWD_LISTEN", listen)
}

#[track_caller]
fn expect_forwarded(net: &Net, from: &Host, protocol: Protocol, to: SocketAddr) {
    let reply = from.request(protocol, to);
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    expect_reply(reply, "backend-1", net.backends[0].gateway(family));
}

/// The address of the node that a host is linked to.
fn gateway(host: &Host, family: Family) -> SocketAddr {
    SocketAddr::new(host.gateway(family), FORWARDED_PORT)
}

#[test]
fn only_what_comes_in_on_the_interface_is_forwarded_to_whichever_address_of_the_host() {
    let net = Net::new(1);
    let other = net.another_client(2);
    let _servers = net.serve(BACKEND_PORT);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let forwarder = listening(&net, protocol, "client").start(&net.node);
        for to in [gateway(&net.client, family), gateway(&other, family)] {
            expect_forwarded(&net, &net.client, protocol, to);
            other.expect_refused(protocol, to);
        }
        // Not what is only routed.
        let elsewhere = SocketAddr::new(net.backends[0].address(family), FORWARDED_PORT);
        net.client.expect_refused(protocol, elsewhere);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);

        // Mixed with addresses, which may be reached over any interface.
        let listen = format!("client, {}", other.gateway(family));
        let forwarder = listening(&net, protocol, &listen).start(&net.node);
        expect_forwarded(&net, &net.client, protocol, gateway(&net.client, family));
        expect_forwarded(&net, &other, protocol, gateway(&other, family));
        other.expect_refused(protocol, gateway(&net.client, family));
        let text = nodefwd(["status"]).finish(&net.node).expect_success();
        let listen = format!("options: listen {}, client", other.gateway(family));
        let mut parts = text.split(['\n', ';']).map(str::trim);
        assert!(parts.any(|part| part == listen), "{text}");
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

#[test]
fn the_interface_may_change_its_addresses_its_name_or_come_later() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let protocol = Protocol::Tcp;
    let forwarder = listening(&net, protocol, "client,client-2").start(&net.node);
    net.node.ip("addr add 10.8.8.8/32 dev client
         addr add fd00:8::8/128 dev client nodad");
    let new = |family| match family {
        Family::V4 => SocketAddr::from(([10, 8, 8, 8], FORWARDED_PORT)),
        Family::V6 => SocketAddr::new("fd00:8::8".parse().expect("an address"), FORWARDED_PORT),
    };
    for family in Family::BOTH {
        expect_forwarded(&net, &net.client, protocol, new(family));
    }
    let other = net.another_client(2);
    for family in Family::BOTH {
        expect_forwarded(&net, &other, protocol, gateway(&other, family));
    }
    // An interface that goes down loses its IPv6 addresses.
    net.node.ip("link set client-2 down
         link set client-2 name another
         link set another up
         addr replace fd00:1:2::1/64 dev another nodad");
    for family in Family::BOTH {
        other.expect_refused(protocol, gateway(&other, family));
        expect_forwarded(&net, &net.client, protocol, gateway(&net.client, family));
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn siblings_on_other_interfaces_are_no_conflict_and_their_flows_are_not_touched() {
    let net = Net::new(1);
    let other = net.another_client(2);
    let _servers = net.serve(BACKEND_PORT);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let first = listening(&net, protocol, "client").start(&net.node);
        let named = |listen: &str| listening(&net, protocol, listen).args(&["--name=second"]);
        for listen in [
            "client",
            "client,client-2",
            "local",
            "any",
            "10.1.2.1,fd00:1:2::1",
        ] {
            let stderr = named(listen).finish(&net.node).expect_exit(1).stderr;
            expect_parts(
                &stderr,
                ["already forwarded by table inet nodefwd-", "interfaces"],
            );
        }
        let mut flow = net.client.live_flow(protocol, gateway(&net.client, family));
        let second = named("client-2").start(&net.node);
        let mut others = other.live_flow(protocol, gateway(&other, family));
        flow.expect_unchanged();
        second.stop(Signal::SIGTERM).expect_exit(0);
        flow.expect_unchanged();
        others.expect_closed();
        first.stop(Signal::SIGTERM).expect_exit(0);
        flow.expect_closed();
    }
}

#[test]
fn a_name_that_no_interface_can_have_is_refused_and_one_that_none_has_is_a_warning() {
    let net = Net::new(1);
    for wrong in [
        "sixteen-bytes-ab",
        "a/b",
        "my eth",
        "eth 0",
        ".",
        "..",
        "a:b",
        "10.1.0.300",
        "eth0,any",
    ] {
        let call = listening(&net, Protocol::Tcp, wrong);
        let stderr = call.finish(&net.node).expect_exit(2).stderr;
        expect_parts(&stderr, ["NODEFWD_LISTEN (--listen): '"]);
    }
    let missing = listening(&net, Protocol::Tcp, "client,exactly15bytes_");
    let forwarder = missing.start(&net.node);
    let warning = forwarder.wait_for_line("warning: listen: ");
    expect_parts(&warning, ["no interface exactly15bytes_"]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    let output = missing.args(&["--output"]).start(&net.node);
    output.wait_for_line("warning: NODEFWD_OUTPUT (--output) is true, but");
    output.stop(Signal::SIGTERM).expect_exit(0);
}
