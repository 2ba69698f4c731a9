//! Many rules of firewalls: what check says of each, and what becomes of a real connection.

use std::thread;

use super::firewall::is_forwarded;
use super::{BACKEND_PORT, Report, net, shell, start};
use crate::fixture::{Family, Net, Protocol};

/// What check says of connections to port 80, which are forwarded to port 8080 of 10.2.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// They pass, and they do.
    Passes,
    /// They are dropped, and they are.
    Dropped,
    /// They may be dropped: check cannot tell.
    MayBeDropped,
}

use Says::{Dropped, MayBeDropped, Passes};

/// How many hosts try the rules at the same time.
const HOSTS: usize = 8;

/// Tries all cases; `load` makes a command out of the rules of each.
fn compare(cases: &[(Says, &str)], load: impl Fn(&str) -> String + Sync) {
    thread::scope(|scope| {
        for host in 0..HOSTS {
            let load = &load;
            scope.spawn(move || {
                let net = net(1);
                let _server = net.backends[0].serve(BACKEND_PORT);
                let _instance = start(&net, "tcp/80=10.2.1.2:8080");
                for (expected, rules) in cases.iter().skip(host).step_by(HOSTS) {
                    shell(&net.node, &format!("nft flush ruleset\n{}", load(rules)));
                    expect(&net, *expected, rules);
                }
            });
        }
    });
}

fn expect(net: &Net, expected: Says, rules: &str) {
    // Another line says that an instance forwards the port already.
    let report = Report::of(&net.node, "tcp/80=10.2.1.2:8080");
    let mut lines = report.0.iter().filter(|line| line.subject == "firewall");
    let says = match lines.next().map(|line| line.level.as_str()) {
        Some("ok") => Passes,
        Some("failure") => Dropped,
        _ => MayBeDropped,
    };
    assert_eq!(says, expected, "{rules}: {report:#?}");
    if expected != MayBeDropped {
        let served = is_forwarded(net, Protocol::Tcp, Family::V4);
        assert_eq!(served, expected == Passes, "{rules}");
    }
}

/// The policy of a chain at the forward hook, which is the first word, and its rules.
fn nftables(rules: &str) -> String {
    let (policy, rules) = rules.split_once(' ').unwrap_or((rules, ""));
    format!(
        "nft -f - <<'END'
         table inet fw {{
            set hosts {{ type ipv4_addr; elements = {{ 10.2.1.2, 10.2.1.3 }}; }}
            set others {{ type ipv4_addr; flags interval; elements = {{ 10.2.9.0/24 }}; }}
            chain drops_host {{ ip daddr 10.2.1.2 drop; }}
            chain drops_other {{ ip daddr 10.2.1.9 drop; }}
            chain returns {{ return; drop; }}
            chain accepts_answers {{ ct state established,related accept; }}
            chain forward {{
                type filter hook forward priority 0; policy {policy};
                {}
            }}
         }}\nEND",
        rules.replace("; ", "\n")
    )
}

#[test]
fn check_agrees_with_the_kernel_on_rules_of_nftables() {
    compare(&NFTABLES, nftables);
}

const NFTABLES: [(Says, &str); 82] = [
    (Passes, "accept"),
    (Dropped, "drop"),
    // Ports and protocols, after the translation.
    (Dropped, "accept tcp dport 8080 drop"),
    (Passes, "accept tcp dport 80 drop"),
    (Passes, "accept udp dport 8080 drop"),
    (Dropped, "accept tcp sport 8080 drop"),
    (Dropped, "accept tcp dport 8000-8100 drop"),
    (Dropped, "accept th dport 8080 reject"),
    (
        Dropped,
        "accept meta l4proto { tcp, udp } th dport 8080 drop",
    ),
    (Dropped, "accept tcp dport { 80, 8080 } drop"),
    (
        Passes,
        "accept tcp dport { 80, 90 } tcp sport { 8080 } drop",
    ),
    (Dropped, "accept tcp dport { 1-1023, 8000-9000 } drop"),
    (
        Dropped,
        "accept tcp sport { 1024-65535 } tcp sport 8080 drop",
    ),
    (
        Dropped,
        "drop ct state established accept; tcp dport != { 8080, 9090 } accept",
    ),
    (
        Passes,
        "drop ct state established accept; tcp dport != { 80, 90 } accept",
    ),
    (
        Dropped,
        "drop ct state established accept; tcp dport != 8000-8100 accept",
    ),
    (
        Passes,
        "drop ct state established accept; tcp dport != 9000-9999 accept",
    ),
    // Replies go to a client's port.
    (Dropped, "accept tcp dport > 8080 drop"),
    (
        Passes,
        "accept ct state established accept; tcp dport > 8080 drop",
    ),
    (
        Dropped,
        "accept ct state established accept; tcp dport >= 8080 drop",
    ),
    (
        Passes,
        "accept ct state established accept; tcp dport < 8080 drop",
    ),
    (
        Dropped,
        "accept ct state established accept; tcp dport <= 8080 drop",
    ),
    // Addresses.
    (Dropped, "accept ip daddr 10.2.1.2 drop"),
    (Dropped, "accept ip daddr 10.2.0.0/16 drop"),
    (Dropped, "accept ip daddr 10.2.1.0/27 drop"),
    (
        Passes,
        "accept oifname \"backend-1\" ip daddr 10.2.1.32/27 drop",
    ),
    (
        Passes,
        "accept oifname \"backend-1\" ip daddr 10.2.2.0/24 drop",
    ),
    (
        Passes,
        "accept iifname \"client\" ip daddr != 10.2.0.0/16 drop",
    ),
    (Dropped, "accept ip daddr @hosts drop"),
    (Passes, "accept oifname \"backend-1\" ip daddr @others drop"),
    (MayBeDropped, "accept ip saddr 10.1.0.0/16 drop"),
    (MayBeDropped, "accept ip saddr 10.99.0.0/16 drop"),
    (MayBeDropped, "accept ip saddr @others drop"),
    (Dropped, "accept ip saddr @hosts drop"),
    (Dropped, "accept fib daddr type unicast drop"),
    (Passes, "accept fib daddr type local drop"),
    (MayBeDropped, "accept fib saddr type local drop"),
    (Passes, "accept fib saddr . iif oif missing drop"),
    (Passes, "accept fib saddr . mark . iif oif missing drop"),
    (Dropped, "accept fib saddr . iif oif exists drop"),
    // Several fields at once.
    (
        Dropped,
        "accept ip daddr . tcp dport { 10.2.1.2 . 8080 } drop",
    ),
    (
        Passes,
        "accept ip daddr . tcp dport { 10.2.1.2 . 8081, 10.2.1.3 . 8080 } oifname \"backend-1\" drop",
    ),
    (
        Dropped,
        "accept ip daddr . tcp dport { 10.2.0.0/16 . 8000-9000 } drop",
    ),
    (
        Passes,
        "accept oifname \"backend-1\" ip daddr . tcp dport { 10.2.0.0/16 . 9000-9999 } drop",
    ),
    (
        Dropped,
        "accept iifname . oifname { \"client\" . \"backend-1\" } drop",
    ),
    // Several fields, of which not all are known.
    (
        MayBeDropped,
        "accept ip saddr . tcp dport { 10.9.9.9 . 8080 } drop",
    ),
    (
        Passes,
        "accept iifname \"client\" ip saddr . tcp dport { 10.9.9.9 . 8081 } drop",
    ),
    (
        MayBeDropped,
        "accept ip saddr . tcp dport vmap { 10.9.9.9 . 8080 : drop }",
    ),
    (
        Passes,
        "accept iifname \"client\" ip saddr . tcp dport vmap { 10.9.9.0/24 . 9000-9090 : drop }",
    ),
    (MayBeDropped, "accept ip saddr vmap { 10.9.9.0/24 : drop }"),
    // Interfaces.
    (
        Dropped,
        "accept iifname \"client\" oifname \"backend-1\" drop",
    ),
    (Dropped, "accept iifname \"cli*\" drop"),
    (Dropped, "accept iif \"client\" drop"),
    (
        Passes,
        "accept iifname \"client\" oifname != \"backend*\" drop",
    ),
    (Passes, "accept iifname \"lo\" drop"),
    // Connections.
    (Dropped, "accept ct state new drop"),
    (Dropped, "accept ct state established drop"),
    (Passes, "accept ct state invalid,related,untracked drop"),
    (Dropped, "accept ct status dnat drop"),
    (Dropped, "accept ct direction reply drop"),
    (
        Dropped,
        "accept meta l4proto tcp ct original proto-dst 80 drop",
    ),
    (
        Passes,
        "accept meta l4proto tcp ct original proto-dst 8080 drop",
    ),
    (Dropped, "accept tcp flags & (syn | ack) == syn drop"),
    (
        Dropped,
        "accept tcp flags & (fin | syn | rst | ack) == (syn | ack) drop",
    ),
    (MayBeDropped, "accept meta mark 7 drop"),
    (MayBeDropped, "accept ct mark 7 drop"),
    (
        MayBeDropped,
        "accept tcp dport 8080 limit rate over 1/hour drop",
    ),
    // Families.
    (Dropped, "accept meta nfproto ipv4 drop"),
    (Passes, "accept meta nfproto ipv6 drop"),
    (Dropped, "accept meta protocol ip drop"),
    // From chain to chain.
    (Dropped, "accept jump drops_host"),
    (Passes, "accept iifname \"client\" jump drops_other"),
    (Dropped, "accept jump returns; drop"),
    (Passes, "accept goto returns; drop"),
    (
        Dropped,
        "drop jump accepts_answers; tcp dport 8080 goto drops_other",
    ),
    (MayBeDropped, "accept meta mark 7 jump drops_host"),
    (
        MayBeDropped,
        "drop jump accepts_answers; ip saddr 10.1.0.0/16 accept",
    ),
    (Passes, "drop jump accepts_answers; ip daddr @hosts accept"),
    // Verdicts out of maps.
    (
        Dropped,
        "accept tcp dport vmap { 80 : accept, 8080 : jump drops_host }",
    ),
    (
        Passes,
        "drop ct state vmap { established : accept, new : jump returns, invalid : drop }; ct status dnat accept",
    ),
    (
        Dropped,
        "accept ip daddr vmap { 10.2.1.3 : accept, * : drop }",
    ),
    (
        Passes,
        "drop ct state established accept; ip daddr . meta l4proto . th dport vmap { 10.2.1.2 . tcp . 8080 : accept }",
    ),
];

#[test]
fn check_agrees_with_the_kernel_on_rules_of_iptables() {
    compare(&IPTABLES, |rules| {
        let commands = rules.split("; ").map(|rule| format!("iptables {rule}\n"));
        commands.collect()
    });
}

const IPTABLES: [(Says, &str); 28] = [
    (Passes, "-P FORWARD ACCEPT"),
    (Dropped, "-A FORWARD -p tcp --dport 8080 -j DROP"),
    (Passes, "-A FORWARD -p tcp --dport 80 -j DROP"),
    (
        Dropped,
        "-A FORWARD -i client -o backend-1 -p tcp --syn -j REJECT",
    ),
    (Passes, "-A FORWARD -i client ! -o backend+ -j REJECT"),
    (
        Dropped,
        "-A FORWARD -p tcp -m multiport --dports 80,8000:8090 -j DROP",
    ),
    (
        Dropped,
        "-A FORWARD -p tcp -m multiport --ports 8080 -j DROP",
    ),
    (
        Dropped,
        "-A FORWARD -i client -p tcp -m multiport ! --dports 80,90 -j DROP",
    ),
    (
        Passes,
        "-A FORWARD -i client -p tcp -m multiport --dports 80,90:99,8081 -j DROP",
    ),
    (
        Passes,
        "-A FORWARD -p udp -m multiport --dports 8080 -j DROP",
    ),
    (Dropped, "-A FORWARD -m conntrack --ctstate NEW -j REJECT"),
    (Dropped, "-A FORWARD -m state --state ESTABLISHED -j DROP"),
    (
        Passes,
        "-A FORWARD -m conntrack --ctstate INVALID,RELATED -j DROP",
    ),
    (Dropped, "-A FORWARD -m conntrack --ctstate DNAT -j DROP"),
    (Passes, "-A FORWARD -m conntrack ! --ctstate DNAT -j DROP"),
    (
        Dropped,
        "-A FORWARD -m conntrack --ctstatus SEEN_REPLY -j DROP",
    ),
    (
        Dropped,
        "-A FORWARD -m conntrack --ctproto tcp --ctorigdstport 70:90 --ctdir ORIGINAL -j DROP",
    ),
    (Passes, "-A FORWARD -m conntrack --ctproto udp -j DROP"),
    (
        Passes,
        "-P FORWARD DROP; -A FORWARD -p tcp -m conntrack --ctstate DNAT --ctorigdstport 80 -j ACCEPT",
    ),
    (
        MayBeDropped,
        "-A FORWARD -m conntrack --ctorigdst 10.1.1.1 -j DROP",
    ),
    (Dropped, "-A FORWARD -m addrtype --dst-type UNICAST -j DROP"),
    (Passes, "-A FORWARD -m addrtype --dst-type LOCAL -j DROP"),
    (
        Dropped,
        "-A FORWARD -d 10.2.1.2 -m comment --comment why -j DROP",
    ),
    (MayBeDropped, "-A FORWARD -m mark --mark 1 -j DROP"),
    (MayBeDropped, "-A FORWARD -m connmark --mark 1 -j DROP"),
    (
        Passes,
        "-P FORWARD DROP; -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT; -A FORWARD -m conntrack --ctdir ORIGINAL -j ACCEPT",
    ),
    (Passes, "-t mangle -A FORWARD -j MARK --set-mark 1"),
    (
        Dropped,
        "-N inner; -A inner -d 10.2.1.2 -j DROP; -A FORWARD -p tcp -g inner",
    ),
];

#[test]
fn rules_of_a_dormant_table_drop_nothing() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    let chain = "chain forward { type filter hook forward priority 0; policy drop; };";
    net.node
        .load(&format!("table ip fw {{ flags dormant; {chain} }}"));
    expect(&net, Passes, "dormant");
    net.node.load("flush ruleset");
    net.node.load(&format!("table ip fw {{ {chain} }}"));
    expect(&net, Dropped, "awake");
}
