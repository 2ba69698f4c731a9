//! Replies that get lost on the way back: check's words, next to what becomes of real traffic.

use std::net::SocketAddr;
use std::path::Path;

use super::{BACKEND_PORT, FORWARDED_PORT, Report, net, shell, start};
use crate::fixture::{Host, Net, Protocol, SILENCE_TIMEOUT, expect_parts};

/// Whether a host gets a reply, from this address of its own, at an address of the node.
fn is_served(host: &Host, from: &str, to: &str) -> bool {
    let from = SocketAddr::new(from.parse().expect("an address"), 0);
    let to = SocketAddr::new(to.parse().expect("an address"), FORWARDED_PORT);
    let request = host.request_within(SILENCE_TIMEOUT, Protocol::Tcp, Some(from), to);
    request.is_ok()
}

const FORWARD: &str = "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080";

/// Connections that come in on the second uplink are marked, and the packets of their replies.
const MARKS_OF_THE_SECOND_UPLINK: &str = "table inet uplink {
    chain in { type filter hook prerouting priority mangle;
        iifname client-2 ct mark set 7
        iifname != client-2 ct mark 7 meta mark set 7
    }
}";

#[test]
fn without_a_default_route_clients_elsewhere_get_no_answer() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let elsewhere = [("192.0.2.7", "10.1.1.1"), ("2001:db8::7", "fd00:1:1::1")];
    for (from, _) in elsewhere {
        net.client
            .add_loopback_address(from.parse().expect("an address"));
    }
    let instance = start(&net, FORWARD);
    assert!(is_served(&net.client, "10.1.1.2", "10.1.1.1"));
    for (from, to) in elsewhere {
        assert!(!is_served(&net.client, from, to), "{from}");
    }
    let report = Report::of(&net.node, "");
    let warnings = report.of_level("warning");
    let commands: Vec<&str> = warnings.iter().map(|line| line.command()).collect();
    let expected = [
        "ip route add default via ROUTER",
        "ip -6 route add default via ROUTER",
    ];
    assert_eq!(commands, expected, "{report:#?}");
    for (command, router) in expected.iter().zip(["10.1.1.2", "fd00:1:1::2"]) {
        shell(&net.node, &command.replace("ROUTER", router));
    }
    Report::of(&net.node, "").expect_ok();
    for (from, to) in elsewhere {
        assert!(is_served(&net.client, from, to), "{from}");
    }
    drop(instance);
}

/// Of ranges without a route.
#[test]
fn clients_of_a_range_without_a_route_get_no_answer() {
    let net = Net::new(1);
    let ranges = |ranges: &str| {
        Report::of(
            &net.node,
            &format!("--src-ranges={ranges} tcp/80=10.2.1.2:8080"),
        )
    };
    ranges("10.1.1.0/24").expect_ok();
    let report = ranges("10.1.1.0/24,10.7.0.0/16");
    let warning = report.only("warning", "replies");
    assert_eq!(warning.command(), "ip route add 10.7.0.0/16 via ROUTER");
    let report = ranges("10.7.0.0/16");
    report.only("failure", "replies");
    shell(
        &net.node,
        &warning_command(&report).replace("ROUTER", "10.1.1.2"),
    );
    ranges("10.7.0.0/16").expect_ok();
}

fn warning_command(report: &Report) -> String {
    report.line("failure", "replies").command().to_owned()
}

/// The client and the destination on one link, as on one LAN.
fn one_lan() -> Net {
    let net = net(2);
    // The second backend is a client on the first one's network.
    net.node.ip("link add lan type bridge
        link set lan up
        addr del 10.2.1.1/24 dev backend-1
        addr del fd00:2:1::1/64 dev backend-1
        link set backend-1 master lan
        link set backend-2 master lan
        addr add 10.2.1.1/24 dev lan
        addr add fd00:2:1::1/64 dev lan nodad");
    net.backends[1].ip("addr add 10.2.1.3/24 dev eth0\naddr add fd00:2:1::3/64 dev eth0 nodad");
    // Otherwise what passes the bridge is translated too.
    for name in ["iptables", "ip6tables"] {
        let file = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
        shell(&net.node, &format!("test ! -e {file} || echo 0 > {file}"));
    }
    net
}

#[test]
fn without_masquerading_replies_within_a_subnet_bypass_this_host() {
    let net = one_lan();
    let _server = net.backends[0].serve(BACKEND_PORT);
    for (ranges, from, to) in [
        ("10.2.1.0/28", "10.2.1.3", "10.2.1.1"),
        ("fd00:2:1::/64", "fd00:2:1::3", "fd00:2:1::1"),
    ] {
        let arguments = format!("--src-ranges={ranges} {FORWARD}");
        let unmasqueraded = format!("--masquerade=false {arguments}");
        let served = |arguments: &str| {
            let _instance = start(&net, arguments);
            is_served(&net.backends[1], from, to)
        };
        assert!(served(&arguments));
        net.node.wait_for_rules("");
        assert!(!served(&unmasqueraded), "{from}");
        net.node.wait_for_rules("");
        let report = Report::of(&net.node, &unmasqueraded);
        let failure = report.line("failure", "replies");
        expect_parts(&failure.text, ["bypass this host", "NODEFWD_MASQUERADE"]);
        let report = Report::of(
            &net.node,
            &format!("--masquerade=false --from={from} {FORWARD}"),
        );
        report.line("failure", "replies");
    }
    let file = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if !net.node.run(|| file.exists()) {
        return;
    }
    // As on a host with Docker: such replies are translated too.
    shell(&net.node, &format!("echo 1 > {}", file.display()));
    let arguments = format!("--masquerade=false --src-ranges=10.2.1.0/28 {FORWARD}");
    let _instance = start(&net, &arguments);
    assert!(is_served(&net.backends[1], "10.2.1.3", "10.2.1.1"));
    Report::of(&net.node, "").line("warning", "replies");
}

#[test]
fn without_masquerading_the_way_back_is_not_known() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let call = format!("--masquerade=false {FORWARD}");
    let _instance = start(&net, &call);
    assert!(is_served(&net.client, "10.1.1.2", "10.1.1.1"));
    let report = Report::of(&net.node, "");
    let warning = report.only("warning", "replies");
    expect_parts(
        &warning.text,
        ["not looked at: whether 10.2.1.2, fd00:2:1::2 route"],
    );
    // The destination has another router: as before, from here.
    net.backends[0].ip("route del default\nroute add blackhole 10.1.0.0/16");
    assert!(!is_served(&net.client, "10.1.1.2", "10.1.1.1"));
}

/// A host with a second uplink: clients come to its address there, and the default route leads elsewhere.
fn second_uplink(tunnel: bool) -> (Net, Host) {
    let net = net(1);
    let second = net.another_client(2);
    second.ip("addr add 192.0.2.7/32 dev lo");
    if tunnel {
        net.node.ip("tuntap add tun9 mode tun
            link set tun9 up
            addr add 10.9.9.1/24 dev tun9
            route replace default dev tun9");
    }
    (net, second)
}

#[test]
fn clients_of_a_listen_address_come_in_on_its_interface() {
    for (tunnel, level) in [(false, "warning"), (true, "failure")] {
        let (net, second) = second_uplink(tunnel);
        let _server = net.backends[0].serve(BACKEND_PORT);
        for listen in ["10.1.2.1", "client-2"] {
            let arguments = format!("--listen={listen} tcp/80=10.2.1.2:8080");
            let _instance = start(&net, &arguments);
            assert!(is_served(&second, "10.1.2.2", "10.1.2.1"));
            assert!(!is_served(&second, "192.0.2.7", "10.1.2.1"));
            let report = Report::of(&net.node, "");
            let line = report.only(level, "replies");
            expect_parts(&line.text, ["come in on client-2 leave through "]);

            net.node.set_sysctl("net/ipv4/conf/client-2/rp_filter", "1");
            let report = Report::of(&net.node, "");
            let line = report.only(level, "replies");
            expect_parts(&line.text, ["the reverse-path filter drops them"]);
            assert_eq!(
                line.command(),
                "sysctl -w net.ipv4.conf.client-2.rp_filter=2"
            );
            net.node.set_sysctl("net/ipv4/conf/client-2/rp_filter", "0");

            // A way back for what comes in there.
            net.node
                .ip("rule add pref 50 fwmark 7 lookup 50\nroute add default via 10.1.2.2 table 50");
            net.node.load(MARKS_OF_THE_SECOND_UPLINK);
            assert!(is_served(&second, "192.0.2.7", "10.1.2.1"));
            Report::of(&net.node, "").expect_ok();
            net.node.ip("rule del pref 50\nroute flush table 50");
            net.node.load("delete table inet uplink");
            // Whoever is limited to its network is no such client.
            let limited = format!(
                "--name=other --src-ranges=10.1.2.0/24 --listen={listen} tcp/81=10.2.1.2:8080"
            );
            Report::of(&net.node, &limited).expect_ok();
        }
    }
}

/// Without a listen address it is not known where clients come in.
#[test]
fn a_default_route_into_a_tunnel_is_a_warning() {
    let (net, second) = second_uplink(true);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    assert!(!is_served(&second, "192.0.2.7", "10.1.2.1"));
    let report = Report::of(&net.node, "");
    assert_eq!(report.of_level("failure").len(), 0, "{report:#?}");
    let texts: Vec<&str> = report
        .of_level("warning")
        .iter()
        .map(|line| &*line.text)
        .collect();
    let about = texts
        .iter()
        .find(|text| text.contains("come in on client-2 leave through tun9"));
    assert!(about.is_some(), "{report:#?}");
}

/// A default route of another routing table, or one that counts only without the first, leads to an uplink too.
#[test]
fn a_second_uplink_whose_replies_leave_by_the_first_is_a_warning_until_they_do_not() {
    for route in ["metric 900", "table 50"] {
        let (net, second) = second_uplink(false);
        let _server = net.backends[0].serve(BACKEND_PORT);
        let _instance = start(&net, "tcp/80=10.2.1.2:8080");
        let warned = |parts: &[&str]| {
            assert!(!is_served(&second, "192.0.2.7", "10.1.2.1"));
            let report = Report::of(&net.node, "");
            let line = report.only("warning", "replies").clone();
            expect_parts(&line.text, parts);
            line
        };
        Report::of(&net.node, "").expect_ok();
        net.node
            .ip(&format!("route add default via 10.1.2.2 {route}"));
        net.node.set_sysctl("net/ipv4/conf/client-2/rp_filter", "1");
        let strict = warned(&["come in on client-2 get none: the reverse-path filter drops them"]);
        shell(&net.node, strict.command());
        warned(&["come in on client-2 leave through client, where few networks"]);
        net.node
            .ip("rule add pref 50 fwmark 7 lookup 51\nroute add default via 10.1.2.2 table 51");
        net.node.load(MARKS_OF_THE_SECOND_UPLINK);
        assert!(is_served(&second, "192.0.2.7", "10.1.2.1"));
        Report::of(&net.node, "").expect_ok();
    }
}
