//! `check --from`: one client is followed, next to what becomes of its request.

use std::net::{IpAddr, SocketAddr};

use super::{BACKEND_PORT, FORWARDED_PORT, Report, net, shell, start};
use crate::fixture::{Family, Namespace, Net, Protocol, SILENCE_TIMEOUT, expect_parts, nodefwd};

/// Arguments, the client, the level of the line about it, a part of that line, and what makes the request:
/// `None` if that cannot be tried.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Option<fn(&Net) -> &Namespace>,
);

fn client(net: &Net) -> &Namespace {
    &net.client
}

fn node(net: &Net) -> &Namespace {
    &net.node
}

fn backend(net: &Net) -> &Namespace {
    &net.backends[0]
}

const V4: &str = "tcp/80=10.2.1.2:8080";
const V6: &str = "tcp/80=[fd00:2:1::2]:8080";

const CASES: [Case; 19] = [
    (
        V4,
        "10.1.1.2",
        "ok",
        "10.1.1.2 may connect, and comes in on client",
        Some(client),
    ),
    (
        V4,
        "10.1.1.2%client",
        "ok",
        "comes in on client",
        Some(client),
    ),
    (V6, "fd00:1:1::2", "ok", "comes in on client", Some(client)),
    (
        V4,
        "::ffff:10.1.1.2",
        "ok",
        "10.1.1.2 may connect",
        Some(client),
    ),
    (
        "--src-ranges=10.1.1.0/24 tcp/80=10.2.1.2:8080",
        "10.1.1.2",
        "ok",
        "may connect",
        Some(client),
    ),
    (
        "--src-ranges=10.1.2.0/24 tcp/80=10.2.1.2:8080",
        "10.1.1.2",
        "failure",
        "SRC_RANGES (--src-ranges) does not list 10.1.1.2",
        Some(client),
    ),
    (
        "--src-ranges=fd00:9::/64 tcp/80=[fd00:2:1::2]:8080",
        "fd00:1:1::2",
        "failure",
        "does not list fd00:1:1::2",
        Some(client),
    ),
    // Made on this host.
    (
        V4,
        "10.1.1.1",
        "failure",
        "10.1.1.1 is this host itself: its own connections are forwarded only with NODEFWD_OUTPUT",
        Some(node),
    ),
    (
        V4,
        "127.0.0.1",
        "failure",
        "is this host itself",
        Some(node),
    ),
    (
        V6,
        "fd00:1:1::1",
        "failure",
        "is this host itself",
        Some(node),
    ),
    (
        "--output tcp/80=10.2.1.2:8080",
        "10.1.1.1",
        "ok",
        "is made on this host",
        Some(node),
    ),
    (
        "--output tcp/80=10.2.1.2:8080",
        "127.0.0.1",
        "failure",
        "never those to loopback addresses",
        None,
    ),
    // Hairpin.
    (
        V4,
        "10.2.1.2",
        "failure",
        "10.2.1.2 is a destination of tcp/80 over IPv4: its own connections",
        Some(backend),
    ),
    (
        "--hairpin tcp/80=10.2.1.2:8080",
        "10.2.1.2",
        "ok",
        "comes in on backend-1",
        Some(backend),
    ),
    (
        "--hairpin --masquerade=false tcp/80=10.2.1.2:8080",
        "10.2.1.2",
        "failure",
        "would reply to itself",
        Some(backend),
    ),
    // Where it comes in.
    (
        V4,
        "10.1.1.2%eth7",
        "failure",
        "there is no interface eth7",
        None,
    ),
    (
        "--listen=backend-1 tcp/80=10.2.1.2:8080",
        "10.1.1.2%client",
        "failure",
        "comes in on client, which NODEFWD_LISTEN (--listen) does not list",
        Some(client),
    ),
    (
        V4,
        "fd00:1:1::2",
        "failure",
        "nothing is forwarded over IPv6",
        None,
    ),
    (
        V6,
        "fe80::1%client",
        "failure",
        "is a link-local address",
        None,
    ),
];

/// Whether a request to the node's address on its client's link gets a reply.
fn is_served(net: &Net, from: &Namespace, client: &str) -> bool {
    let family = if client.contains("::") && !client.contains('.') {
        Family::V6
    } else {
        Family::V4
    };
    let to = net.node_addr(family, FORWARDED_PORT);
    from.request_within(SILENCE_TIMEOUT, Protocol::Tcp, None, to)
        .is_ok()
}

#[test]
fn what_becomes_of_one_client_is_said_and_so() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    for (arguments, from, level, part, host) in CASES {
        let instance = start(&net, arguments);
        for call in [arguments, ""] {
            let report = Report::of(&net.node, &format!("--from={from} {call}"));
            expect_parts(&report.line(level, "from").text, [part]);
            let fails = !report.of_level("failure").is_empty();
            assert_eq!(fails, level == "failure", "{report:#?}");
        }
        if let Some(host) = host {
            let served = is_served(&net, host(&net), from);
            assert_eq!(served, level == "ok", "{arguments} --from={from}");
        }
        drop(instance);
        net.node.wait_for_rules("");
    }
}

/// A rule for some sources is certain where the source is known.
#[test]
fn rules_for_a_source_are_followed() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let other: IpAddr = [10, 1, 1, 9].into();
    net.client.ip("addr add 10.1.1.9/24 dev eth0");
    let chains = "
        chain early { type nat hook prerouting priority -150; ip saddr 10.1.1.9 tcp dport 80 redirect to :9; }
        chain raw { type filter hook prerouting priority raw; ip saddr 10.1.1.9 drop; }
        chain forward { type filter hook forward priority 0; ip saddr 10.1.1.9 drop; }
        chain back { type filter hook forward priority 1; ip daddr 10.1.1.9 drop; }";
    let _instance = start(&net, V4);
    for chain in chains.lines().skip(1) {
        net.node.load(&format!("table inet theirs {{ {chain}; }}"));
        let subject = if chain.contains("nat") {
            "other NAT"
        } else {
            "firewall"
        };
        assert_eq!(Report::of(&net.node, V4).of_level("failure").len(), 0);
        Report::of(&net.node, "--from=10.1.1.2").expect_ok();
        let report = Report::of(&net.node, "--from=10.1.1.9");
        report.only("failure", subject);
        let to = net.node_addr(Family::V4, FORWARDED_PORT);
        let from = SocketAddr::new(other, 0);
        let request = |from| {
            net.client
                .request_within(SILENCE_TIMEOUT, Protocol::Tcp, Some(from), to)
        };
        assert!(request(from).is_err(), "{chain}");
        assert!(
            request(SocketAddr::new([10, 1, 1, 2].into(), 0)).is_ok(),
            "{chain}"
        );
        net.node.load("delete table inet theirs");
    }
}

/// What is wrong over the other family does not matter to it.
#[test]
fn a_client_is_followed_over_its_own_family_only() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let forwards = "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080";
    let _instance = start(&net, forwards);
    for (table, other, clients) in [
        ("ip6", Family::V6, ["10.1.1.2", "fd00:1:1::2"]),
        ("ip", Family::V4, ["fd00:1:1::2", "10.1.1.2"]),
    ] {
        net.node.load(&format!(
            "table {table} fw {{ chain c {{ type filter hook forward priority 0; policy drop; }}; }}"
        ));
        let [passes, is_dropped] = clients;
        assert!(!is_served(&net, &net.client, is_dropped), "{other:?}");
        Report::of(&net.node, &format!("--from={is_dropped}")).only("failure", "firewall");
        Report::of(&net.node, &format!("--from={passes}")).expect_ok();
        assert!(is_served(&net, &net.client, passes));
        net.node.load(&format!("delete table {table} fw"));
    }
}

/// It comes in on another interface than the route back leads to.
#[test]
fn a_client_that_comes_in_elsewhere_is_followed_there() {
    let net = net(1);
    let second = net.another_client(2);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, V4);
    // A network beyond that host, which the default route leads away from.
    second.ip("addr add 192.0.2.7/32 dev lo");
    let to = SocketAddr::new([10, 1, 2, 1].into(), FORWARDED_PORT);
    let from = SocketAddr::new([192, 0, 2, 7].into(), 0);
    let is_served = || {
        second
            .request_within(SILENCE_TIMEOUT, Protocol::Tcp, Some(from), to)
            .is_ok()
    };
    assert!(!is_served());
    let call = "--from=192.0.2.7%client-2";
    let report = Report::of(&net.node, call);
    let warning = report.only("warning", "replies");
    expect_parts(
        &warning.text,
        [
            "192.0.2.7, which comes in on client-2,",
            "leave through client",
        ],
    );

    net.node.set_sysctl("net/ipv4/conf/client-2/rp_filter", "1");
    let report = Report::of(&net.node, call);
    let failure = report.line("failure", "routes");
    expect_parts(&failure.text, ["the reverse-path filter drops them"]);
    assert_eq!(
        failure.command(),
        "sysctl -w net.ipv4.conf.client-2.rp_filter=2"
    );
    shell(&net.node, failure.command());
    net.node.ip("route add 192.0.2.0/24 via 10.1.2.2");
    Report::of(&net.node, call).expect_ok();
    assert!(is_served());
}

#[test]
fn what_is_no_client_is_refused() {
    let node = Namespace::forwarding("node");
    for from in [
        "",
        "10.1.1",
        "10.0.0.0/8",
        "0.0.0.0",
        "10.1.1.2%",
        "10.1.1.2%a/b",
    ] {
        let call = nodefwd(["check", "--from", from, V4]);
        let outcome = call.finish(&node).expect_exit(2);
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        expect_parts(&outcome.stderr, ["--from"]);
    }
}
