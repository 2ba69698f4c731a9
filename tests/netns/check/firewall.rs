//! Somebody's firewall in the way: nothing comes through, check says why, and the command that it
//! names lets it through.

use nix::sys::signal::Signal;

use super::{BACK, FRONT, Report, everything, net, shell, start};
use crate::fixture::{Family, Net, Protocol, SILENCE};

/// Whether a request to the forwarded port is answered.
pub fn is_served(net: &Net, protocol: Protocol, family: Family) -> bool {
    let front = net.front(family, FRONT);
    net.client
        .request_within(SILENCE, protocol, None, front)
        .is_ok()
}

fn forward(net: &Net, protocol: Protocol, family: Family) -> String {
    let to = std::net::SocketAddr::new(net.backends[0].address(family), BACK);
    format!("{}/{FRONT}={to}", protocol.name())
}

/// Shows that a firewall stops a forward, and that what check says of it mends that.
fn expect_mended(firewall: &str, protocol: Protocol, family: Family, expected: &str) {
    let net = net(1);
    let _server = net.backends[0].serve(BACK);
    let forward = forward(&net, protocol, family);
    let is_forwarded = || {
        let instance = start(&net, &forward);
        let served = is_served(&net, protocol, family);
        instance.stop(Signal::SIGTERM).expect_exit(0);
        served
    };
    shell(&net.node, firewall);
    assert!(!is_forwarded(), "{firewall}");

    let report = Report::of(&net.node, &forward);
    let failure = report.only("failure", "firewall");
    assert!(failure.command().starts_with(expected), "{failure:?}");
    shell(&net.node, failure.command());

    Report::of(&net.node, &forward).expect_ok();
    assert!(is_forwarded(), "{firewall}");
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
fn a_policy_of_nftables() {
    let drop = "nft 'table inet fw { chain forward { type filter hook forward priority 0; policy drop; }; }'";
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let condition = format!("meta l4proto {} ct original proto-dst 80", protocol.name());
            let command =
                format!("nft insert rule inet fw forward {condition} ct status dnat accept");
            expect_mended(drop, protocol, family, &command);
        }
    }
}

#[test]
fn a_rule_of_nftables_before_a_policy_that_accepts() {
    let reject = "nft 'table ip6 fw {
        chain forward { type filter hook forward priority -5; policy accept; jump inner; }
        chain inner { ip6 daddr fd00:2::/32 reject; }
    }' || nft 'add table ip6 fw; add chain ip6 fw inner; add rule ip6 fw inner ip6 daddr fd00:2::/32 reject; \
        add chain ip6 fw forward { type filter hook forward priority -5; }; add rule ip6 fw forward jump inner'";
    let command = "nft insert rule ip6 fw forward meta l4proto tcp";
    expect_mended(reject, Protocol::Tcp, Family::V6, command);
}

#[test]
fn a_policy_of_iptables() {
    let command = "iptables -I FORWARD -p udp -m conntrack --ctstate DNAT --ctorigdstport 80";
    expect_mended(
        "iptables -P FORWARD DROP",
        Protocol::Udp,
        Family::V4,
        command,
    );
    let command = "ip6tables -I FORWARD -p tcp -m conntrack --ctstate DNAT --ctorigdstport 80";
    expect_mended(
        "ip6tables -P FORWARD DROP",
        Protocol::Tcp,
        Family::V6,
        command,
    );
}

#[test]
fn docker() {
    let command = "iptables -I DOCKER-USER -p tcp ";
    expect_mended(DOCKER, Protocol::Tcp, Family::V4, command);
}

/// What Docker itself lets through does not help anybody else, and what is let through in one
/// direction only is not enough.
#[test]
fn half_a_remedy_is_none() {
    let net = net(1);
    shell(&net.node, DOCKER);
    shell(
        &net.node,
        "iptables -I DOCKER-USER -p tcp --dport 8080 -j ACCEPT",
    );
    let report = Report::of(&net.node, "tcp/80=10.2.1.2:8080");
    let failure = report.only("failure", "firewall");
    assert!(
        failure.text.contains("the answers of 10.2.1.2:8080"),
        "{failure:?}"
    );
}

/// Where several forwards are stopped at the same place, one line and one rule are for all of them.
#[test]
fn one_command_for_all() {
    let net = net(2);
    let _server = net.backends[0].serve(BACK);
    let drop =
        "table inet fw { chain forward { type filter hook forward priority 0; policy drop; }; }";
    net.node.load(drop);
    let report = Report::of(&net.node, &everything(&net));
    let failure = report.only("failure", "firewall");
    for word in [
        "tcp/80 over IPv4 from client to 10.2.1.2:8080",
        "udp/80 over IPv6",
    ] {
        assert!(failure.text.contains(word), "{failure:?}");
    }
    shell(&net.node, failure.command());
    Report::of(&net.node, &everything(&net)).expect_ok();
    let _instance = start(&net, &everything(&net));
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            assert!(is_served(&net, protocol, family));
        }
    }
}

/// ufw and firewalld are not here; their chains are, by name, and the rules that the commands make.
#[test]
fn ufw_and_firewalld_are_known_by_their_chains() {
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

    // With Docker on the same host, ufw's own chain is still the one that the user manages, unless
    // Docker's drop the packets before.
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
    // StrictForwardPorts=yes leaves that rule out.
    net.node.load(
        "flush chain inet firewalld filter_FORWARD
         table inet firewalld {
            chain filter_FORWARD {
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
fn tables_of_iptables_legacy_are_named_since_they_cannot_be_read() {
    let net = net(1);
    let check = || Report::of(&net.node, &everything(&net));
    check().expect_ok();
    shell(&net.node, "iptables-legacy -P FORWARD DROP");
    assert!(
        check()
            .only("warning", "iptables-legacy")
            .text
            .contains("iptables-legacy-save")
    );
    shell(
        &net.node,
        "ip6tables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT",
    );
    assert!(
        check()
            .only("warning", "iptables-legacy")
            .text
            .contains("ip6tables-legacy-save")
    );
}

/// A destination on this host is not on the way from one interface to another.
#[test]
fn what_ends_on_this_host_is_not_dropped_on_the_way() {
    let net = net(1);
    let _server = net.backends[0].serve(BACK);
    net.node.load(
        "table inet fw { chain forward { type filter hook forward priority 0; policy drop; }; }",
    );
    let report = Report::of(&net.node, "tcp/80=10.1.1.1:8080");
    report.line("ok", "firewall");
}
