//! Every way to say which ports go where, seen by which host and port answers.

use nix::sys::signal::Signal;

use crate::fixture::{Family, Namespace, Net, Nodefwd, Protocol, Server, nodefwd};

/// The ports that are served on both backends.
const SERVED: [u16; 6] = [7000, 7001, 7002, 9000, 9001, 9002];

/// A call, and for each port who answers there in turn: `1:9000` is the first backend's port 9000;
/// nobody stands for a port that is not forwarded.
///
/// In a call PROTO is the protocol, `<1>` an address and `[1]` the same as a port may follow.
type Shape = (&'static str, &'static [(u16, &'static [&'static str])]);

const RANGES: [Shape; 7] = [
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

const SINGLE_PORTS: [Shape; 3] = [
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
    // One way in each of the sets: next to a range, and at the edges of what there is.
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

const CLASSIC: [Shape; 6] = [
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
        "--dest-ips=<1> --dest-proto=PROTO --src-port=80,90-91,7000 --dest-port=9000",
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
    // The classic variables and forwards together.
    (
        "--dest-ips=<1> --dest-proto=PROTO --src-port=80 --dest-port=9000 PROTO/81=[2]:9001 PROTO/82=[1]:9002",
        &[(80, &["1:9000"]), (81, &["2:9001"]), (82, &["1:9002"])],
    ),
];

#[test]
fn ranges_are_forwarded_as_asked() {
    try_all(&RANGES);
}

#[test]
fn single_ports_are_forwarded_as_asked() {
    try_all(&SINGLE_PORTS);
}

#[test]
fn classic_variables_are_forwarded_as_asked() {
    try_all(&CLASSIC);
}

fn try_all(shapes: &[Shape]) {
    let net = Net::new(2);
    let _servers = serve(&net);
    for (call, answers) in shapes {
        for (protocol, family) in everything() {
            let call = filled(call, protocol, family);
            let forwarder = in_turn(&call).start(&net.node);
            for (port, servers) in *answers {
                expect_servers(&net, (protocol, family, *port), servers, &call);
            }
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}

fn everything() -> impl Iterator<Item = (Protocol, Family)> {
    let with_both = |protocol| Family::BOTH.map(|family| (protocol, family));
    Protocol::BOTH.into_iter().flat_map(with_both)
}

fn filled(call: &str, protocol: Protocol, family: Family) -> String {
    let [first, second] = match family {
        Family::V4 => ["10.2.1.2", "10.2.2.2"].map(|address| [address.into(), address.into()]),
        Family::V6 => ["fd00:2:1::2", "fd00:2:2::2"]
            .map(|address| [address.to_owned(), format!("[{address}]")]),
    };
    call.replace("PROTO", protocol.name())
        .replace("<1>", &first[0])
        .replace("[1]", &first[1])
        .replace("<2>", &second[0])
        .replace("[2]", &second[1])
}

/// So that as many requests as there are destinations see each of them once.
fn in_turn(call: &str) -> Nodefwd {
    nodefwd(call.split(' ')).args(&["--balance=round-robin"])
}

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

#[track_caller]
fn expect_servers(
    net: &Net,
    (protocol, family, port): (Protocol, Family, u16),
    servers: &[&str],
    call: &str,
) {
    let front = net.front(family, port);
    if servers.is_empty() {
        return net.client.expect_refused(protocol, front);
    }
    let request = |_| match net.client.request(protocol, front) {
        Ok(answer) => answer.server,
        Err(error) => panic!("{call}: {protocol:?} {front}: {error}"),
    };
    let mut answered: Vec<_> = servers.iter().map(request).collect();
    answered.sort();
    assert_eq!(answered, servers, "{call}: {protocol:?} {front}");
}

#[test]
fn protocols_and_families_go_their_own_ways_in_one_process() {
    let net = Net::new(2);
    let _servers = serve(&net);
    let call = "tcp/80-81=10.2.1.2:9000-9001,[fd00:2:2::2]:7001-7002 \
                udp/80-81=[fd00:2:1::2]:9001-9002,10.2.2.2:7000-7001";
    let _forwarder = in_turn(call).start(&net.node);
    for (service, servers) in [
        ((Protocol::Tcp, Family::V4), ["1:9000", "1:9001"]),
        ((Protocol::Tcp, Family::V6), ["2:7001", "2:7002"]),
        ((Protocol::Udp, Family::V4), ["2:7000", "2:7001"]),
        ((Protocol::Udp, Family::V6), ["1:9001", "1:9002"]),
    ] {
        for (port, server) in (80..).zip(servers) {
            let (protocol, family) = service;
            expect_servers(&net, (protocol, family, port), &[server], call);
        }
    }
}

#[test]
fn the_variable_of_forwards_may_hold_any_white_space() {
    let net = Net::new(2);
    let _servers = serve(&net);
    for (protocol, family) in everything() {
        let forwards = "\n  PROTO/81=[1]:9001\n\tPROTO/82-83=[1]:9001-9002,[2]:7001-7002 \r\n\n";
        let [address, forwards] = ["<2>", forwards].map(|text| filled(text, protocol, family));
        let call = in_turn("run")
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
            expect_servers(&net, (protocol, family, port), servers, "variables");
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// The kernel of a test machine may have no SCTP sockets, but its rules need none.
#[test]
fn sctp_is_forwarded_like_the_others() {
    let node = Namespace::forwarding("node");
    let call = "sctp/80=10.2.1.2:8080,[fd00:2:1::2]:8080 sctp/90-91=10.2.1.2 tcp/80=10.2.1.2";
    let forwarder = nodefwd(call.split(' ')).start(&node);
    let rules = node.ruleset();
    for part in [
        "sctp . 80 : goto sctp-80-ipv4",
        "sctp . 80 : goto sctp-80-ipv6",
        "sctp . 90-91 : goto sctp-90-91-ipv4",
        "meta l4proto sctp counter packets 0 bytes 0 dnat ip to 10.2.1.2:8080",
        "meta l4proto sctp counter packets 0 bytes 0 dnat ip6 to [fd00:2:1::2]:8080",
        "meta l4proto sctp counter packets 0 bytes 0 dnat ip to 10.2.1.2\n",
        "10.2.1.2 . sctp . 8080",
        "10.2.1.2 . sctp . 90-91",
        "fd00:2:1::2 . sctp . 8080",
    ] {
        assert!(rules.contains(part), "'{part}' is not in:\n{rules}");
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Calls that claim the same packets twice, and how the message names both claims.
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
        "tcp/80-90=10.2.1.2 tcp/85=10.2.2.2",
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

#[test]
fn what_is_claimed_twice_is_bad_input_that_names_both() {
    for (call, both) in CONFLICTS {
        let call = nodefwd(call.split(' ')).without_net_admin();
        let stderr = call.finish_here().expect_exit(2).stderr;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for claim in both {
            assert!(stderr.contains(claim), "'{claim}' is not in: {stderr}");
        }
    }
}
