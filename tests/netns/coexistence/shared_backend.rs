//! Two instances that forward to the same port of the same backend, of which only one masquerades.
//!
//! Masquerading goes by destination, so the other's connections are masqueraded too: a limit that the
//! man page names.

use std::net::IpAddr;

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, LiveFlow, Net, Process, Protocol, forward_to,
};

/// The port of the instance without masquerading; the other one has [`FORWARDED_PORT`].
const PLAIN_PORT: u16 = FORWARDED_PORT + 1;

fn start_plain(net: &Net, protocol: Protocol) -> Process {
    let port = format!("--src-port={PLAIN_PORT}");
    let call = forward_to(protocol, &net.backends).args(&[&port, "--masquerade=false"]);
    call.start(&net.node)
}

fn start_masquerading(net: &Net, protocol: Protocol) -> Process {
    forward_to(protocol, &net.backends).start(&net.node)
}

/// Opens a flow of each family to a port of the node.
fn flows(net: &Net, protocol: Protocol, port: u16) -> [LiveFlow; 2] {
    Family::BOTH.map(|family| net.client.live_flow(protocol, net.node_addr(family, port)))
}

/// The addresses that the backend sees of flows of both families.
fn seen(flows: &[LiveFlow; 2]) -> [IpAddr; 2] {
    flows.each_ref().map(|flow| flow.reply.source.ip())
}

#[test]
fn an_instance_without_masquerading_is_masqueraded_by_one_with_the_same_backend_while_that_runs() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let client = Family::BOTH.map(|family| net.client.address(family));
    let node = Family::BOTH.map(|family| net.backends[0].gateway(family));
    for protocol in Protocol::BOTH {
        let _plain = start_plain(&net, protocol);
        let mut before = flows(&net, protocol, PLAIN_PORT);
        assert_eq!(seen(&before), client, "{protocol:?}, alone");

        let masquerading = start_masquerading(&net, protocol);
        assert_eq!(seen(&flows(&net, protocol, FORWARDED_PORT)), node);
        let mut meanwhile = flows(&net, protocol, PLAIN_PORT);
        assert_eq!(seen(&meanwhile), node, "{protocol:?}, with the other");

        masquerading.stop(Signal::SIGTERM).expect_exit(0);
        let after = flows(&net, protocol, PLAIN_PORT);
        assert_eq!(seen(&after), client, "{protocol:?}, after the other");
        // Flows keep the address that they began with.
        before.iter_mut().for_each(LiveFlow::expect_unchanged);
        meanwhile.iter_mut().for_each(LiveFlow::expect_unchanged);
    }
}

#[test]
fn the_order_in_which_the_two_start_makes_no_difference() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let node = Family::BOTH.map(|family| net.backends[0].gateway(family));
    for protocol in Protocol::BOTH {
        let _masquerading = start_masquerading(&net, protocol);
        let _plain = start_plain(&net, protocol);
        for port in [FORWARDED_PORT, PLAIN_PORT] {
            assert_eq!(seen(&flows(&net, protocol, port)), node, "{protocol:?}");
        }
    }
}
