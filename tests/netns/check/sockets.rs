//! Sockets of the host itself that listen on a forwarded port, and get no connections any more.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;

use super::{Report, net, without_netlink, words};
use crate::fixture::{Net, Protocol, Server, expect_parts, wait_until};
use socket2::{Domain, Socket, Type};

/// Addresses that serve TCP and UDP on the node, arguments, and the sockets that lose their
/// connections. `P` stands for the port.
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
    // It keeps its clients at the other addresses.
    ("0.0.0.0:P", "--listen=10.2.1.1 tcp/P=10.2.1.2", ""),
    // Other ports, protocols, families and addresses, and loopback.
    ("10.1.1.1:P", "tcp/1P=10.2.1.2", ""),
    ("10.1.1.1:P", "sctp/P=10.2.1.2", ""),
    ("[fd00:1:1::1]:P", "tcp/P=10.2.1.2", ""),
    ("127.0.0.1:P [::1]:P", "tcp/P=10.2.1.2,fd00:2:1::2", ""),
    ("10.1.1.1:P", "--listen=10.2.1.1 tcp/P=10.2.1.2", ""),
];

/// The sockets that lose their connections, as check says.
fn losing_sockets(net: &Net, arguments: &str) -> String {
    let report = Report::of(&net.node, arguments);
    let mut found = Vec::new();
    let about = report.0.iter().filter(|line| line.subject == "sockets");
    for line in about.filter(|line| line.level != "ok") {
        assert_eq!(line.level, "warning", "{report:#?}");
        let (_, rest) = line.text.split_once(" listens on ").expect("a socket");
        let (socket, _) = rest.split_once(',').expect("its end");
        found.push(socket.replace(' ', "/"));
    }
    found.sort();
    found.join(" ")
}

#[test]
fn a_socket_on_a_forwarded_port_is_a_warning_and_no_other_is() {
    let net = net(1);
    // Each case has a port of its own: a child process that another test just starts may keep a closed
    // socket open for a moment.
    for (port, (sockets, arguments, expected)) in (1001..).zip(CASES) {
        let [sockets, arguments, expected] =
            [sockets, arguments, expected].map(|text| text.replace('P', &format!("{port}")));
        let parse = |address: &str| address.parse::<SocketAddr>().expect("an address");
        let sockets: Vec<SocketAddr> = words(&sockets).into_iter().map(parse).collect();
        let _server = Server::start(&net.node, "node", &sockets);
        assert_eq!(
            losing_sockets(&net, &arguments),
            expected,
            "{sockets:?} {arguments}"
        );
    }
}

#[test]
fn the_process_that_listens_is_named() {
    let net = net(1);
    let mut busybox = Command::new("busybox");
    busybox.args(["nc", "-l", "-p", "80"]);
    let server = net.node.spawn(busybox);
    let expected = format!("process {} (busybox) listens on tcp ", server.id());
    // It does not say when it listens.
    let report = || Report::of(&net.node, "tcp/80=10.2.1.2");
    let names_it = |report: &Report| {
        let warnings = report.of_level("warning");
        let mut texts = warnings.iter().map(|line| &line.text);
        texts.any(|text| text.starts_with(&expected))
    };
    wait_until(&expected, report, names_it);
}

#[test]
fn a_connected_socket_of_a_client_on_the_host_is_no_warning() {
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

#[test]
fn a_socket_for_ipv6_only_loses_no_ipv4_connections() {
    let net = net(1);
    let _socket = net.node.run(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
        socket.set_only_v6(true).expect("IPv6 only");
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80));
        socket.bind(&address.into()).expect("bound");
        socket.listen(1).expect("listening");
        socket
    });
    assert_eq!(losing_sockets(&net, "tcp/80=10.2.1.2"), "");
    assert_eq!(losing_sockets(&net, "tcp/80=fd00:2:1::2"), "tcp/[::]:80");
}

/// A kernel may lack the module.
#[test]
fn sockets_that_the_kernel_does_not_list_are_a_doubt() {
    let net = net(1);
    let found = "ok: sockets: none listens on a port that is forwarded";
    let [all, stdout] = without_netlink(&net, "NETLINK_SOCK_DIAG", "EPROTONOSUPPORT");
    expect_parts(&all, [found]);
    expect_parts(
        &stdout,
        ["warning: sockets: not looked at: the kernel does not list"],
    );
    assert!(!stdout.contains(found), "{stdout}");
}
