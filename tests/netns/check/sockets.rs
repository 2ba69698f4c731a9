//! Sockets of the host itself on a port that is to be forwarded.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use super::{Report, net, words};
use crate::fixture::{LIMIT, Net, Protocol, Server};

/// Sockets that serve TCP and UDP in the node, arguments, and the sockets that lose. `P` stands for
/// the port.
const CASES: [(&str, &str, &str); 14] = [
    ("10.1.1.1:P", "tcp/P=10.2.1.2", "tcp/10.1.1.1:P"),
    ("0.0.0.0:P", "tcp/P=10.2.1.2", "tcp/0.0.0.0:P"),
    ("[::]:P", "tcp/P=10.2.1.2", "tcp/[::]:P"),
    ("10.1.1.1:P", "udp/P=10.2.1.2", "udp/10.1.1.1:P"),
    (
        "10.1.1.1:P",
        "udp/P=10.2.1.2 tcp/1P=10.2.1.2",
        "udp/10.1.1.1:P",
    ),
    (
        "10.1.1.1:P",
        "udp/P=10.2.1.2 tcp/80-9999=10.2.1.2",
        "tcp/10.1.1.1:P udp/10.1.1.1:P",
    ),
    (
        "[fd00:1:1::1]:P",
        "tcp/P=fd00:2:1::2",
        "tcp/[fd00:1:1::1]:P",
    ),
    (
        "10.1.1.1:P 10.2.1.1:P",
        "--listen=10.2.1.1 tcp/P=10.2.1.2",
        "tcp/10.2.1.1:P",
    ),
    (
        "0.0.0.0:P",
        "--listen=10.2.1.1 tcp/P=10.2.1.2",
        "tcp/0.0.0.0:P",
    ),
    // Other ports, protocols, families and addresses, and what nobody else can reach.
    ("10.1.1.1:P", "tcp/1P=10.2.1.2", ""),
    ("10.1.1.1:P", "sctp/P=10.2.1.2", ""),
    ("[fd00:1:1::1]:P", "tcp/P=10.2.1.2", ""),
    ("127.0.0.1:P [::1]:P", "tcp/P=10.2.1.2,fd00:2:1::2", ""),
    ("10.1.1.1:P", "--listen=10.2.1.1 tcp/P=10.2.1.2", ""),
];

/// The sockets that check says lose their connections.
fn losers(net: &Net, arguments: &str) -> String {
    let report = Report::of(&net.node, arguments);
    let mut found = Vec::new();
    for line in report.0.iter().filter(|line| line.level != "ok") {
        let kind = (line.level.as_str(), line.subject.as_str());
        assert_eq!(kind, ("warning", "sockets"), "{report:#?}");
        let (_, rest) = line.text.split_once(" listens on ").expect("a socket");
        let (socket, _) = rest.split_once(',').expect("its end");
        found.push(socket.replace(' ', "/"));
    }
    found.sort();
    found.join(" ")
}

#[test]
fn a_socket_loses_what_is_forwarded_and_nothing_else() {
    let net = net(1);
    // Each case has a port of its own: a socket lives on for a moment in a process that another
    // test just starts.
    for (port, (sockets, arguments, expected)) in (1001..).zip(CASES) {
        let [sockets, arguments, expected] =
            [sockets, arguments, expected].map(|text| text.replace('P', &format!("{port}")));
        let parse = |address: &str| address.parse::<SocketAddr>().expect("an address");
        let sockets: Vec<SocketAddr> = words(&sockets).into_iter().map(parse).collect();
        let _server = Server::start(&net.node, "node", &sockets);
        assert_eq!(
            losers(&net, &arguments),
            expected,
            "{sockets:?} {arguments}"
        );
    }
}

#[test]
fn the_process_is_named() {
    let net = net(1);
    let mut busybox = Command::new("busybox");
    busybox.args(["nc", "-l", "-p", "80"]);
    let server = net.node.spawn(busybox);
    let expected = format!("process {} (busybox) listens on tcp ", server.id());
    let deadline = Instant::now() + LIMIT;
    loop {
        let report = Report::of(&net.node, "tcp/80=10.2.1.2");
        let lines = report.of_level("warning");
        if lines.iter().any(|line| line.text.starts_with(&expected)) {
            return;
        }
        assert!(Instant::now() < deadline, "{report:#?}");
    }
}

/// A socket that is connected is somebody's own, not a server's.
#[test]
fn clients_are_not_servers() {
    let net = net(1);
    let _server = net.backends[0].serve(53);
    let backend = SocketAddr::from(([10, 2, 1, 2], 53));
    let from = SocketAddr::from(([10, 2, 1, 1], 53));
    for protocol in Protocol::BOTH {
        let client = net.node.connect_from(protocol, from, backend);
        let _client = client.expect("a connection");
        Report::of(&net.node, "tcp/53=10.2.1.2 udp/53=10.2.1.2").expect_ok();
    }
}
