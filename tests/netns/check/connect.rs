//! `check --connect`: destinations that accept, refuse, are silent or are not there.

use std::net::SocketAddr;
use std::time::Instant;

use super::{BACKEND_PORT, Line, Report, net};
use crate::fixture::{EVENT_TIMEOUT, Server, expect_parts};

/// The lines about it.
fn lines(report: &Report) -> Vec<&Line> {
    report
        .0
        .iter()
        .filter(|line| line.subject == "connect")
        .collect()
}

#[test]
fn destinations_are_tried_and_each_outcome_has_words() {
    let net = net(2);
    let [backend, silent] = net.two_backends();
    let _server = backend.serve(BACKEND_PORT);
    silent.load("table inet fw { chain input { type filter hook input priority 0; tcp dport 8080 drop; }; }");
    let call = |arguments: &str| Report::of(&net.node, &format!("--connect {arguments}"));

    let report =
        call("tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080 tcp/8080-8090=10.2.1.2 udp/80=10.2.1.2:9");
    report.expect_ok();
    expect_parts(
        &lines(&report)[0].text,
        ["accept connections of this host: all 2"],
    );
    // Without the option nothing is tried.
    assert_eq!(
        lines(&Report::of(&net.node, "tcp/80=10.2.1.2:9")),
        Vec::<&Line>::new()
    );

    let report = call("tcp/80=10.2.1.2:9,[fd00:2:1::2]:9 tcp/81=10.2.1.2:8080");
    let refused = report.only("failure", "connect");
    expect_parts(&refused.text, ["10.2.1.2:9, [fd00:2:1::2]:9: refused"]);

    // Nobody has these addresses; another host drops what comes.
    let report = call(
        "tcp/80=10.2.1.77,[fd00:2:1::77]:80 tcp/81=10.2.2.2:8080,[fd00:2:2::2]:8080 tcp/82=10.2.1.2:8080",
    );
    let found: Vec<&str> = lines(&report).iter().map(|line| &*line.text).collect();
    assert_eq!(found.len(), 2, "{report:#?}");
    assert_eq!(report.of_level("failure").len(), 2, "{report:#?}");
    expect_parts(
        found[0],
        ["10.2.2.2:8080, [fd00:2:2::2]:8080: timed out, as no answer came within 5 s"],
    );
    expect_parts(
        found[1],
        ["10.2.1.77:80, [fd00:2:1::77]:80: unreachable (No route to host)"],
    );

    let report = call("udp/80=10.2.1.2:9");
    expect_parts(
        &report.only("warning", "connect").text,
        ["not looked at: only TCP"],
    );
}

/// Ten at a time, 5 seconds each: one by one it would take four minutes, and without a limit in all, 25 seconds.
#[test]
fn many_silent_destinations_take_a_limited_time() {
    let net = net(1);
    net.backends[0].load("table inet fw { chain input { type filter hook input priority 0; tcp dport 1000-2000 drop; }; }");
    let forwards: Vec<String> = (1001..1100)
        .map(|port| format!("tcp/{port}=10.2.1.2"))
        .collect();
    let began = Instant::now();
    let report = Report::of(&net.node, &format!("--connect {}", forwards.join(" ")));
    assert!(began.elapsed() < EVENT_TIMEOUT, "{:?}", began.elapsed());
    let found = lines(&report);
    assert_eq!(found.len(), 2, "{report:#?}");
    expect_parts(&found[0].text, ["10.2.1.2:1001, ", " more: timed out"]);
    // As many as there was time for on this machine.
    assert_eq!(found[1].level, "warning");
    expect_parts(
        &found[1].text,
        ["not looked at: ", " of 99 destinations, as 30 s are over"],
    );
    // Ten at least, as they begin together; one by one it would be seven at most.
    let untried = found[1].text.split(' ').nth(3).expect("a number");
    assert!(untried.parse::<u32>().expect("a number") <= 89, "{untried}");
}

/// A running instance's destinations, also on this host itself.
#[test]
fn the_destinations_of_a_running_instance_are_tried() {
    let net = net(1);
    let own = SocketAddr::from(([10, 1, 1, 1], BACKEND_PORT));
    let _server = Server::start(&net.node, "node", &[own]);
    let _instance = super::start(&net, "tcp/80=10.1.1.1:8080");
    Report::of(&net.node, "--connect").expect_ok();
}
