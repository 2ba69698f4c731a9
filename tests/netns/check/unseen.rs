//! What check does not follow, on the way of packets: it says so, and never ok, next to what becomes of real
//! traffic.

use std::process::Command;

use super::firewall::is_forwarded;
use super::other_hooks::nftables;
use super::{BACKEND_PORT, Line, Report, net, shell, start, without_netlink};
use crate::fixture::{Bridge, Family, Net, Protocol, expect_parts, wait_until};

/// The only line about firewalls, which is a warning that has these parts.
#[track_caller]
fn expect_not_looked_at(net: &Net, parts: &[&str]) {
    let report = Report::of(&net.node, "");
    let about = |line: &&Line| line.subject == "firewall";
    let lines: Vec<&Line> = report.0.iter().filter(about).collect();
    assert_eq!(lines.len(), 1, "{report:#?}");
    assert_eq!(lines[0].level, "warning", "{report:#?}");
    expect_parts(&lines[0].text, ["not looked at: "]);
    expect_parts(&lines[0].text, parts);
}

/// They see packets before netfilter does, and after it.
#[test]
fn filters_of_tc() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    shell(&net.node, "tc qdisc add dev client clsact");
    Report::of(&net.node, "").expect_ok();
    // A program of one instruction: drop (TC_ACT_SHOT).
    let filter = "dev client ingress prio 1 protocol ip bpf direct-action bytecode '1,6 0 0 2,'";
    shell(&net.node, &format!("tc filter add {filter}"));
    assert!(!is_forwarded(&net, Protocol::Tcp, Family::V4));
    expect_not_looked_at(&net, &["filters of tc", " on client: "]);
    shell(&net.node, "tc filter del dev client ingress");
    assert!(is_forwarded(&net, Protocol::Tcp, Family::V4));
    Report::of(&net.node, "").expect_ok();
}

/// They drop what comes in or goes out in the clear, of requests or of replies.
#[test]
#[cfg_attr(
    target_pointer_width = "32",
    ignore = "64-bit kernels show them to 64-bit programs only"
)]
fn policies_of_ipsec() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080");
    for (family, client, node, host) in [
        (Family::V4, "10.1.1.2", "10.1.1.1", "10.2.1.2"),
        (Family::V6, "fd00:1:1::2", "fd00:1:1::1", "fd00:2:1::2"),
    ] {
        let all = if family == Family::V4 {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        let length = if family == Family::V4 { 32 } else { 128 };
        for (direction, from, to) in [
            ("fwd", client, node),
            ("out", all, host),
            ("fwd", host, all),
        ] {
            let selector = format!("dir {direction} src {from} dst {to}");
            let named = [from, to].map(|end| match end.contains('/') {
                true => end.to_owned(),
                false => format!("{end}/{length}"),
            });
            let named = format!("policies of IPsec, from {} to {}:", named[0], named[1]);
            let of_policy = |action: &str, rest| {
                let command = format!("ip xfrm policy {action} {selector}{rest}");
                shell(&net.node, &command);
            };
            of_policy("add", " action block");
            assert!(!is_forwarded(&net, Protocol::Tcp, family), "{selector}");
            expect_not_looked_at(&net, &[&named]);
            of_policy("delete", "");
            assert!(is_forwarded(&net, Protocol::Tcp, family), "{selector}");
            Report::of(&net.node, "").expect_ok();
        }
    }
    let elsewhere = "src 10.9.0.0/16 dst 10.9.0.0/16 action block";
    shell(
        &net.node,
        &format!("ip xfrm policy add dir fwd {elsewhere}"),
    );
    shell(
        &net.node,
        "ip xfrm policy add dir in src 0.0.0.0/0 dst 10.2.1.2 action block",
    );
    Report::of(&net.node, "").expect_ok();
}

/// What else is known of the firewall is said all the same.
#[test]
#[cfg_attr(
    target_pointer_width = "32",
    ignore = "64-bit kernels show them to 64-bit programs only"
)]
fn policies_of_ipsec_that_cannot_be_read() {
    let net = net(1);
    let unread =
        "warning: firewall: not looked at: policies of IPsec, see ip xfrm policy: Operation not";
    for (policy, found) in [
        ("accept", "ok: firewall: "),
        ("drop", "failure: firewall: "),
    ] {
        net.node.load("flush ruleset");
        let policy = format!("policy {policy}");
        shell(&net.node, &nftables("inet", "forward priority 0", &policy));
        let [all, rest] = without_netlink(&net, "NETLINK_XFRM", "EPERM");
        expect_parts(&all, [found]);
        assert!(!all.contains("IPsec"), "{all}");
        expect_parts(&rest, [unread]);
        assert!(!rest.contains("ok: firewall: "), "{rest}");
        let is_failure = rest.contains("failure: firewall: ");
        assert_eq!(is_failure, found.starts_with("failure"), "{rest}");
    }
}

/// Has a program of two instructions drop what comes in on an interface, until this one ends (BPF_PROG_LOAD
/// and BPF_LINK_CREATE in linux/bpf.h).
const XDP: &str = r#"
import ctypes, os, signal, socket, struct, sys

call = ctypes.CDLL(None, use_errno=True).syscall
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]

def bpf(command, *attributes):
    attributes = struct.pack(*attributes).ljust(128, b"\0")
    found = call(number, command, attributes, len(attributes))
    return found if found >= 0 else sys.exit(os.strerror(ctypes.get_errno()))

instructions = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xb7, 0, 0, 1, 0x95, 0, 0, 0))
licence = ctypes.create_string_buffer(b"GPL")
BPF_PROG_TYPE_XDP, BPF_XDP, XDP_FLAGS_SKB_MODE = 6, 37, 2
program = bpf(5, "=IIQQ", BPF_PROG_TYPE_XDP, 2, ctypes.addressof(instructions), ctypes.addressof(licence))
bpf(28, "=IIII", program, socket.if_nametoindex(sys.argv[1]), BPF_XDP, XDP_FLAGS_SKB_MODE)
print("attached", file=sys.stderr, flush=True)
signal.pause()
"#;

#[test]
fn programs_of_xdp() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    for interface in ["client", "backend-1"] {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", XDP, interface]);
        let program = net.node.spawn(python);
        program.wait_for_line("attached");
        assert!(!is_forwarded(&net, Protocol::Tcp, Family::V4));
        expect_not_looked_at(&net, &["a program of XDP", &format!(" on {interface}: ")]);
        program.stop(nix::sys::signal::Signal::SIGKILL);
        // The kernel detaches it a moment later.
        let passes = || is_forwarded(&net, Protocol::Tcp, Family::V4);
        wait_until("packets without it", passes, |passes| *passes);
        Report::of(&net.node, "").expect_ok();
    }
}

#[test]
fn chains_of_bridges() {
    let net = net(0);
    let bridge = Bridge::new(&net.node, 1);
    let _server = bridge.hosts[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.7.0.2:8080");
    let forwarded = || is_forwarded(&net, Protocol::Tcp, Family::V4);
    for (hook, rules) in [
        ("output priority 0", "tcp dport 8080 drop"),
        ("output priority 0", "policy drop"),
        ("postrouting priority 0", "tcp dport 8080 drop"),
        ("input priority 0", "tcp sport 8080 drop"),
    ] {
        net.node.load("flush ruleset");
        shell(&net.node, &nftables("bridge", hook, rules));
        assert!(!forwarded(), "{hook} {rules}");
        expect_not_looked_at(&net, &["the chains of bridges: c in table bridge theirs"]);
    }
    net.node.load("flush ruleset");
    shell(
        &net.node,
        &nftables("bridge", "output priority 0", "policy accept"),
    );
    assert!(forwarded());
    Report::of(&net.node, "").expect_ok();
}

/// Without a reply to who has an address, no packet goes there.
#[test]
fn chains_of_arp() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let instance = start(&net, "tcp/80=10.2.1.2:8080");
    let forwarded = |family| is_forwarded(&net, Protocol::Tcp, family);
    for (hook, rules) in [
        ("output priority 0", "policy drop"),
        ("input priority 0", "arp operation reply drop"),
    ] {
        net.node.load("flush ruleset");
        shell(&net.node, &nftables("arp", hook, rules));
        net.node.ip("neigh flush dev backend-1");
        assert!(!forwarded(Family::V4), "{hook} {rules}");
        expect_not_looked_at(&net, &["the chains of ARP: c in table arp theirs"]);
    }
    // IPv6 has none of it.
    drop(instance);
    net.node.wait_for_rules(&net.node.rules());
    let _instance = start(&net, "--name=other tcp/80=[fd00:2:1::2]:8080");
    assert!(forwarded(Family::V6));
    Report::of(&net.node, "other").line("ok", "firewall");
}

/// In another zone, conntrack does not know the connection of a reply, or of what comes after its first packet.
#[test]
fn zones_of_conntrack() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    let from_clients = "iifname client ct zone set 7";
    for rules in [
        nftables("inet", "prerouting priority raw", from_clients),
        "iptables -t raw -A PREROUTING -i client -j CT --zone 7".to_owned(),
    ] {
        net.node.load("flush ruleset");
        shell(&net.node, &rules);
        assert!(!is_forwarded(&net, Protocol::Tcp, Family::V4), "{rules}");
        expect_not_looked_at(&net, &["what rule "]);
    }
    net.node.load("flush ruleset");
    let others = "iifname backend-1 udp sport 53 ct zone set 7";
    shell(
        &net.node,
        &nftables("inet", "prerouting priority raw", others),
    );
    assert!(is_forwarded(&net, Protocol::Tcp, Family::V4));
    Report::of(&net.node, "").expect_ok();
}

/// What comes in on a bridge comes in on one of its ports first.
#[test]
fn what_sees_packets_on_a_port_of_the_bridge_that_clients_come_in_on() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    net.node.ip("link add br1 type bridge forward_delay 0
        link set br1 up
        addr flush dev client
        link set client master br1
        addr add 10.1.1.1/24 dev br1
        route add default via 10.1.1.2");
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    let forwarded = || is_forwarded(&net, Protocol::Tcp, Family::V4);
    assert!(forwarded());
    Report::of(&net.node, "").expect_ok();
    for hook in ["netdev ingress", "inet ingress", "netdev egress"] {
        let (family, hook) = hook.split_once(' ').expect("a family");
        let rules = if hook == "egress" {
            "tcp sport 80 drop"
        } else {
            "tcp dport 80 drop"
        };
        let hook = format!("{hook} device client priority 0");
        shell(&net.node, &nftables(family, &hook, rules));
        assert!(!forwarded(), "{family} {hook}");
        let named = format!(
            "the chains of lower interfaces, such as ports of a bridge: c in table {family} theirs"
        );
        expect_not_looked_at(&net, &[&named]);
        net.node.load("flush ruleset");
        assert!(forwarded());
        Report::of(&net.node, "").expect_ok();
    }
    // Of an interface that is not under it.
    let others = nftables(
        "netdev",
        "ingress device lo priority 0",
        "tcp dport 80 drop",
    );
    shell(&net.node, &others);
    Report::of(&net.node, "").expect_ok();

    shell(&net.node, "tc qdisc add dev client clsact");
    let filter = "dev client ingress prio 1 protocol ip bpf direct-action bytecode '1,6 0 0 2,'";
    shell(&net.node, &format!("tc filter add {filter}"));
    assert!(!forwarded());
    expect_not_looked_at(&net, &["filters of tc", " on client: "]);
}
