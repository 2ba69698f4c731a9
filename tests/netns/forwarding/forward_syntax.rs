//! Every way to write forwards, each tried by which backend and port replies.

use nix::sys::signal::Signal;

use crate::fixture::{
    Family, Namespace, Net, Nodefwd, PROTOCOLS_AND_FAMILIES, Protocol, Server, TempFolder,
    expect_parts, nodefwd,
};

/// The ports that are served on both backends.
const SERVED: [u16; 6] = [7000, 7001, 7002, 9000, 9001, 9002];

/// Arguments, and for some ports the servers that reply there, one after the other: `1:9000` is the
/// first backend's port 9000. A port without servers is not forwarded.
///
/// In the arguments PROTO stands for the protocol, `<1>` for the first backend's address, and `[1]`
/// for the same where a port may follow it.
type Case = (&'static str, &'static [(u16, &'static [&'static str])]);

const RANGES: [Case; 8] = [
    (
        "PROTO/7000-7002=[1]",
        &[
            (6999, &[]),
            (7000, &["1:7000"]),
            (7001, &["1:7001"]),
            (7002, &["1:7002"]),
            (7003, &[]),
        ],
    ),
    (
        "PROTO/7100-7200=[1]:9000",
        &[
            (7099, &[]),
            (7100, &["1:9000"]),
            (7150, &["1:9000"]),
            (7200, &["1:9000"]),
            (7201, &[]),
        ],
    ),
    (
        "PROTO/7100-7102=[1]:9000-9002",
        &[
            (7099, &[]),
            (7100, &["1:9000"]),
            (7101, &["1:9001"]),
            (7102, &["1:9002"]),
            (7103, &[]),
        ],
    ),
    (
        "PROTO/7000-7002=[1]:9000-9002 PROTO/7100-7200=[2]:9001",
        &[
            (6999, &[]),
            (7000, &["1:9000"]),
            (7002, &["1:9002"]),
            (7003, &[]),
            (7099, &[]),
            (7100, &["2:9001"]),
            (7200, &["2:9001"]),
            (7201, &[]),
        ],
    ),
    (
        "PROTO/7000-7002=[1],[2]",
        &[(7000, &["1:7000", "2:7000"]), (7002, &["1:7002", "2:7002"])],
    ),
    (
        "PROTO/7100-7200=[1]:9000,[2]:9001",
        &[(7100, &["1:9000", "2:9001"]), (7200, &["1:9000", "2:9001"])],
    ),
    (
        "PROTO/7100-7102=[1]:9000-9002,[2]:7000-7002",
        &[
            (7100, &["1:9000", "2:7000"]),
            (7101, &["1:9001", "2:7001"]),
            (7102, &["1:9002", "2:7002"]),
        ],
    ),
    (
        "PROTO/7000-7002=[1]:9000-9002,[2]:9000,[2]",
        &[
            (7000, &["1:9000", "2:7000", "2:9000"]),
            (7001, &["1:9001", "2:7001", "2:9000"]),
            (7002, &["1:9002", "2:7002", "2:9000"]),
        ],
    ),
];

const SINGLE_PORTS: [Case; 3] = [
    (
        "PROTO/80=[1]:9000,[2]:9001,[2]:9002,[1]:7000",
        &[(80, &["1:7000", "1:9000", "2:9001", "2:9002"]), (9000, &[])],
    ),
    (
        "PROTO/80=[1]:9000 PROTO/81=[2]:9000 PROTO/82-83=[2]:9001-9002",
        &[
            (80, &["1:9000"]),
            (81, &["2:9000"]),
            (82, &["2:9001"]),
            (83, &["2:9002"]),
            (84, &[]),
        ],
    ),
    // The lowest and the highest port, each next to a range.
    (
        "PROTO/1=[1]:9000 PROTO/2-65534=[2]:9001 PROTO/65535=[1]:9002",
        &[
            (1, &["1:9000"]),
            (2, &["2:9001"]),
            (65534, &["2:9001"]),
            (65535, &["1:9002"]),
        ],
    ),
];

const CLASSIC: [Case; 6] = [
    (
        "--dest-ips=<1> --dest-proto=PROTO --src-port=80,81,7002 --dest-port=9000,9002,7000",
        &[
            (80, &["1:9000"]),
            (81, &["1:9002"]),
            (7002, &["1:7000"]),
            (82, &[]),
        ],
    ),
    (
        "--dest-ips <1> --dest-proto PROTO --src-port 80,90-91,7000 --dest-port 9000",
        &[
            (80, &["1:9000"]),
            (90, &["1:9000"]),
            (91, &["1:9000"]),
            (7000, &["1:9000"]),
        ],
    ),
    (
        "--dest-ips=<1> --dest-proto=PROTO --src-port=80,90-91 --dest-port=9002,9000-9001",
        &[(80, &["1:9002"]), (90, &["1:9000"]), (91, &["1:9001"])],
    ),
    (
        "--dest-ips=<1>,<2> --dest-proto=PROTO --src-port=7000-7001,9002",
        &[
            (7000, &["1:7000", "2:7000"]),
            (7001, &["1:7001", "2:7001"]),
            (9002, &["1:9002", "2:9002"]),
        ],
    ),
    (
        "--dest-ips=<1>,<2> --dest-proto=PROTO --src-port=90-91 --dest-port=9001-9002",
        &[(90, &["1:9001", "2:9001"]), (91, &["1:9002", "2:9002"])],
    ),
    // Both the classic options and forwards.
    (
        "--dest-ips=<1> --dest-proto=PROTO --src-port=80 --dest-port=9000 PROTO/81=[2]:9001 PROTO/82=[1]:9002",
        &[(80, &["1:9000"]), (81, &["2:9001"]), (82, &["1:9002"])],
    ),
];

#[test]
fn ranges_of_ports_go_where_they_should() {
    try_all(&RANGES);
}

#[test]
fn single_ports_go_where_they_should() {
    try_all(&SINGLE_PORTS);
}

#[test]
fn classic_options_go_where_they_should() {
    try_all(&CLASSIC);
}

fn try_all(cases: &[Case]) {
    let net = Net::new(2);
    let _servers = serve(&net);
    for (arguments, ports) in cases {
        for (protocol, family) in PROTOCOLS_AND_FAMILIES {
            let arguments = filled_in(arguments, protocol, family);
            // Shown if the test fails.
            println!("{arguments}");
            let forwarder = round_robin(&arguments).start(&net.node);
            for (port, servers) in *ports {
                expect_servers(&net, (protocol, family, *port), servers);
            }
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}

fn filled_in(arguments: &str, protocol: Protocol, family: Family) -> String {
    let [first, second] = match family {
        Family::V4 => ["10.2.1.2", "10.2.2.2"].map(|address| [address.into(), address.into()]),
        Family::V6 => ["fd00:2:1::2", "fd00:2:2::2"]
            .map(|address| [address.to_owned(), format!("[{address}]")]),
    };
    arguments
        .replace("PROTO", protocol.name())
        .replace("<1>", &first[0])
        .replace("[1]", &first[1])
        .replace("<2>", &second[0])
        .replace("[2]", &second[1])
}

/// Has each backend get one of as many requests as there are backends.
fn round_robin(arguments: &str) -> Nodefwd {
    nodefwd(arguments.split(' ')).args(&["--balance=round-robin"])
}

/// Serves all ports on both backends, under the names that the cases have.
fn serve(net: &Net) -> Vec<Server> {
    let ports = |backend| SERVED.map(|port| (backend, port));
    let server = |(backend, port): (usize, u16)| {
        let host = &net.backends[backend];
        let addresses = Family::BOTH.map(|family| (host.address(family), port).into());
        Server::start(host, &format!("{}:{port}", backend + 1), &addresses)
    };
    (0..net.backends.len())
        .flat_map(ports)
        .map(server)
        .collect()
}

/// Connects once for each server, and expects one reply of each. Without servers the port must be closed.
#[track_caller]
fn expect_servers(net: &Net, (protocol, family, port): (Protocol, Family, u16), servers: &[&str]) {
    let node_addr = net.node_addr(family, port);
    if servers.is_empty() {
        return net.client.expect_refused(protocol, node_addr);
    }
    // All stay open: a UDP flow from the port of a closed one would be the same flow.
    let flows = servers
        .iter()
        .map(|_| net.client.live_flow(protocol, node_addr));
    let mut flows: Vec<_> = flows.collect();
    flows.sort_by(|one, other| one.reply.server.cmp(&other.reply.server));
    for (flow, server) in flows.iter().zip(servers) {
        let backend = if server.starts_with('1') { 0 } else { 1 };
        // Masqueraded.
        let source = net.backends[backend].gateway(family);
        let seen = (flow.reply.server.as_str(), flow.reply.source.ip());
        assert_eq!(seen, (*server, source), "{protocol:?} {node_addr}");
    }
}

#[test]
fn one_process_forwards_each_protocol_and_family_to_a_backend_of_its_own() {
    let net = Net::new(2);
    let _servers = serve(&net);
    let call = "tcp/80-81=10.2.1.2:9000-9001,[fd00:2:2::2]:7001-7002 \
                udp/80-81=[fd00:2:1::2]:9001-9002,10.2.2.2:7000-7001";
    let _forwarder = round_robin(call).start(&net.node);
    for (service, servers) in [
        ((Protocol::Tcp, Family::V4), ["1:9000", "1:9001"]),
        ((Protocol::Tcp, Family::V6), ["2:7001", "2:7002"]),
        ((Protocol::Udp, Family::V4), ["2:7000", "2:7001"]),
        ((Protocol::Udp, Family::V6), ["1:9001", "1:9002"]),
    ] {
        for (port, server) in (80..).zip(servers) {
            let (protocol, family) = service;
            expect_servers(&net, (protocol, family, port), &[server]);
        }
    }
}

#[test]
fn forwards_in_the_environment_may_be_separated_by_any_white_space() {
    let net = Net::new(2);
    let _servers = serve(&net);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let forwards = "\n  PROTO/81=[1]:9001\n\tPROTO/82-83=[1]:9001-9002,[2]:7001-7002 \r\n\n";
        let [address, forwards] = ["<2>", forwards].map(|text| filled_in(text, protocol, family));
        let call = round_robin("run")
            .env("NODEFWD_FORWARDS", forwards)
            .env("DEST_IPS", address)
            .env("DEST_PROTO", protocol.name())
            .env("SRC_PORT", "80")
            .env("DEST_PORT", "9000");
        let forwarder = call.start(&net.node);
        for (port, servers) in [
            (80, &["2:9000"][..]),
            (81, &["1:9001"]),
            (82, &["1:9001", "2:7001"]),
            (83, &["1:9002", "2:7002"]),
            (84, &[]),
        ] {
            expect_servers(&net, (protocol, family, port), servers);
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// Seen in the rules, since the kernel of a test machine may have no SCTP sockets.
#[test]
fn sctp_has_rules_like_those_of_the_other_protocols() {
    let node = Namespace::forwarding("node");
    let call = "sctp/80=10.2.1.2:8080,[fd00:2:1::2]:8080 sctp/90-91=10.2.1.2 tcp/80=10.2.1.2";
    let forwarder = nodefwd(call.split(' ')).start(&node);
    let rules = node.ruleset();
    let parts = [
        "80 . sctp counter packets 0 bytes 0 : 10.2.1.2 . 8080",
        "80 . sctp counter packets 0 bytes 0 : fd00:2:1::2 . 8080",
        "90-91 . sctp : goto sctp-90-91-ipv4",
        "meta l4proto sctp counter packets 0 bytes 0 dnat ip to 10.2.1.2\n",
        "8080 . sctp . 10.2.1.2",
        "90-91 . sctp . 10.2.1.2",
        "8080 . sctp . fd00:2:1::2",
    ];
    expect_parts(&rules, parts);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Arguments of which two forwards match the same packets, and how the message names both.
const CONFLICTS: [(&str, [&str; 2]); 8] = [
    (
        "tcp/80=10.2.1.2 tcp/80=10.2.2.2",
        ["tcp/80=10.2.1.2", "tcp/80=10.2.2.2"],
    ),
    (
        "udp/80=10.2.1.2 UDP/80=10.2.1.2:81",
        ["udp/80=10.2.1.2", "udp/80=10.2.1.2:81"],
    ),
    (
        "sctp/80=fd00::2 sctp/80=fd00::3",
        ["sctp/80=[fd00::2]", "sctp/80=[fd00::3]"],
    ),
    (
        "tcp/80-90=10.2.1.2 udp/85=10.2.1.2 tcp/85=10.2.2.2",
        ["tcp/80-90=10.2.1.2", "tcp/85=10.2.2.2"],
    ),
    (
        "tcp/80-90=10.2.1.2 tcp/90-99=10.2.2.2",
        ["tcp/80-90=10.2.1.2", "tcp/90-99=10.2.2.2"],
    ),
    (
        "tcp/80=10.2.1.2,fd00::2 tcp/80=fd00::3,fd00::4",
        ["tcp/80=[fd00::2]", "tcp/80=[fd00::3]:80,[fd00::4]"],
    ),
    (
        "--dest-ips=10.2.1.2 --dest-proto=tcp --src-port=80 tcp/70-90=10.2.2.2",
        ["tcp/80=10.2.1.2", "tcp/70-90=10.2.2.2"],
    ),
    (
        "--dest-ips=10.2.1.2 --dest-proto=tcp --src-port=80,70-90 --dest-port=1,2",
        ["tcp/80=10.2.1.2:1", "tcp/70-90=10.2.1.2:2"],
    ),
];

/// As this host has them in /etc/services.
#[test]
fn names_of_services_are_ports() {
    let etc = TempFolder::new();
    etc.write(
        "services",
        "web 8001/tcp www\nmail 8002/tcp\nmail 8002/udp\nodd 1/tcp\nodd 2/udp\n",
    );
    let script = "mount --bind \"$0\" /etc && exec \"$@\"";
    let folder = etc.path().to_str().expect("UTF-8");
    let wrapper = ["unshare", "--mount", "sh", "-c", script, folder];
    let render = |forward: &str| nodefwd(["render", forward]).wrapped(&wrapper).finish_here();
    for (named, numbered) in [
        ("tcp/www=10.2.1.2:mail", "tcp/8001=10.2.1.2:8002"),
        ("tcp,udp/mail=10.2.1.2", "tcp,udp/8002=10.2.1.2"),
        ("tcp/web,80,odd=10.2.1.2", "tcp/8001,80,1=10.2.1.2"),
        ("udp/odd=10.2.1.2", "udp/2=10.2.1.2"),
    ] {
        let rules = |forward| render(forward).expect_success();
        assert_eq!(rules(named), rules(numbered), "{named}");
    }
    for (forward, name) in [
        ("tcp/none=10.2.1.2", "'none'"),
        ("udp/web=10.2.1.2", "'web'"),
        ("tcp,udp/odd=10.2.1.2", "'odd'"),
    ] {
        let stderr = render(forward).expect_exit(2).stderr;
        expect_parts(&stderr, [name]);
    }
}

#[test]
fn two_forwards_of_the_same_packets_are_rejected_and_both_are_named() {
    for (arguments, both) in CONFLICTS {
        let call = nodefwd(arguments.split(' ')).without_net_admin();
        let stderr = call.finish_here().expect_exit(2).stderr;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        expect_parts(&stderr, both);
    }
}
