//! Addresses and interfaces in a VRF to listen on. This machine may have no VRF devices, as stock kernels have
//! them: `tests/kernels.sh 6.1 -- --ignored vrf` runs these tests.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use super::invalid::{Sender, expect_survival};
use crate::check::Report;
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Nodefwd, PROTOCOLS_AND_FAMILIES, Protocol,
    expect_parts, expect_reply, forward_to,
};

/// A node with a VRF, `blue`, in which its links to the client and the backend are. The node has a second
/// client, which is in no VRF.
fn net() -> Net {
    let net = Net::new(1);
    net.node
        .ip("link add blue type vrf table 100\nlink set blue up");
    // An interface loses its IPv6 addresses when it moves to a VRF.
    for host in [&net.client, &net.backends[0]] {
        let v6 = host.gateway(Family::V6);
        let name = host.link();
        net.node.ip(&format!(
            "link set {name} master blue\naddr replace {v6}/64 dev {name} nodad"
        ));
    }
    for family in Family::BOTH {
        let client = net.client.address(family);
        net.node
            .ip(&format!("route add default via {client} vrf blue"));
    }
    net
}

fn listening(net: &Net, protocol: Protocol, listen: &str) -> Nodefwd {
    forward_to(protocol, &net.backends).env("NODEFWD_LISTEN", listen)
}

/// Where the client connects to.
fn node_addr(net: &Net, family: Family) -> SocketAddr {
    net.node_addr(family, FORWARDED_PORT)
}

#[test]
#[ignore = "needs VRF devices"]
fn in_a_vrf_interfaces_and_addresses_to_listen_on_are_forwarded() {
    let net = net();
    let other = net.another_client(2);
    let _servers = net.serve(BACKEND_PORT);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let to = node_addr(&net, family);
        // The default does not see addresses in a VRF.
        let forwarder = listening(&net, protocol, "local").start(&net.node);
        net.client.expect_refused(protocol, to);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        for listen in ["client", &to.ip().to_string(), "any"] {
            for masquerade in ["--masquerade=true", "--masquerade=false"] {
                let call = listening(&net, protocol, listen).args(&[masquerade]);
                let forwarder = call.start(&net.node);
                let source = match masquerade {
                    "--masquerade=true" => net.backends[0].gateway(family),
                    _ => net.client.address(family),
                };
                expect_reply(net.client.request(protocol, to), "backend-1", source);
                if listen != "any" {
                    other.expect_refused(
                        protocol,
                        SocketAddr::new(other.gateway(family), FORWARDED_PORT),
                    );
                }
                forwarder.stop(Signal::SIGTERM).expect_exit(0);
            }
        }
    }
}

#[test]
#[ignore = "needs VRF devices"]
fn in_a_vrf_connections_survive_segments_out_of_window() {
    let net = net();
    let _servers = net.serve(BACKEND_PORT);
    for masquerade in ["--masquerade=true", "--masquerade=false"] {
        for family in Family::BOTH {
            let to = node_addr(&net, family);
            for listen in ["client", &to.ip().to_string(), "any"] {
                let call = listening(&net, Protocol::Tcp, listen).args(&[masquerade]);
                let _forwarder = call.start(&net.node);
                for sender in [Sender::Client, Sender::Backend] {
                    expect_survival(&net, sender, to, BACKEND_PORT);
                }
            }
        }
    }
}

#[test]
#[ignore = "needs VRF devices"]
fn in_a_vrf_check_judges_its_routes() {
    let net = net();
    let other = net.another_client(2);
    let gateways = Family::BOTH.map(|family| node_addr(&net, family).ip().to_string());
    let forwards = "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080";
    for listen in ["client", &gateways.join(",")] {
        let call = format!("--listen={listen} {forwards}");
        Report::of(&net.node, &call).expect_ok();
        // Of another VRF, or none, the routes do not count.
        for (destination, family) in [("10.2.1.2", "-4"), ("fd00:2:1::2", "-6")] {
            let route = |action: &str, of: &[&str]| {
                let route = [family, "route", action, "blackhole", destination];
                net.node.succeed("ip", &[&route[..], of].concat());
            };
            route("add", &[]);
            Report::of(&net.node, &call).expect_ok();
            route("del", &[]);
            route("add", &["vrf", "blue"]);
            let report = Report::of(&net.node, &call);
            let line = report.only("failure", "routes");
            let command = format!("ip route add {destination} via ROUTER vrf blue");
            assert_eq!(line.command(), command);
            route("del", &["vrf", "blue"]);
        }
        Report::of(&net.node, &call).expect_ok();
    }
    // Clients of the interface come in there; from one that forwards nothing, nothing is forwarded.
    let call = format!("--listen=client {forwards}");
    net.node.set_sysctl("net/ipv4/conf/client/forwarding", "0");
    let report = Report::of(&net.node, &call);
    let failures = report.of_level("failure");
    assert_eq!(failures.len(), 1, "{report:#?}");
    expect_parts(&failures[0].text, ["packets that come in on client"]);
    net.node.set_sysctl("net/ipv4/conf/client/forwarding", "1");
    let report = Report::of(&net.node, &format!("--listen=blue {forwards}"));
    expect_parts(&report.line("warning", "listen").text, ["blue is a VRF"]);
    let both = format!("--listen=client,{} {forwards}", other.link());
    let report = Report::of(&net.node, &both);
    expect_parts(
        &report.line("warning", "listen").text,
        ["not looked at: routes in VRFs"],
    );
}
