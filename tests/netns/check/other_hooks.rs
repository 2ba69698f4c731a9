//! Rules at other hooks than the forward hook: what check says of each, and what becomes of a real
//! connection, before and after the command that check names.

use super::firewall::is_forwarded;
use super::{BACKEND_PORT, Report, net, shell, start};
use crate::fixture::{Family, Net, Protocol, Server, expect_parts};

/// The command that makes a chain at a hook, with these rules.
pub fn nftables(family: &str, hook: &str, rules: &str) -> String {
    format!(
        "nft -f - <<'END'\ntable {family} theirs {{ chain c {{ type filter hook {hook}; {rules}; }}; }}\nEND"
    )
}

/// Family, hook and rules that drop connections to port 80, which are forwarded to port 8080, or their
/// replies.
const DROPPING: [(&str, &str, &str); 14] = [
    ("ip", "prerouting priority raw", "tcp dport 80 drop"),
    (
        "inet",
        "prerouting priority raw",
        "fib daddr type local tcp dport 80 drop",
    ),
    ("ip", "prerouting priority raw", "tcp sport 8080 drop"),
    ("ip", "prerouting priority raw", "tcp dport 80 notrack"),
    (
        "inet",
        "prerouting priority mangle",
        "ct state new tcp dport 80 drop",
    ),
    ("inet", "prerouting priority mangle", "policy drop"),
    ("inet", "prerouting priority filter", "tcp dport 8080 drop"),
    ("inet", "postrouting priority mangle", "tcp dport 8080 drop"),
    (
        "inet",
        "postrouting priority 200",
        "oifname \"client\" tcp sport 80 drop",
    ),
    (
        "netdev",
        "ingress device client priority 0",
        "tcp dport 80 drop",
    ),
    (
        "netdev",
        "ingress devices = { client, lo } priority 0",
        "tcp dport 80 drop",
    ),
    (
        "netdev",
        "ingress device backend-1 priority 0",
        "tcp sport 8080 drop",
    ),
    (
        "inet",
        "ingress device client priority 0",
        "tcp dport 80 drop",
    ),
    (
        "netdev",
        "egress device backend-1 priority 0",
        "tcp dport 8080 drop",
    ),
];

/// The same of iptables.
const IPTABLES: [&str; 4] = [
    "iptables -t raw -A PREROUTING -p tcp --dport 80 -j DROP",
    "iptables -t raw -A PREROUTING -p tcp --dport 80 -j CT --notrack",
    "iptables -t mangle -A PREROUTING -p tcp --dport 80 -j DROP",
    "iptables -t mangle -A POSTROUTING -p tcp --dport 8080 -j DROP",
];

/// Rules that drop others.
const PASSING: [(&str, &str, &str); 8] = [
    (
        "ip",
        "prerouting priority raw",
        "iifname client tcp dport 8080 drop",
    ),
    ("ip", "prerouting priority raw", "udp dport 80 drop"),
    ("ip", "prerouting priority raw", "udp dport 80 notrack"),
    ("inet", "prerouting priority filter", "tcp dport 80 drop"),
    ("inet", "postrouting priority mangle", "tcp dport 80 drop"),
    ("inet", "input priority 0", "policy drop"),
    ("inet", "output priority 0", "policy drop"),
    (
        "netdev",
        "ingress device lo priority 0",
        "tcp dport 80 drop",
    ),
];

#[test]
fn what_drops_at_any_hook_is_a_failure_until_its_command_has_run() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    let forwarded = || is_forwarded(&net, Protocol::Tcp, Family::V4);
    let nftables = DROPPING.map(|(family, hook, rules)| nftables(family, hook, rules));
    for rules in nftables.iter().map(String::as_str).chain(IPTABLES) {
        shell(&net.node, "nft flush ruleset");
        shell(&net.node, rules);
        assert!(!forwarded(), "{rules}");
        let report = Report::of(&net.node, "");
        let failure = report.only("failure", "firewall");
        shell(&net.node, failure.command());
        assert!(forwarded(), "{rules}: {failure:?}");
        Report::of(&net.node, "").expect_ok();
    }
}

/// Rules for connections that are forwarded to a port of this host itself, which drop them.
const DROPPING_TO_HOST: [(&str, &str, &str); 6] = [
    ("inet", "input priority 0", "policy drop"),
    ("ip", "input priority filter", "tcp dport 8080 reject"),
    ("inet", "input priority 0", "ct status dnat drop"),
    ("inet", "output priority 0", "tcp sport 8080 drop"),
    ("inet", "postrouting priority mangle", "tcp sport 8080 drop"),
    ("ip", "prerouting priority mangle", "tcp dport 80 drop"),
];
const IPTABLES_TO_HOST: [&str; 3] = [
    "iptables -P INPUT DROP",
    "iptables -A INPUT -p tcp --dport 8080 -j DROP",
    "iptables -A OUTPUT -p tcp --sport 8080 -j DROP",
];

#[test]
fn what_drops_connections_to_this_host_itself_is_a_failure_until_its_command_has_run() {
    let net = net(1);
    let own = net.node_addr(Family::V4, BACKEND_PORT);
    let _server = Server::start(&net.node, "node", &[own]);
    let _instance = start(&net, &format!("tcp/80={own}"));
    let forwarded = || is_forwarded(&net, Protocol::Tcp, Family::V4);
    let to_host = DROPPING_TO_HOST.map(|(family, hook, rules)| nftables(family, hook, rules));
    let all = to_host.iter().map(String::as_str);
    for rules in all.chain(IPTABLES_TO_HOST) {
        shell(&net.node, "nft flush ruleset");
        shell(&net.node, rules);
        assert!(!forwarded(), "{rules}");
        let report = Report::of(&net.node, "");
        let failure = report.only("failure", "firewall");
        shell(&net.node, failure.command());
        assert!(forwarded(), "{rules}: {failure:?}");
        Report::of(&net.node, "").expect_ok();
    }
    for (family, hook, rules) in [
        ("inet", "forward priority 0", "policy drop"),
        ("inet", "input priority 0", "tcp dport 80 drop"),
        ("inet", "output priority 0", "tcp dport 8080 drop"),
    ] {
        shell(&net.node, "nft flush ruleset");
        shell(&net.node, &nftables(family, hook, rules));
        assert!(forwarded(), "{hook} {rules}");
        Report::of(&net.node, "").expect_ok();
    }
}

/// ufw's chain at the input hook; ufw itself is not installed.
#[test]
fn ufw_is_named_for_connections_to_this_host_itself_too() {
    let net = net(1);
    shell(
        &net.node,
        "iptables -P INPUT DROP; iptables -N ufw-user-input; iptables -A INPUT -j ufw-user-input",
    );
    let report = Report::of(&net.node, "tcp/80=10.1.1.1:8080");
    let failure = report.line("failure", "firewall");
    assert_eq!(
        failure.command(),
        "ufw allow proto tcp to 10.1.1.1 port 8080"
    );
}

/// What changes addresses or ports without conntrack, and what check does not know.
#[test]
fn rules_that_are_not_followed_are_a_warning() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    for (family, hook, rules, passes) in [
        (
            "ip",
            "prerouting priority mangle",
            "tcp dport 80 ip daddr set 10.9.9.9",
            false,
        ),
        (
            "ip",
            "prerouting priority mangle",
            "tcp dport 80 tcp dport set 81",
            false,
        ),
        (
            "ip",
            "prerouting priority mangle",
            "ip saddr 10.9.9.9 ip saddr set 10.9.9.8",
            true,
        ),
    ] {
        shell(&net.node, "nft flush ruleset");
        shell(&net.node, &nftables(family, hook, rules));
        assert_eq!(
            is_forwarded(&net, Protocol::Tcp, Family::V4),
            passes,
            "{rules}"
        );
        let report = Report::of(&net.node, "");
        let warning = report
            .0
            .iter()
            .find(|line| line.subject == "firewall")
            .expect("a line");
        assert_eq!(warning.level, "warning", "{report:#?}");
        expect_parts(
            &warning.text,
            [
                "not looked at: what rule ",
                " of chain c in table ip theirs does",
            ],
        );
    }
    // These fields lead nowhere else.
    for rules in ["ip dscp set cs1", "ip ttl set 60", "meta mark set 1"] {
        shell(&net.node, "nft flush ruleset");
        shell(
            &net.node,
            &nftables("ip", "prerouting priority mangle", rules),
        );
        assert!(is_forwarded(&net, Protocol::Tcp, Family::V4), "{rules}");
        Report::of(&net.node, "").line("ok", "firewall");
    }
}

/// Without a default route it is not known whether clients come in on the chain's interface.
#[test]
fn a_chain_of_an_interface_that_clients_may_come_in_on_is_a_warning() {
    let net = Net::new(1);
    let _second = net.another_client(2);
    let rules = nftables(
        "netdev",
        "ingress device client priority 0",
        "tcp dport 80 drop",
    );
    shell(&net.node, &rules);
    let call =
        |arguments: &str| Report::of(&net.node, &format!("{arguments} tcp/80=10.2.1.2:8080"));
    call("").line("warning", "firewall");
    call("--src-ranges=10.1.1.0/24").line("failure", "firewall");
    call("--src-ranges=10.1.2.0/24").line("ok", "firewall");
    call("--listen=10.1.1.1").line("failure", "firewall");
}

#[test]
fn what_drops_others_at_any_hook_is_ok() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    for (family, hook, rules) in PASSING {
        shell(&net.node, "nft flush ruleset");
        shell(&net.node, &nftables(family, hook, rules));
        assert!(
            is_forwarded(&net, Protocol::Tcp, Family::V4),
            "{hook} {rules}"
        );
        Report::of(&net.node, "").expect_ok();
    }
}

/// Conntrack's own state is not known where it has not seen a packet yet.
#[test]
fn what_may_drop_at_another_hook_is_a_warning() {
    let net = net(1);
    for rules in [
        "ct state new drop",
        "ip saddr 10.1.1.0/24 drop",
        "meta mark 1 notrack",
    ] {
        shell(&net.node, "nft flush ruleset");
        shell(&net.node, &nftables("ip", "prerouting priority raw", rules));
        Report::of(&net.node, "tcp/80=10.2.1.2:8080").only("warning", "firewall");
    }
}
