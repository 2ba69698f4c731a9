//! Firewalls that drop what is forwarded: no connection succeeds, check says why, and after the
//! command that it names connections succeed.

use nix::sys::signal::Signal;

use super::{BACKEND_PORT, FORWARDED_PORT, Report, all_forwards, net, shell, start};
use crate::fixture::{
    Family, Net, PROTOCOLS_AND_FAMILIES, Protocol, SILENCE_TIMEOUT, expect_parts,
};

/// Whether a request to the forwarded port gets a reply.
pub fn is_forwarded(net: &Net, protocol: Protocol, family: Family) -> bool {
    let node_addr = net.node_addr(family, FORWARDED_PORT);
    net.client
        .request_within(SILENCE_TIMEOUT, protocol, None, node_addr)
        .is_ok()
}

fn forward(net: &Net, protocol: Protocol, family: Family) -> String {
    let to = std::net::SocketAddr::new(net.backends[0].address(family), BACKEND_PORT);
    format!("{}/{FORWARDED_PORT}={to}", protocol.name())
}

/// A forward must fail because of a firewall, and succeed after the command that check names.
fn expect_fixed(firewall: &str, protocol: Protocol, family: Family, expected: &str) {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let forward = forward(&net, protocol, family);
    let succeeds = || {
        let instance = start(&net, &forward);
        let forwarded = is_forwarded(&net, protocol, family);
        instance.stop(Signal::SIGTERM).expect_exit(0);
        forwarded
    };
    shell(&net.node, firewall);
    assert!(!succeeds(), "{firewall}");

    let report = Report::of(&net.node, &forward);
    let failure = report.only("failure", "firewall");
    assert!(failure.command().starts_with(expected), "{failure:?}");
    shell(&net.node, failure.command());

    Report::of(&net.node, &forward).expect_ok();
    assert!(succeeds(), "{firewall}");
}

/// The chains that Docker makes, in its order (its documentation, "Docker and iptables chains").
const DOCKER: &str = "
    iptables -P FORWARD DROP
    iptables -N DOCKER
    iptables -N DOCKER-FORWARD
    iptables -N DOCKER-USER
    iptables -A FORWARD -j DOCKER-USER
    iptables -A FORWARD -j DOCKER-FORWARD
    iptables -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables -A DOCKER-FORWARD -o docker0 -j DOCKER
    iptables -A DOCKER-FORWARD -i docker0 ! -o docker0 -j ACCEPT
    iptables -A DOCKER ! -i docker0 -o docker0 -j DROP";

#[test]
fn a_policy_of_nftables_is_named_and_fixed() {
    let drop = "nft 'table inet fw { chain forward { type filter hook forward priority 0; policy drop; }; }'";
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let condition = format!("meta l4proto {} ct original proto-dst 80", protocol.name());
        let command = format!("nft insert rule inet fw forward {condition} ct status dnat accept");
        expect_fixed(drop, protocol, family, &command);
    }
}

#[test]
fn a_rule_of_nftables_is_named_and_fixed() {
    let reject = "nft 'table ip6 fw {
        chain forward { type filter hook forward priority -5; policy accept; jump inner; }
        chain inner { ip6 daddr fd00:2::/32 reject; }
    }' || nft 'add table ip6 fw; add chain ip6 fw inner; add rule ip6 fw inner ip6 daddr fd00:2::/32 reject; \
        add chain ip6 fw forward { type filter hook forward priority -5; }; add rule ip6 fw forward jump inner'";
    let command = "nft insert rule ip6 fw forward meta l4proto tcp";
    expect_fixed(reject, Protocol::Tcp, Family::V6, command);
}

#[test]
fn a_policy_of_iptables_is_named_and_fixed() {
    let command = "iptables -I FORWARD -p udp -m conntrack --ctstate DNAT --ctorigdstport 80";
    expect_fixed(
        "iptables -P FORWARD DROP",
        Protocol::Udp,
        Family::V4,
        command,
    );
    let command = "ip6tables -I FORWARD -p tcp -m conntrack --ctstate DNAT --ctorigdstport 80";
    expect_fixed(
        "ip6tables -P FORWARD DROP",
        Protocol::Tcp,
        Family::V6,
        command,
    );
}

#[test]
fn dockers_policy_is_fixed_in_the_chain_for_users() {
    let command = "iptables -I DOCKER-USER -p tcp ";
    expect_fixed(DOCKER, Protocol::Tcp, Family::V4, command);
}

/// Docker's own rules accept only what Docker forwards.
#[test]
fn a_rule_that_accepts_one_direction_only_is_not_enough() {
    let net = net(1);
    shell(&net.node, DOCKER);
    shell(
        &net.node,
        "iptables -I DOCKER-USER -p tcp --dport 8080 -j ACCEPT",
    );
    let report = Report::of(&net.node, "tcp/80=10.2.1.2:8080");
    let failure = report.only("failure", "firewall");
    expect_parts(&failure.text, ["the replies of 10.2.1.2:8080"]);
}

/// Where one policy drops several forwards, one line and one command are for all of them.
#[test]
fn one_command_fixes_several_forwards() {
    let net = net(2);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let drop =
        "table inet fw { chain forward { type filter hook forward priority 0; policy drop; }; }";
    net.node.load(drop);
    let report = Report::of(&net.node, &all_forwards(&net));
    let failure = report.only("failure", "firewall");
    expect_parts(
        &failure.text,
        [
            "tcp/80 over IPv4 from client to 10.2.1.2:8080",
            "udp/80 over IPv6",
        ],
    );
    shell(&net.node, failure.command());
    Report::of(&net.node, &all_forwards(&net)).expect_ok();
    let _instance = start(&net, &all_forwards(&net));
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        assert!(is_forwarded(&net, protocol, family));
    }
}

/// ufw and firewalld are not installed; the test makes chains of their names, and the rules that their
/// commands would make.
#[test]
fn ufw_and_firewalld_are_recognised_by_their_chains() {
    let net = net(1);
    shell(
        &net.node,
        "iptables -P FORWARD DROP
         iptables -N ufw-user-forward
         iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A FORWARD -j ufw-user-forward",
    );
    let check = || Report::of(&net.node, "tcp/80-82=10.2.1.2:90-92");
    let command = check().only("failure", "firewall").command().to_owned();
    assert_eq!(command, "ufw route allow proto tcp to 10.2.1.2 port 90:92");
    shell(
        &net.node,
        "iptables -A ufw-user-forward -p tcp -d 10.2.1.2 --dport 90:92 -j ACCEPT",
    );
    check().expect_ok();

    // With Docker on the same host, ufw's chain is still the one to add a rule to, unless Docker's
    // chains drop the packets earlier.
    shell(
        &net.node,
        "iptables -D ufw-user-forward 1; iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER",
    );
    assert!(
        check()
            .only("failure", "firewall")
            .command()
            .starts_with("ufw ")
    );
    shell(&net.node, "iptables -I DOCKER-USER -o backend-1 -j DROP");
    assert!(
        check()
            .only("failure", "firewall")
            .command()
            .starts_with("iptables -I DOCKER-USER ")
    );

    net.node.load(
        "flush ruleset
         table inet firewalld {
            chain filter_FORWARD_POLICIES { reject with icmpx admin-prohibited; }
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                ct state { established, related } accept
                ct status dnat accept
                iifname \"lo\" accept
                ct state invalid drop
                jump filter_FORWARD_POLICIES
            }
         }",
    );
    check().expect_ok();
    // StrictForwardPorts=yes, as firewalld 2.3.1 has it: before it looks at policies.
    for (hook, forward) in [
        ("forward", "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080"),
        ("input", "tcp/80=10.1.1.1:8080"),
    ] {
        let chain = format!("filter_{}", hook.to_uppercase());
        net.node.load(&format!(
            "flush ruleset
             table inet firewalld {{
                chain {chain}_dnat {{ reject with icmpx admin-prohibited; }}
                chain {chain} {{
                    type filter hook {hook} priority filter + 10; policy accept;
                    ct state {{ established, related }} accept
                    ct status dnat jump {chain}_dnat
                }}
             }}"
        ));
        let report = Report::of(&net.node, forward);
        let failures = report.of_level("failure");
        assert_eq!(failures.len(), 1, "{report:#?}");
        let expected = "sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts=no/' /etc/firewalld/firewalld.conf; firewall-cmd --reload";
        assert_eq!(failures[0].command(), expected);
    }
    // One that has no rule for translated connections.
    net.node.load(
        "flush ruleset
         table inet firewalld {
            chain filter_FORWARD_POLICIES { reject with icmpx admin-prohibited; }
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                ct state { established, related } accept
                jump filter_FORWARD_POLICIES
            }
         }",
    );
    let report = check();
    let command = report.only("failure", "firewall").command();
    for word in [
        "--policy=nodefwd",
        "family=ipv4",
        "address=10.2.1.2",
        "port=90-92",
    ] {
        assert!(command.contains(word), "{command}");
    }
}

#[test]
fn rules_of_iptables_legacy_are_a_warning_since_check_cannot_read_them() {
    let net = net(1);
    let check = || Report::of(&net.node, &all_forwards(&net));
    check().expect_ok();
    // Looking at a table makes it.
    for (program, name) in [("iptables", "ip_tables"), ("ip6tables", "ip6_tables")] {
        for table in ["filter", "nat", "mangle", "raw"] {
            shell(&net.node, &format!("{program}-legacy -t {table} -L"));
        }
        let there = format!("grep -q nat /proc/thread-self/net/{name}_names");
        shell(&net.node, &there);
        check().expect_ok();
    }
    for rule in ["-t mangle -A FORWARD -j DROP", "-t raw -N mine"] {
        shell(&net.node, &format!("iptables-legacy {rule}"));
        let table = rule.split(' ').nth(1).expect("a table");
        let report = check();
        let warning = report.only("warning", "iptables-legacy");
        expect_parts(&warning.text, [format!("rules in {table} over IPv4, ")]);
        shell(
            &net.node,
            &format!("iptables-legacy -t {table} -F; iptables-legacy -t {table} -X"),
        );
        check().expect_ok();
    }
    shell(
        &net.node,
        "ip6tables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT",
    );
    let report = check();
    let warning = report.only("warning", "iptables-legacy");
    expect_parts(
        &warning.text,
        ["rules in nat over IPv6, ", ": see ip6tables-legacy-save"],
    );
}

/// As Docker sets it, which may use iptables-legacy.
#[test]
fn a_policy_of_iptables_legacy_has_a_command_that_lets_forwards_through() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080");
    for (family, program) in [
        (Family::V4, "iptables-legacy"),
        (Family::V6, "ip6tables-legacy"),
    ] {
        let forwarded = || is_forwarded(&net, Protocol::Tcp, family);
        shell(&net.node, &format!("{program} -P INPUT DROP"));
        let report = Report::of(&net.node, "");
        let other = &report.only("warning", "iptables-legacy").text;
        assert!(!other.contains("FORWARD"), "{other}");
        shell(
            &net.node,
            &format!("{program} -P INPUT ACCEPT; {program} -P FORWARD DROP"),
        );
        assert!(!forwarded());
        let report = Report::of(&net.node, "");
        let command = report.only("warning", "iptables-legacy").command();
        shell(&net.node, command);
        assert!(forwarded(), "{command}");
        shell(
            &net.node,
            &format!("{program} -F; {program} -P FORWARD ACCEPT"),
        );
    }
}

/// Packets to a backend on the host itself do not pass the forward hook.
#[test]
fn a_policy_at_the_forward_hook_does_not_matter_for_a_backend_on_the_host_itself() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    net.node.load(
        "table inet fw { chain forward { type filter hook forward priority 0; policy drop; }; }",
    );
    let report = Report::of(&net.node, "tcp/80=10.1.1.1:8080");
    report.line("ok", "firewall");
}
