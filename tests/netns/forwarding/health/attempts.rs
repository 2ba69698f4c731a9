//! How destinations are tried.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{said, tried, tried_every, up, wait_until_up};
use crate::fixture::{
    BACKEND_PORT, Family, Namespace, Net, Nodefwd, TempFile, expect_parts, nodefwd, wait_until,
};

/// Of the destination, or of a router before it.
#[test]
fn icmp_errors_are_failures() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    net.backends[1].set_sysctl("net/ipv4/icmp_ratelimit", "0");
    net.backends[1].set_sysctl("net/ipv6/icmp/ratelimit", "0");
    net.backends[1].load(
        "table inet unreachable {\n chain input {\n type filter hook input priority 0\n meta nfproto ipv4 tcp dport 8080 reject with icmp type host-unreachable\n meta nfproto ipv6 tcp dport 8080 reject with icmpv6 type admin-prohibited\n }\n }",
    );
    // The kernel drops one that comes while connect(2) still sends, as over a veth: the SYN after a second counts.
    let forwarder = tried_every(4, &net.backends).start(&net.node);
    wait_until_up(&net.node, &net.backends[1], false);
    expect_parts(
        &forwarder.stderr(),
        [
            "the last one with: No route to host",
            "the last one with: Permission denied",
        ],
    );
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// The kernel of the destination has answered the SYN, and got a RST before the handshake was over.
#[test]
fn a_destination_that_is_tried_accepts_no_connection() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let forwarder = tried(&net.backends).start(&net.node);
    let backend = &net.backends[0];
    let name = "TcpExtEmbryonicRsts";
    let counted = || {
        let text = backend.succeed("nstat", &["-asz", name]);
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a counter");
        let count = line.split_whitespace().nth(1).expect("a number");
        count.parse::<u32>().expect("a number")
    };
    wait_until("attempts", counted, |count| *count >= 4);
    assert!(up(&net.node, backend).iter().all(|up| *up == Some(true)));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn what_cannot_be_tried_is_said() {
    let node = Namespace::forwarding("node");
    for (arguments, reason) in [
        (
            &["--health=5", "tcp/80=10.2.0.11"][..],
            "NODEFWD_HEALTH (--health) is set, but no forward",
        ),
        (
            &["--health=5", "udp/80=10.2.0.11,10.2.0.12"],
            "nothing is tried",
        ),
        (
            &["--health=5", "tcp/80-81=10.2.0.11,10.2.0.12"],
            "nothing is tried",
        ),
        (
            &["--health-reset", "tcp/80=10.2.0.11,10.2.0.12"],
            "NODEFWD_HEALTH (--health) is not set",
        ),
    ] {
        let forwarder = nodefwd(arguments).start(&node);
        expect_parts(&forwarder.stderr(), [reason]);
        assert!(!node.rules().contains("chain health"));
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// To make one and to close it is a fifth of the work.
#[test]
fn an_attempt_uses_the_socket_of_an_earlier_one() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let calls = TempFile::new("");
    let output = format!("--output={}", calls.path().display());
    let call = tried(&net.backends).traced(&["--trace=socket,connect", &output]);
    let forwarder = call.start(&net.node);
    let text = || std::fs::read_to_string(calls.path()).expect("calls");
    let attempts = || text().matches("sin_port=htons(8080)").count();
    wait_until("attempts", attempts, |count| *count >= 12);
    // One of each family for each backend.
    let made = text()
        .matches("SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK")
        .count();
    assert!((1..=4).contains(&made), "{}", text());
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// So many destinations that do not answer. Gives their addresses; the backend has a set of those that were tried.
fn silent(net: &Net, count: u8) -> Vec<String> {
    let backend = &net.backends[0];
    backend.load(
        "table inet silent {\n set tried {\n type ipv4_addr\n size 512\n flags dynamic\n }\n chain input {\n type filter hook prerouting priority 0\n ip daddr 10.9.9.0/24 add @tried { ip daddr } drop\n }\n }",
    );
    let via = backend.address(Family::V4);
    net.node.ip(&format!("route add 10.9.9.0/24 via {via}"));
    (1..=count).map(|host| format!("10.9.9.{host}")).collect()
}

const DOWN: &str = "is down: 3 connections in a row have failed";

/// All of them silent, and more than files may be open unless it asks for more.
#[test]
fn many_silent_destinations_are_tried_at_once() {
    let net = Net::new(1);
    let addresses = silent(&net, 60);
    let forward = format!("tcp/80={}", addresses.join(","));
    let call = nodefwd(["--health=2", &forward]).wrapped(&["prlimit", "--nofile=50:4096"]);
    let forwarder = call.start(&net.node);
    let down = || said(&forwarder, DOWN);
    wait_until("all fail", down, |down| *down == addresses.len());
    for part in ["cannot try", "at a time"] {
        assert_eq!(said(&forwarder, part), 0, "{}", forwarder.stderr());
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// More of them than files that it may ever have open: they take turns, and leave it enough for all else.
#[test]
fn with_few_open_files_silent_destinations_take_turns() {
    let net = Net::new(1);
    let addresses = silent(&net, 150);
    let forward = format!("tcp/80={}", addresses.join(","));
    let file = TempFile::new(format!("NODEFWD_HEALTH=1\nNODEFWD_FORWARDS={forward}\n"));
    let limited = |call: Nodefwd| {
        let call = call.env("NODEFWD_ENV_FILE", file.path());
        call.wrapped(&["prlimit", "--nofile=64:64"])
    };
    let forwarder = limited(nodefwd([""; 0])).start(&net.node);
    let stderr = forwarder.stderr();
    expect_parts(
        &stderr,
        [
            "warning: of 150 destinations, 32 are tried at a time, as this process may open 64 files",
            "LimitNOFILE=278",
        ],
    );
    // None fails before each has had its turn.
    forwarder.wait_for_line("warning: destination ");
    let tried = net.backends[0].succeed("nft", &["list", "set", "inet", "silent", "tried"]);
    assert_eq!(tried.matches("10.9.9.").count(), addresses.len(), "{tried}");
    // Those that wait keep their places across reloads.
    let down = || {
        let reload = nodefwd(["reload", "tcp-80"]).finish(&net.node);
        reload.expect_success();
        said(&forwarder, DOWN)
    };
    wait_until("all fail", down, |down| *down == addresses.len());
    let status = nodefwd(["status"]).finish(&net.node).expect_success();
    assert_eq!(status.matches("(down)").count(), addresses.len());
    let successor = limited(nodefwd(["--replace"])).start(&net.node);
    let stderr = forwarder.finish().expect_exit(0).stderr;
    for (part, times) in [("at a time", 1), ("cannot ", 0)] {
        assert_eq!(stderr.matches(part).count(), times, "{stderr}");
    }
    successor.stop(Signal::SIGTERM).expect_exit(0);
}

/// That says nothing of destinations.
#[test]
fn a_host_that_cannot_try_says_so_and_leaves_none_out() {
    let net = Net::new(2);
    let servers = net.serve(BACKEND_PORT);
    let forwarder = tried(&net.backends).start(&net.node);
    let reserve = |ports| {
        net.node
            .set_sysctl("net/ipv4/ip_local_reserved_ports", ports)
    };
    net.node
        .set_sysctl("net/ipv4/ip_local_port_range", "40000 40000");
    reserve("40000");
    let said_so = "warning: cannot try whether destinations answer";
    let line = forwarder.wait_for_line(said_so);
    expect_parts(&line, ["Cannot assign requested address"]);
    // Four rounds and more.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(said(&forwarder, said_so), 1);
    assert_eq!(said(&forwarder, "is down"), 0);
    // It tries on.
    reserve("1");
    drop(servers);
    wait_until_up(&net.node, &net.backends[1], false);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
