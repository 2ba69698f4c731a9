//! `NODEFWD_FAST_PATH`: connections that a flowtable has taken over must fare as they do without. For most, the kernel needs
//! flowtables, as stock ones have them: `tests/kernels.sh 6.12 -- --ignored fast_path` runs these tests.

mod changes;
mod endings;
mod interfaces;
mod packets;
mod selection;
mod support;

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Host, LiveFlow, Namespace, Net, Nodefwd, Outcome,
    Process, Protocol, Server, nodefwd, wait_until,
};

/// The node's interfaces to its client and its first backend.
const INTERFACES: &str = "--fast-path=client,backend-1";

/// Forwards both protocols over both families to the first backend.
const FORWARDS: &str = "tcp,udp/80=10.2.1.2:8080,[fd00:2:1::2]:8080";

/// A call that forwards both protocols over both families to these hosts.
fn forward_both(hosts: &[Host]) -> Nodefwd {
    let addresses = |host: &Host| {
        let [v4, v6] = Family::BOTH.map(|family| host.address(family));
        format!("{v4}:{BACKEND_PORT},[{v6}]:{BACKEND_PORT}")
    };
    let destinations: Vec<_> = hosts.iter().map(addresses).collect();
    nodefwd([format!(
        "tcp,udp/{FORWARDED_PORT}={}",
        destinations.join(",")
    )])
    .args(&["--name=web"])
}

/// A forwarder with a fast path, its client and its backend.
struct Fast {
    net: Net,
    forwarder: Process,
    _servers: Vec<Server>,
}

impl Fast {
    fn start(options: &[&str]) -> Self {
        let net = Net::new(1);
        let forwarder = forward_both(&net.backends).args(options).start(&net.node);
        let _servers = net.serve(BACKEND_PORT);
        Fast {
            net,
            forwarder,
            _servers,
        }
    }

    /// A flow that the flowtable has taken over.
    #[track_caller]
    fn flow(&self, protocol: Protocol, family: Family) -> LiveFlow {
        offloaded_flow(&self.net, &self.net.client, protocol, family)
    }

    fn stop(self) -> Outcome {
        self.forwarder.stop(Signal::SIGTERM).expect_exit(0)
    }
}

/// Opens a flow from a client, and waits until it is in the flowtable.
#[track_caller]
fn offloaded_flow(net: &Net, client: &Host, protocol: Protocol, family: Family) -> LiveFlow {
    let to = std::net::SocketAddr::new(client.gateway(family), FORWARDED_PORT);
    let mut flow = client.live_flow(protocol, to);
    expect_taken(&net.node, protocol, family, &mut flow);
    flow
}

/// Makes requests until the flow is in the flowtable: those of UDP have had a reply before.
#[track_caller]
fn expect_taken(node: &Namespace, protocol: Protocol, family: Family, flow: &mut LiveFlow) {
    let port = flow.source().port();
    wait_until(
        "a flow in the flowtable",
        || {
            flow.expect_unchanged();
            entry(node, protocol, family, port)
        },
        |entry| entry.contains("[OFFLOAD]"),
    );
}

/// The conntrack entry of the flow that was made from this port, as conntrack(8) shows it; empty if there is none.
fn entry(node: &Namespace, protocol: Protocol, family: Family, source_port: u16) -> String {
    let family = match family {
        Family::V4 => "--family=ipv4",
        Family::V6 => "--family=ipv6",
    };
    let port = format!("--orig-port-src={source_port}");
    node.succeed(
        "conntrack",
        &["--dump", family, "--proto", protocol.name(), &port],
    )
}

/// A chain of another program that sees every forwarded packet, and counts it.
const COUNTER: &str = "table inet counting {
    counter forwarded { }
    chain forward {
        type filter hook forward priority filter;
        counter name forwarded
    }
}";

/// How many packets have come by there.
fn forwarded(node: &Namespace) -> u64 {
    let listed = node.succeed("nft", &["list", "counter", "inet", "counting", "forwarded"]);
    let packets = listed.split("packets ").nth(1).expect("a counter");
    let packets = packets.split(' ').next().expect("a number");
    packets.parse().expect("a number")
}

/// Fails the test unless packets of the flow bypass the chains of other programs.
#[track_caller]
fn expect_bypass(node: &Namespace, flow: &mut LiveFlow) {
    let before = forwarded(node);
    (0..10).for_each(|_| flow.expect_unchanged());
    assert_eq!(forwarded(node), before, "packets take the usual path");
}
