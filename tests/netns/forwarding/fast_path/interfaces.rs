//! Interfaces that come, go and are renamed, and those with others below them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::{
    COUNTER, FORWARDS, Fast, INTERFACES, expect_bypass, expect_taken, forward_both, forwarded,
};
use crate::fixture::{
    BACKEND_PORT, Bridge, FORWARDED_PORT, Family, LiveFlow, Namespace, Net, PROTOCOLS_AND_FAMILIES,
    Protocol, nodefwd, wait_until,
};

/// Whether the kernel has this interface in a flowtable.
fn is_taken(net: &Net, name: &str) -> bool {
    let listed = net.node.succeed("nft", &["list", "flowtables"]);
    let devices = listed.lines().filter(|line| line.contains("devices = "));
    let names = devices.flat_map(|line| line.split(|c: char| " ,{}\"\t".contains(c)));
    names.into_iter().any(|word| word == name)
}

fn flows(net: &Net) -> Vec<(Protocol, Family, LiveFlow)> {
    let open = |(protocol, family)| {
        let flow = net
            .client
            .live_flow(protocol, net.node_addr(family, FORWARDED_PORT));
        (protocol, family, flow)
    };
    PROTOCOLS_AND_FAMILIES.map(open).into()
}

/// It starts without it, and says so.
#[test]
#[ignore = "needs flowtables"]
fn an_interface_that_comes_later_is_taken_and_one_that_goes_is_no_harm() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    net.node.load(COUNTER);
    let call = forward_both(&net.backends).args(&["--fast-path=client,backend-1,late"]);
    let forwarder = call.start(&net.node);
    forwarder.wait_for_line("warning: NODEFWD_FAST_PATH (--fast-path): there is no interface late");
    let mut flows = flows(&net);
    for _ in 0..2 {
        net.node.ip("link add late type dummy\nlink set late up");
        wait_until("the interface", || is_taken(&net, "late"), |taken| *taken);
        for (protocol, family, flow) in &mut flows {
            expect_taken(&net.node, *protocol, *family, flow);
            expect_bypass(&net.node, flow);
        }
        net.node.ip("link del late");
        for (_, _, flow) in &mut flows {
            flow.expect_unchanged();
        }
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Before Linux 5.12 another program can delete the table. Up to 6.12, the kernel refuses a table that names an interface
/// that is gone, or one twice.
#[test]
#[ignore = "needs flowtables"]
fn rules_that_are_installed_again_take_the_interfaces_that_are_there() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let call = forward_both(&net.backends).args(&["--fast-path=client,backend-1,late"]);
    let mut forwarder = call.args(&["--owner=false"]).start(&net.node);
    let mut flows = flows(&net);
    for restored in 1..=4 {
        let comes = restored % 2 == 1;
        if comes {
            net.node.ip("link add late type dummy\nlink set late up");
            wait_until("the interface", || is_taken(&net, "late"), |taken| *taken);
        } else {
            // It learns of both at once.
            forwarder.signal(Signal::SIGSTOP);
            net.node.ip("link del late");
        }
        let table = ["delete", "table", "inet", "nodefwd-web"];
        net.node.succeed("nft", &table);
        forwarder.signal(Signal::SIGCONT);
        let count = |stderr: &String| stderr.matches("installed table").count() == restored;
        wait_until("rules again", || forwarder.stderr(), count);
        assert_eq!(is_taken(&net, "late"), comes);
        for (protocol, family, flow) in &mut flows {
            expect_taken(&net.node, *protocol, *family, flow);
        }
    }
    let said = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert!(!said.contains("no fast path"), "{said}");
}

/// If none of them is there, there is no flowtable at all until one comes.
#[test]
#[ignore = "needs flowtables"]
fn without_any_interface_it_begins_when_the_first_one_comes() {
    let net = Net::new(1);
    let _forwarder = nodefwd(FORWARDS.split(' '))
        .args(&["--fast-path=late"])
        .start(&net.node);
    assert!(!net.node.ruleset().contains("flowtable"));
    net.node.ip("link add late type dummy");
    wait_until("the interface", || is_taken(&net, "late"), |taken| *taken);
}

#[test]
#[ignore = "needs flowtables"]
fn a_renamed_interface_is_taken_by_auto_under_its_new_name() {
    let fast = Fast::start(&["--fast-path=auto"]);
    let net = &fast.net;
    net.node.load(COUNTER);
    let mut flows = flows(net);
    for (from, to) in [("client", "renamed"), ("renamed", "client")] {
        let [v4, v6] = Family::BOTH.map(|family| net.client.gateway(family));
        net.node.ip(&format!(
            "link set {from} down\nlink set {from} name {to}\nlink set {to} up
             addr replace {v4}/24 dev {to}\naddr replace {v6}/64 dev {to} nodad"
        ));
        wait_until("the interface", || is_taken(net, to), |taken| *taken);
        // Masquerading ends no flow here: it is by the other interface.
        for (protocol, family, flow) in &mut flows {
            flow.expect_unchanged();
            expect_taken(&net.node, *protocol, *family, flow);
            expect_bypass(&net.node, flow);
        }
    }
}

/// Moves the client's end of its link, and the node's, to interfaces of this kind with the same addresses.
fn move_addresses(net: &Net, node_end: &str, client_end: &str) {
    let [v4, v6] = Family::BOTH.map(|family| net.client.gateway(family));
    let [own4, own6] = Family::BOTH.map(|family| net.client.address(family));
    net.node.ip(&format!(
        "addr flush dev client\naddr add {v4}/24 dev {node_end}
         addr add {v6}/64 dev {node_end} nodad\nlink set {node_end} up"
    ));
    net.client.ip(&format!(
        "addr flush dev eth0\naddr add {own4}/24 dev {client_end}
         addr add {own6}/64 dev {client_end} nodad\nlink set {client_end} up
         route replace default via {v4}\nroute replace default via {v6}"
    ));
}

/// Flows over these interfaces are taken over by `auto`.
#[track_caller]
fn expect_all_taken(net: &Net, names: &[&str]) {
    let _servers = net.serve(BACKEND_PORT);
    net.node.load(COUNTER);
    let forwarder = forward_both(&net.backends)
        .args(&["--fast-path=auto"])
        .start(&net.node);
    for name in names {
        assert!(is_taken(net, name), "{name}: {}", net.node.ruleset());
    }
    for (protocol, family, mut flow) in flows(net) {
        expect_taken(&net.node, protocol, family, &mut flow);
        let before = forwarded(&net.node);
        (0..10).for_each(|_| flow.expect_unchanged());
        assert_eq!(
            forwarded(&net.node),
            before,
            "{names:?} {protocol:?} {family:?}"
        );
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
#[ignore = "needs flowtables"]
fn over_a_vlan_flows_are_taken_over() {
    let net = Net::new(1);
    net.node
        .ip("link add link client name client.5 type vlan id 5");
    net.client
        .ip("link add link eth0 name eth0.5 type vlan id 5");
    move_addresses(&net, "client.5", "eth0.5");
    expect_all_taken(&net, &["client", "client.5", "backend-1"]);
}

#[test]
#[ignore = "needs flowtables"]
fn over_a_bridge_flows_are_taken_over() {
    let net = Net::new(1);
    net.node
        .ip("link add br9 type bridge forward_delay 0\nlink set client master br9");
    move_addresses(&net, "br9", "eth0");
    expect_all_taken(&net, &["client", "br9", "backend-1"]);
}

/// Its ports are in use by others too: frames between them are none of ours.
#[test]
#[ignore = "needs flowtables"]
fn frames_between_ports_of_a_bridge_are_left_alone() {
    let net = Net::new(1);
    let bridge = Bridge::new(&net.node, 2);
    let _servers = net.serve(BACKEND_PORT);
    let _forwarder = forward_both(&net.backends)
        .args(&["--fast-path=auto"])
        .start(&net.node);
    assert!(is_taken(&net, "bridged-1"));
    let _server = bridge.hosts[1].serve(9090);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let to = SocketAddr::new(bridge.hosts[1].address(family), 9090);
        let mut flow = bridge.hosts[0].live_flow(protocol, to);
        (0..10).for_each(|_| flow.expect_unchanged());
        let mut own = bridge.hosts[0].live_flow(
            protocol,
            SocketAddr::new(bridge.hosts[0].gateway(family), FORWARDED_PORT),
        );
        (0..10).for_each(|_| own.expect_unchanged());
    }
}

#[test]
#[ignore = "needs flowtables"]
fn over_wireguard_flows_are_taken_over() {
    let net = Net::new(1);
    let keys = [(); 2].map(|()| {
        let key = net.node.succeed("wg", &["genkey"]);
        (
            net.node.feed(&key, "wg", &["pubkey"]).trim().to_owned(),
            key,
        )
    });
    let ends = [(&net.node, 0, "10.1.1.2"), (&*net.client, 1, "10.1.1.1")];
    for (end, own, peer) in ends {
        end.ip("link add wg0 type wireguard");
        let (public, _) = &keys[1 - own];
        let endpoint = format!("{peer}:7777");
        let arguments = [
            "set",
            "wg0",
            "listen-port",
            "7777",
            "private-key",
            "/dev/stdin",
            "peer",
            public,
            "allowed-ips",
            "10.9.0.0/16,fd09::/64",
            "endpoint",
            &endpoint,
        ];
        end.feed(&keys[own].1, "wg", &arguments);
        let host = own + 1;
        end.ip(&format!(
            "addr add 10.9.0.{host}/24 dev wg0\naddr add fd09::{host}/64 dev wg0 nodad\nlink set wg0 up"
        ));
    }
    let _servers = net.serve(BACKEND_PORT);
    net.node.load(COUNTER);
    let _forwarder = forward_both(&net.backends)
        .args(&["--fast-path=auto"])
        .start(&net.node);
    assert!(is_taken(&net, "wg0"));
    for (address, family) in [("10.9.0.1", Family::V4), ("fd09::1", Family::V6)] {
        for protocol in Protocol::BOTH {
            let to = SocketAddr::new(address.parse().expect("an address"), FORWARDED_PORT);
            let mut flow = net.client.live_flow(protocol, to);
            expect_taken(&net.node, protocol, family, &mut flow);
            (0..10).for_each(|_| flow.expect_unchanged());
        }
    }
}

/// Root of a user namespace may have one too, in a network namespace of its own.
#[test]
#[ignore = "needs flowtables"]
fn in_a_user_namespace_flows_are_taken_over() {
    let (node, process) = Namespace::of_user_namespace("node");
    node.forward();
    let net = Net::around(node, 1);
    let _servers = net.serve(BACKEND_PORT);
    net.node.load(COUNTER);
    let user = format!("--user=/proc/{}/ns/user", process.id());
    let inside = ["nsenter", &user, "--preserve-credentials"];
    for options in ["--fast-path=auto", INTERFACES] {
        let call = forward_both(&net.backends).args(&[options]);
        let forwarder = call.wrapped(&inside).start(&net.node);
        assert_ne!(
            user_namespace(forwarder.id()),
            user_namespace(std::process::id())
        );
        for (protocol, family, mut flow) in flows(&net) {
            expect_taken(&net.node, protocol, family, &mut flow);
            expect_bypass(&net.node, &mut flow);
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

fn user_namespace(process: u32) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/user")).expect("a user namespace")
}
