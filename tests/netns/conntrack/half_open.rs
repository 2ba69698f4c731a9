//! TCP connections that have had no reply: their client tries again and again on the same entry.

use std::net::SocketAddr;
use std::{io, thread};

use nix::sys::signal::Signal;

use super::stale_flows::{crash, net_with_sibling};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Host, Net, Process, Protocol, Reply, forward_to,
    wait_until,
};

/// The client's port, the same for each attempt.
const CLIENT_PORT: u16 = 40_000;

/// A net whose first backend is silent, and whose second one replies.
fn net_with_silent_backend() -> Net {
    let net = net_with_sibling(2);
    net.backends[0].load(SILENT);
    net
}

/// The rules of a host that does not reply.
const SILENT: &str = "table inet silent {
    chain input {
        type filter hook input priority 0
        tcp dport { 80, 8080 } drop
    }
}";

/// Has the client connect for as long as that takes, calls `meanwhile` once the connection is without a
/// reply, and gives the reply.
fn connect_meanwhile(net: &Net, to: SocketAddr, meanwhile: impl FnOnce()) -> io::Result<Reply> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let from = SocketAddr::new(net.client.address(family), CLIENT_PORT);
    thread::scope(|scope| {
        let client = scope.spawn(move || net.client.request_from(Protocol::Tcp, from, to));
        let port = CLIENT_PORT.to_string();
        let selection = [
            "--proto",
            "tcp",
            "--orig-port-src",
            &port,
            "--state",
            "SYN_SENT",
        ];
        let entries = || net.node.conntrack_entries(family, &selection);
        wait_until("a half-open connection", entries, |found| found.len() == 1);
        meanwhile();
        client.join().expect("no panic")
    })
}

fn forward_to_one(host: &[Host]) -> crate::fixture::Nodefwd {
    forward_to(Protocol::Tcp, host)
}

#[test]
fn a_connection_without_a_reply_moves_to_a_backend_that_is_listed() {
    type Restart = fn(&Net, Process) -> Process;
    let restarts: [Restart; 2] = [
        |net, old| {
            crash(net, old);
            forward_to_one(&net.backends[1..]).start(&net.node)
        },
        |net, old| {
            let call = forward_to_one(&net.backends[1..]).args(&["--replace"]);
            let new = call.start(&net.node);
            old.finish().expect_exit(0);
            new
        },
    ];
    for family in Family::BOTH {
        for restart in restarts {
            let net = net_with_silent_backend();
            let _server = net.backends[1].serve(BACKEND_PORT);
            let old = forward_to_one(&net.backends[..1]).start(&net.node);
            let mut new = None;
            let to = net.node_addr(family, FORWARDED_PORT);
            let reply = connect_meanwhile(&net, to, || new = Some(restart(&net, old)));
            assert_eq!(reply.expect("a reply").server, "backend-2");
            let new = new.expect("a successor");
            new.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}

/// A virtual address may have come from another host.
#[test]
fn a_connection_without_a_reply_that_bypassed_the_rules_is_forwarded() {
    for (family, address) in Family::BOTH.into_iter().zip(["10.9.0.1", "fd00:9::1"]) {
        let net = net_with_silent_backend();
        let _server = net.backends[1].serve(BACKEND_PORT);
        let silent = net.backends[0].address(family);
        net.backends[0].ip(&format!("address add {address} dev lo nodad"));
        net.node.ip(&format!("route add {address} via {silent}"));
        let to = SocketAddr::new(address.parse().expect("an address"), FORWARDED_PORT);
        let mut forwarder = None;
        let reply = connect_meanwhile(&net, to, || {
            // A slow start is no reason to refuse an attempt that comes before.
            net.node.load(SILENT);
            net.node.ip(&format!(
                "route delete {address} via {silent}\naddress add {address} dev lo nodad"
            ));
            forwarder = Some(forward_to_one(&net.backends[1..]).start(&net.node));
        });
        assert_eq!(reply.expect("a reply").server, "backend-2");
        let forwarder = forwarder.expect("a forwarder");
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// The backend may still reply.
#[test]
fn a_connection_without_a_reply_stays_with_a_backend_that_is_listed() {
    for family in Family::BOTH {
        let net = net_with_silent_backend();
        let _servers = net.serve(BACKEND_PORT);
        let old = forward_to_one(&net.backends[..1]).start(&net.node);
        let to = net.node_addr(family, FORWARDED_PORT);
        let mut new = None;
        let reply = connect_meanwhile(&net, to, || {
            let call = forward_to_one(&net.backends).args(&["--replace"]);
            new = Some(call.start(&net.node));
            old.finish().expect_exit(0);
            net.backends[0].succeed("nft", &["delete", "table", "inet", "silent"]);
        });
        assert_eq!(reply.expect("a reply").server, "backend-1");
        let new = new.expect("a successor");
        new.stop(Signal::SIGTERM).expect_exit(0);
    }
}
