//! Tables of other programs that pretend to be an instance's, or have names that are no text.

use nix::sys::signal::Signal;
use std::process::Command;

use super::firewall::is_forwarded;
use super::{BACKEND_PORT, Line, Report, net, shell, start};
use crate::fixture::{
    Family, NEW_CHAIN, NEW_TABLE, Namespace, Process, Protocol, attribute, expect_parts,
    netfilter_socket, send_transaction, wait_until,
};

/// A table of an instance's name, without an instance's sets.
#[test]
fn a_table_that_only_has_an_instances_name_is_looked_at() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let forward = "tcp/80=10.2.1.2:8080";
    let load = |priority: &str| {
        net.node.load(&format!(
            "table inet nodefwd-evil {{
                chain c {{ type nat hook prerouting priority {priority}; tcp dport 80 redirect to :9; }};
             }}"
        ));
    };
    load("dstnat - 1");
    let report = Report::of(&net.node, forward);
    let failure = report.only("failure", "other NAT");
    expect_parts(&failure.text, ["table inet nodefwd-evil"]);
    shell(&net.node, "nft delete table inet nodefwd-evil");

    load("dstnat");
    Report::of(&net.node, forward).only("warning", "other NAT");
    let _instance = start(&net, forward);
    assert!(is_forwarded(&net, Protocol::Tcp, Family::V4));
    shell(&net.node, "nft delete table inet nodefwd-evil");
    Report::of(&net.node, "").expect_ok();
    // Made after the instance's, it comes first.
    load("dstnat");
    assert!(!is_forwarded(&net, Protocol::Tcp, Family::V4));
    let report = Report::of(&net.node, "");
    let failure = report.only("failure", "other NAT");
    expect_parts(&failure.text, ["as its table is newer"]);
    shell(&net.node, failure.command());
    assert!(is_forwarded(&net, Protocol::Tcp, Family::V4));
}

/// A table with a chain of type nat that drops everything, both of this name. nft(8) takes no such name.
pub fn add_dropping_chain(node: &Namespace, name: &[u8]) {
    let name = [name, &[0]].concat();
    let hook = [
        attribute(1, &0u32.to_be_bytes()),
        attribute(2, &(-150i32).to_be_bytes()),
    ];
    let table = [attribute(1, &name)];
    let chain = [
        attribute(1, &name),
        attribute(3, &name),
        attribute(4 | 0x8000, &hook.concat()),
        attribute(5, &0u32.to_be_bytes()),
        attribute(7, b"nat\0"),
    ];
    let messages = [(NEW_TABLE, &table[..]), (NEW_CHAIN, &chain[..])];
    node.run(|| send_transaction(&netfilter_socket(), &messages));
}

#[test]
fn names_that_are_not_utf8_are_looked_at() {
    for name in [
        &b"\xff\xfeevil"[..],
        b"nodefwd-\xff",
        "nodefwd-\u{10ff80}".as_bytes(),
    ] {
        let net = net(1);
        let _server = net.backends[0].serve(BACKEND_PORT);
        let forward = "tcp/80=10.2.1.2:8080";
        add_dropping_chain(&net.node, name);
        let report = || Report::of(&net.node, forward);
        let failed = |report: &Report| !report.of_level("failure").is_empty();
        let report = wait_until("a failure", report, failed);
        let failure = report.only("failure", "other NAT");
        expect_parts(&failure.text, ["the policy of chain "]);
        assert!(failure.text.is_ascii(), "{failure:?}");
        let _instance = start(&net, forward);
        assert!(!is_forwarded(&net, Protocol::Tcp, Family::V4));
    }
}

/// How many tables like an instance's there are, and how many of them check looks at unless it is given a name.
pub const INSTANCES: usize = 70;
const LOOKED_AT: usize = 64;

/// Those first that have a process.
#[test]
fn of_more_instances_than_check_looks_at_the_others_are_counted() {
    let net = net(1);
    let table = |number| {
        format!(
            "table inet nodefwd-like-{number} {{
                chain prerouting {{ type nat hook prerouting priority dstnat; }};
                map forwards4 {{
                    type inet_service . inet_proto : ipv4_addr . inet_service; counter;
                    elements = {{ {number} . tcp : 10.9.9.9 . 80 }}
                }};
             }}\n"
        )
    };
    let numbers = 101..101 + INSTANCES;
    net.node.load(&numbers.map(table).collect::<String>());
    let _web = start(&net, "--name=web tcp/80=10.2.1.2:8080");
    let report = Report::of(&net.node, "");
    let instances = |level| {
        let lines = report.of_level(level).into_iter();
        lines
            .filter(|line| line.subject == "instances")
            .collect::<Vec<_>>()
    };
    assert_eq!(instances("ok").len(), 1, "{report:#?}");
    assert_eq!(instances("failure").len(), LOOKED_AT - 1, "{report:#?}");
    let [others] = instances("warning")[..] else {
        panic!("{report:#?}");
    };
    let more = INSTANCES + 1 - LOOKED_AT;
    let first = 101 + LOOKED_AT - 1;
    let text = format!("not looked at: {more} more, from table inet nodefwd-like-{first} on");
    assert!(others.text.starts_with(&text), "{others:?}");
    // Each can be named.
    let last = format!("like-{}", 100 + INSTANCES);
    let report = Report::of(&net.node, &last);
    let line = report.line("failure", "instances");
    expect_parts(&line.text, [&last, "was left by an instance that died"]);
}

/// How often check reads the rules, and instances start, while two chains take turns in leading to each other.
pub const READINGS: usize = 40;

/// Each state is sound, but rules that were read before a change and after it lead round in a circle.
#[test]
fn chains_that_change_while_they_are_read_lead_nowhere_for_ever() {
    let net = net(1);
    net.node.load(
        "table inet theirs {
            chain a { }
            chain b { }
            chain drops { type filter hook forward priority 0; policy drop; jump a; jump b; }
         }",
    );
    let flush = "flush chain inet theirs a; flush chain inet theirs b";
    let turns =
        format!("{flush}; add rule inet theirs a jump b\n{flush}; add rule inet theirs b jump a\n");
    let mut nft = Command::new("nft");
    nft.arg("--interactive");
    let mut nft = net.node.run(|| Process::spawn(nft, &turns.repeat(100_000)));
    let handle = || {
        net.node
            .succeed("nft", &["-a", "list", "table", "inet", "theirs"])
    };
    let first = handle();
    wait_until("a change", handle, |now| *now != first);
    for number in 0..READINGS {
        if number % 4 == 0 {
            let instance = start(&net, "tcp/80=10.2.1.2:8080");
            instance.stop(Signal::SIGTERM).expect_exit(0);
        } else {
            let report = Report::of(&net.node, "tcp/80=10.2.1.2:8080");
            let firewall = |line: &Line| line.subject == "firewall" && line.level != "ok";
            assert!(report.0.iter().any(firewall), "{report:#?}");
        }
    }
    assert!(
        nft.is_running(),
        "the chains have not changed until the end"
    );
}
