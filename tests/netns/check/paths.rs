//! The paths of packets to the backends and back: routes, forwarding, reverse path filters.

use nix::sys::signal::Signal;

use super::firewall::is_forwarded;
use super::{BACKEND_PORT, FORWARDED_PORT, Line, Report, net, shell, start};
use crate::fixture::{Bridge, Family, Net, Protocol, Server, expect_parts, nodefwd};

#[test]
fn a_backend_without_a_route_is_a_failure_until_there_is_one() {
    let net = net(1);
    for (family, destination) in [("-4", "10.9.0.1"), ("-6", "fd00:9::1")] {
        let check = || Report::of(&net.node, &format!("tcp/80={destination}"));
        check().expect_ok();
        let ip_route = |action: &str, kind: &str| {
            let arguments = [family, "route", action, kind, destination];
            net.node.succeed("ip", &arguments);
        };
        for kind in ["unreachable", "blackhole", "prohibit"] {
            ip_route("add", kind);
            let report = check();
            let failure = report.only("failure", "routes");
            let start = format!("none to {destination}: add one ");
            assert!(failure.text.starts_with(&start), "{failure:?}");
            ip_route("del", kind);
        }
    }
    net.node.ip("route del default");
    net.node.succeed("ip", &["-6", "route", "del", "default"]);
    let report = Report::of(&net.node, "tcp/80=10.9.0.1,10.2.1.2 udp/80=10.9.0.2");
    let failure = report.line("failure", "routes");
    assert!(
        failure.text.starts_with("none to 10.9.0.1, 10.9.0.2: "),
        "{failure:?}"
    );
    for destination in ["10.9.0.1", "10.9.0.2"] {
        shell(
            &net.node,
            &failure
                .command()
                .replace("ROUTER", "10.2.1.2")
                .replace("10.9.0.1", destination),
        );
    }
    let report = Report::of(&net.node, "tcp/80=10.9.0.1,10.2.1.2 udp/80=10.9.0.2");
    report.line("ok", "routes");
}

/// A name of an interface is up to 15 bytes without blanks and slashes (dev_valid_name in net/core/dev.c).
#[test]
fn a_route_through_an_interface_whose_name_is_no_text_is_one() {
    let net = net(1);
    let script = r"odd=$'x\xff\xfey'
        ip link add $odd type dummy 2>/dev/null || ip link add $odd type veth peer name odd-peer
        ip link set $odd up; ip link set odd-peer up 2>/dev/null
        ip address add 10.3.0.1/24 dev $odd";
    net.node.succeed("bash", &["-c", script]);
    let report = Report::of(&net.node, "tcp/80=10.3.0.5");
    assert_eq!(
        report.only("ok", "routes").text,
        "every destination has one"
    );
}

/// The host's own packets may have another route.
#[test]
fn the_route_that_counts_is_that_of_packets_that_come_in() {
    let net = net(1);
    net.node.ip("rule add iif client to 10.2.1.2 blackhole");
    let report = Report::of(&net.node, "tcp/80=10.2.1.2");
    let failure = report.only("failure", "routes");
    expect_parts(
        &failure.text,
        [
            "10.2.1.2 for packets that come in on client",
            "from 192.0.2.1 iif client",
        ],
    );
    // Those that come in on another interface have a route.
    let _second = net.another_client(2);
    Report::of(&net.node, "--src-ranges=10.1.2.0/24 tcp/80=10.2.1.2").expect_ok();
    let report = Report::of(&net.node, "--src-ranges=10.1.1.0/24 tcp/80=10.2.1.2");
    report.only("failure", "routes");
}

/// Each interface has a sysctl of its own: clients' packets come in on one, and replies on another.
#[test]
fn an_interface_that_forwards_nothing_is_a_failure() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let forward = "tcp/80=10.2.1.2:8080 udp/80=10.2.1.2:8080";
    for interface in ["client", "backend-1"] {
        net.node
            .set_sysctl(&format!("net/ipv4/conf/{interface}/forwarding"), "0");
        let instance = start(&net, forward);
        assert!(
            !is_forwarded(&net, Protocol::Tcp, Family::V4),
            "{interface}"
        );
        instance.stop(Signal::SIGTERM).expect_exit(0);
        let report = Report::of(&net.node, forward);
        let failures = report.of_level("failure");
        assert_eq!(failures.len(), 1, "{report:#?}");
        assert_eq!(failures[0].subject, "forwarding");
        shell(&net.node, failures[0].command());
        Report::of(&net.node, forward).expect_ok();
    }
    let _instance = start(&net, forward);
    assert!(is_forwarded(&net, Protocol::Tcp, Family::V4));
}

/// Clients come in on the only interface to listen on, wherever the default route leads.
#[test]
fn with_an_interface_to_listen_on_clients_come_in_there() {
    let net = net(1);
    let _other = net.another_client(2);
    let forward = "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080";
    let failures = |listen: &str| {
        let report = Report::of(&net.node, &format!("--listen={listen} {forward}"));
        let failures = report.of_level("failure").into_iter();
        failures.cloned().collect::<Vec<Line>>()
    };
    assert_eq!(failures("client-2"), []);
    net.node
        .set_sysctl("net/ipv4/conf/client-2/forwarding", "0");
    assert_eq!(failures("client"), []);
    let found = failures("client-2");
    assert_eq!(found.len(), 1, "{found:#?}");
    expect_parts(&found[0].text, ["packets that come in on client-2"]);
    // So says the status, too.
    for (listen, on) in [("client", true), ("client-2", false)] {
        let _instance = start(&net, &format!("--listen={listen} {forward}"));
        let ready = nodefwd(["status", "--ready"]).finish(&net.node);
        let stderr = ready.expect_exit(i32::from(!on)).stderr;
        assert_eq!(stderr.contains("come in on client-2"), !on, "{stderr}");
    }
    shell(&net.node, found[0].command());
    assert_eq!(failures("client-2"), []);
}

/// What comes in on a port comes in on the whole.
#[test]
fn an_interface_that_is_a_part_of_another_is_a_warning() {
    let net = net(1);
    let _bridge = Bridge::new(&net.node, 1);
    let about = |listen: &str| {
        let report = Report::of(&net.node, &format!("--listen={listen} tcp/80=10.2.1.2"));
        let mut lines = report.0.into_iter();
        lines.find(|line| line.subject == "listen")
    };
    let line = about("bridged-1").expect("a line");
    assert_eq!(line.level, "warning");
    expect_parts(
        &line.text,
        ["bridged-1 is a part of br0", "list br0 instead"],
    );
    assert_eq!(about("br0"), None);
}

/// Without a default route, check does not know on which interface clients come in.
#[test]
fn on_a_host_without_an_uplink_rules_for_one_interface_are_a_warning() {
    let net = Net::new(1);
    let _second = net.another_client(2);
    let forward = "tcp/80=10.2.1.2,fd00:2:1::2";
    Report::of(&net.node, forward).line("ok", "firewall");
    net.node.load(
        "table inet fw { chain forward {
            type filter hook forward priority 0; policy drop;
            ct state established accept
            iifname \"client\" accept
         }; }",
    );
    Report::of(&net.node, forward).line("warning", "firewall");
    let ranges =
        |ranges: &str| Report::of(&net.node, &format!("--src-ranges={ranges} tcp/80=10.2.1.2"));
    ranges("10.1.1.0/24").expect_ok();
    ranges("10.1.2.0/24").only("failure", "firewall");
    ranges("10.1.1.0/24,10.1.2.0/24").only("warning", "firewall");
}

/// A forward to the host's own address leads to a socket of the host, as a redirection would.
#[test]
fn a_backend_on_the_host_itself_is_a_warning_unless_a_socket_listens_there() {
    let net = net(1);
    let own = net.node_addr(Family::V4, BACKEND_PORT);
    let forward = format!("tcp/{FORWARDED_PORT}={own}");
    let report = Report::of(&net.node, &forward);
    let about = |line: &&Line| line.subject == "routes" && line.text.contains(&own.to_string());
    let find = |report: &Report| report.0.iter().find(about).cloned();
    let line = find(&report).expect("a line");
    assert_eq!(line.level, "warning", "{line:?}");

    let _server = Server::start(&net.node, "node", &[own]);
    let report = Report::of(&net.node, &forward);
    report.expect_ok();
    let line = find(&report).expect("a line");
    expect_parts(&line.text, ["the socket that listens there"]);
    let _instance = start(&net, &forward);
    let reply = net
        .client
        .request(Protocol::Tcp, net.node_addr(Family::V4, FORWARDED_PORT));
    assert_eq!(reply.expect("a reply").server, "node");
}

/// A second link to the backend and one to the client. Packets from the client's first link go to the
/// backend over its second link, and replies go to the client over its second link. So replies come in
/// on an interface through which the host would not send what comes in where they go out.
fn asymmetric() -> Net {
    let net = net(1);
    for (name, host, subnet) in [
        ("second", &net.backends[0], "10.3.0"),
        ("third", &net.client, "10.4.0"),
    ] {
        net.node.ip(&format!(
            "link add {name} type veth peer name eth1 netns {}
             addr add {subnet}.1/24 dev {name}
             link set {name} up",
            host.name()
        ));
        host.ip(&format!(
            "addr add {subnet}.2/24 dev eth1\nlink set eth1 up"
        ));
    }
    net.node.ip("rule add iif client lookup 100
         route add 10.2.1.0/24 via 10.3.0.2 dev second table 100
         rule add iif second lookup 200
         route add default via 10.4.0.2 dev third table 200");
    net
}

#[test]
fn a_strict_reverse_path_filter_is_a_failure_until_it_is_loose() {
    let net = asymmetric();
    let _server = net.backends[0].serve(BACKEND_PORT);
    // Clients of elsewhere would be dropped where they come in on the third link.
    let forward = "--src-ranges=10.1.1.0/24 tcp/80=10.2.1.2:8080";
    Report::of(&net.node, "tcp/80=10.2.1.2:8080").expect_ok();
    let is_forwarded = || {
        let _instance = start(&net, forward);
        is_forwarded(&net, Protocol::Tcp, Family::V4)
    };
    Report::of(&net.node, forward).expect_ok();
    assert!(is_forwarded());
    for (name, failures) in [
        ("second", &[("replies", "second")][..]),
        ("client", &[("routes", "client")]),
        ("all", &[("routes", "client"), ("replies", "second")]),
    ] {
        net.node
            .set_sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "1");
        for (subject, interface) in failures {
            assert!(!is_forwarded(), "{name}");
            let report = Report::of(&net.node, forward);
            let command = report.only("failure", subject).command();
            assert_eq!(
                command,
                format!("sysctl -w net.ipv4.conf.{interface}.rp_filter=2")
            );
            shell(&net.node, command);
        }
        Report::of(&net.node, forward).expect_ok();
        assert!(is_forwarded(), "{name}");
        for (_, interface) in failures {
            net.node
                .set_sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0");
        }
    }
}

#[test]
fn a_strict_reverse_path_filter_is_no_problem_where_paths_are_symmetric() {
    let net = net(1);
    net.node.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    let _server = net.backends[0].serve(BACKEND_PORT);
    for arguments in [
        "tcp/80=10.2.1.2:8080",
        "--masquerade=false tcp/80=10.2.1.2:8080",
    ] {
        let report = Report::of(&net.node, arguments);
        assert_eq!(report.of_level("failure").len(), 0, "{report:#?}");
        report.line("ok", "routes");
        let _instance = start(&net, arguments);
        assert!(is_forwarded(&net, Protocol::Tcp, Family::V4), "{arguments}");
    }
}

#[test]
fn replies_without_a_route_to_the_clients_are_a_failure() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let forward = "tcp/80=10.2.1.2:8080";
    net.node
        .ip("rule add pref 10 iif backend-1 to 10.0.0.0/8 lookup main\nrule add pref 11 iif backend-1 unreachable");
    let report = Report::of(&net.node, forward);
    let failure = report.only("failure", "replies");
    let command = "ip route get 192.0.2.1 from 10.2.1.2 iif backend-1";
    expect_parts(&failure.text, [command]);
    // Replies do have a route to these clients.
    let ranges = "--src-ranges=10.1.1.0/24";
    Report::of(&net.node, &format!("{ranges} {forward}")).expect_ok();
    let _instance = start(&net, &format!("{ranges} {forward}"));
    assert!(is_forwarded(&net, Protocol::Tcp, Family::V4));
}
