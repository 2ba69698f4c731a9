//! What an instance warns of once it is ready.

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use super::{BACKEND_PORT, FORWARDED_PORT, Report, all_forwards, net, start};
use crate::fixture::{Family, Net, Process, Server, expect_parts, nodefwd};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// What an instance logs that is stopped when it has looked at everything: a signal before would cut that
/// short.
pub fn log_of_start(net: &Net, arguments: &str) -> String {
    let instance = start(net, &format!("{arguments} --verbose"));
    instance.wait_for_line("debug: checked routes, other tables and sockets");
    let stderr = instance.stop(Signal::SIGTERM).expect_exit(0).stderr;
    let lines = stderr.lines().filter(|line| !line.starts_with("debug: "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn on_a_host_without_problems_an_instance_warns_of_nothing() {
    let net = net(1);
    let stderr = log_of_start(&net, &all_forwards(&net));
    let starts: Vec<&str> = stderr
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(starts, ["ready", "stopped"], "{stderr}");
}

#[test]
fn problems_that_are_certain_are_warnings_after_ready() {
    let net = net(1);
    net.node.load(
        "table inet theirs {
            chain early { type nat hook prerouting priority -150; tcp dport 80 redirect to :1; };
            chain drops { type filter hook forward priority 0; policy drop; };
         }",
    );
    net.node.ip("route add blackhole 10.2.9.9");
    let _server = Server::start(
        &net.node,
        "node",
        &[SocketAddr::new(
            net.node_addr(Family::V4, FORWARDED_PORT).ip(),
            FORWARDED_PORT,
        )],
    );
    let forwards = format!("{} tcp/90=10.2.9.9:{BACKEND_PORT}", all_forwards(&net));
    let stderr = log_of_start(&net, &forwards);
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].starts_with("ready: "), "{stderr}");
    assert!(lines[lines.len() - 1].starts_with("stopped: "), "{stderr}");
    let warnings = &lines[1..lines.len() - 1];
    for word in [
        "none to 10.2.9.9",
        "chain early",
        "chain drops",
        "tcp 10.1.1.1:80",
        "udp 10.1.1.1:80",
    ] {
        let about = |line: &&&str| line.starts_with("warning: ") && line.contains(word);
        assert_eq!(warnings.iter().filter(about).count(), 1, "{word}: {stderr}");
    }
    assert_eq!(warnings.len(), 5, "{stderr}");
}

#[test]
fn problems_that_are_only_possible_are_left_to_check() {
    let net = net(1);
    net.node.load(
        "table inet theirs {
            chain beside { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :1; };
            chain drops {
                type filter hook forward priority 0; policy accept;
                ip saddr 10.99.0.0/16 drop
            };
         }",
    );
    let stderr = log_of_start(&net, &all_forwards(&net));
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
}

/// So that a start is fast beside a firewall of many thousand rules too.
#[test]
fn a_start_reads_a_limited_number_of_rules_and_check_reads_all() {
    let net = net(1);
    let rules: String = (0..20_000)
        .map(|number| {
            format!(
                "tcp dport 9 ip daddr 10.9.{}.{} drop\n",
                number / 250,
                number % 250
            )
        })
        .collect();
    net.node.load(&format!(
        "table ip theirs {{ chain long {{ type filter hook forward priority 0; policy drop;\n{rules} }}; }}"
    ));
    let stderr = log_of_start(&net, &all_forwards(&net));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    assert_eq!(
        lines[1],
        "not looked at: firewall; nodefwd check looks at all"
    );
    let report = Report::of(&net.node, &all_forwards(&net));
    report.only("failure", "firewall");
}

/// A host on which the look around takes long, and forwards for which it takes longer: rules of which the outcome
/// depends on the port, for each port of a range to each destination, which one by one would be 200 million.
fn long_look_around() -> (Net, String) {
    let net = net(1);
    let chains: String = (0..CHAINS)
        .map(|number| {
            format!(
                "chain c{number} {{ type filter hook forward priority {number}; tcp dport 9 drop; }}\n"
            )
        })
        .collect();
    net.node.load(&format!("table inet theirs {{ {chains} }}"));
    let destinations: Vec<String> = (0..DESTINATIONS)
        .map(|number| format!("10.2.{}.{}", number / 250, number % 250 + 2))
        .collect();
    let forwards = format!("tcp/1001-2024={}", destinations.join(","));
    (net, forwards)
}

/// How long each read from the kernel takes here, in microseconds, so that those of all chains take longer than the
/// limit on any machine, and how many there may be from a signal on: until the limit it would be 50.
const DELAY: usize = 20_000;
const READS: usize = 25;

/// One forward beside the chains, whose reads are that slow, and are recorded in this file.
fn slow_start(net: &Net, file: &Path) -> Process {
    let output = format!("--output={}", file.display());
    let slow = format!("--inject=recvmsg:delay_enter={DELAY}");
    let call = nodefwd(["tcp/80=10.2.1.2:8080", "--verbose"]);
    let call = call.traced(&[&output, "--trace=recvmsg", &slow]);
    call.start(&net.node)
}

/// At once, and not at its limit, a second later.
#[test]
fn a_signal_ends_the_look_around_after_the_start() {
    let (net, _) = long_look_around();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("look-around");
    let instance = slow_start(&net, &file);
    let stderr = instance.stop(Signal::SIGTERM).expect_exit(0).stderr;
    expect_parts(&stderr, ["stopped: removed"]);
    let trace = fs::read_to_string(file).expect("a trace");
    let (_, after) = trace.split_once("--- SIGTERM").expect("the signal");
    let reads = after.matches("recvmsg(").count();
    assert!(reads <= READS, "{reads} reads:\n{after}");
}

#[test]
fn its_limit_ends_the_look_around_after_the_start() {
    let (net, _) = long_look_around();
    let instance = slow_start(&net, Path::new("/dev/null"));
    instance.wait_for_line("not looked at: firewall; nodefwd check looks at all");
    instance.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn a_start_beside_many_chains_with_many_destinations_and_ports_says_what_it_leaves_out() {
    let (net, forwards) = long_look_around();
    let stderr = log_of_start(&net, &forwards);
    let unseen = "not looked at: firewall; nodefwd check looks at all";
    assert_eq!(stderr.lines().nth(1), Some(unseen), "{stderr}");
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
}

/// How many sockets another process has on the forwarded port.
pub const SOCKETS: usize = 500;

/// How many chains, destinations and ports there are to combine.
pub const CHAINS: usize = 100;
pub const DESTINATIONS: usize = 1000;

#[test]
fn many_sockets_on_a_forwarded_port_are_one_line_that_counts() {
    let net = net(1);
    let address = net.node_addr(Family::V4, FORWARDED_PORT);
    let socket = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        setsockopt(&socket, sockopt::ReusePort, &true).expect("a shared port");
        socket.bind(&address.into()).expect("bound");
        socket.listen(1).expect("listening");
        socket
    };
    let _sockets: Vec<Socket> = net.node.run(|| (0..SOCKETS).map(socket).collect());
    let stderr = log_of_start(&net, "tcp/80=10.2.1.2:8080");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    let listens = "listens on tcp 10.1.1.1:80 (500 sockets), but what clients send there";
    expect_parts(lines[1], ["warning: sockets: process ", listens]);
}

/// On as many addresses, of which some have a line.
#[test]
fn sockets_on_many_addresses_are_counted_in_the_last_line() {
    const SOCKETS: u8 = 100;
    let net = net(1);
    net.node.ip("route add local 10.77.0.0/24 dev lo");
    let socket = |number| {
        let address = SocketAddr::from(([10, 77, 0, number], FORWARDED_PORT));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&address.into()).expect("bound");
        socket.listen(1).expect("listening");
        socket
    };
    let _sockets: Vec<Socket> = net.node.run(|| (1..=SOCKETS).map(socket).collect());
    let stderr = log_of_start(&net, "tcp/80=10.2.1.2:8080");
    let warnings: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("warning: "))
        .collect();
    assert_eq!(warnings.len(), 9, "{stderr}");
    let report = Report::of(&net.node, "--name=other tcp/80=10.2.1.2:8080");
    let sockets = report.0.iter().filter(|line| line.subject == "sockets");
    let texts: Vec<&str> = sockets.map(|line| line.text.as_str()).collect();
    assert_eq!(texts.len(), 17, "{texts:#?}");
    assert!(
        texts[16].starts_with("84 more on other addresses"),
        "{texts:#?}"
    );
}

#[test]
fn more_forwards_than_a_start_looks_at_are_counted() {
    let net = net(1);
    let forwards: Vec<String> = (1001..1301)
        .map(|port| format!("tcp/{port}=10.2.1.2"))
        .collect();
    let stderr = log_of_start(&net, &forwards.join(" "));
    let unseen = "not looked at: 44 of 300 forwards; nodefwd check looks at all";
    assert_eq!(stderr.lines().nth(1), Some(unseen), "{stderr}");
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
}
