//! What an instance says once it is ready, of what it found around it.

use nix::sys::signal::Signal;

use super::{BACK, FRONT, everything, net, start};
use crate::fixture::{Family, Server};
use std::net::SocketAddr;

#[test]
fn where_all_is_well_an_instance_says_nothing() {
    let net = net(1);
    let instance = start(&net, &everything(&net));
    let stderr = instance.stop(Signal::SIGTERM).expect_exit(0).stderr;
    let starts: Vec<&str> = stderr
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(starts, ["ready", "stopped"], "{stderr}");
}

#[test]
fn what_is_surely_wrong_is_a_warning_after_ready() {
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
        &[SocketAddr::new(net.front(Family::V4, FRONT).ip(), FRONT)],
    );
    let instance = start(
        &net,
        &format!("{} tcp/90=10.2.9.9:{BACK}", everything(&net)),
    );
    let stderr = instance.stop(Signal::SIGTERM).expect_exit(0).stderr;
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

/// Only `check` speaks of what may be.
#[test]
fn what_may_be_wrong_is_left_to_check() {
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
    let instance = start(&net, &everything(&net));
    let stderr = instance.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
}

/// A firewall of many thousand rules is not read through at every start.
#[test]
fn a_start_reads_only_so_many_rules() {
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
    let instance = start(&net, &everything(&net));
    let stderr = instance.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    let report = super::Report::of(&net.node, &everything(&net));
    report.only("failure", "firewall");
}
