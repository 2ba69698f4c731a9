//! What an instance warns of once it is ready.

use nix::sys::signal::Signal;

use super::{BACKEND_PORT, FORWARDED_PORT, Report, all_forwards, net, start};
use crate::fixture::{Family, Net, Server};
use std::net::SocketAddr;

/// What an instance logs that is stopped when it has looked at everything: a signal before would cut that
/// short.
fn log_of_start(net: &Net, arguments: &str) -> String {
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
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    let report = Report::of(&net.node, &all_forwards(&net));
    report.only("failure", "firewall");
}
