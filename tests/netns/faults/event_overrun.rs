//! More news than the kernel keeps for a process: some of it is lost, and the process is told no more
//! than that.

use std::net::UdpSocket;
use std::process::Command;

use nix::sys::signal::Signal;

use super::netlink_sockets::{sockets, wait_until, while_stopped};
use crate::fixture::{BACK, Busy, FRONT, expect_answer, forward_to};
use crate::fixture::{Family, Namespace, Net, Process, Protocol, nodefwd};

/// How many connections end, or objects of nftables are made, while nobody reads of them.
pub const NEWS: u16 = 5000;

/// Makes as many flows on the host itself, and has the kernel forget them.
fn flood_of_flows(node: &Namespace) {
    node.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for port in 1..=NEWS {
            // Nobody listens, and the kernel may say so.
            let _ = socket.send_to(b"?", ("127.0.0.1", port));
        }
    });
    let deletion = ["-D", "-p", "udp", "--orig-dst", "127.0.0.1"];
    let deleted = node.output("conntrack", &deletion).expect_exit(0).stderr;
    let count = deleted
        .split_whitespace()
        .find_map(|word| word.parse().ok());
    assert!(count.is_some_and(|count: u16| count >= NEWS), "{deleted}");
}

#[test]
fn a_connection_that_ends_unheard_of_does_not_keep_it_draining() {
    let Busy {
        net,
        mut forwarder,
        flow,
        server: _server,
    } = Busy::start(Family::V4, |call| call.args(&["--drain=3600"]));
    let front = net.front(Family::V4, FRONT);
    let mut other = net
        .client
        .connect(Protocol::Tcp, front)
        .expect("a connection");
    let answer = other.ask().expect("an answer");
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining: 2 connections");
    while_stopped(&mut forwarder, || {
        flood_of_flows(&net.node);
        drop(flow);
        let list = || net.node.succeed("conntrack", &["-L", "-p", "tcp"]);
        wait_until(|| list().contains("TIME_WAIT"));
    });
    // The other one is alive, and known to be.
    assert_eq!(other.ask().expect("an answer"), answer);
    drop(other);
    forwarder.wait_for_line("drained");
    forwarder.finish().expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

/// Makes as many objects in a table of somebody else's, and removes it.
fn flood_of_changes(node: &Namespace) {
    let chains: String = (1..=NEWS)
        .map(|number| format!("chain c{number} {{}}\n"))
        .collect();
    node.load(&format!("table inet flood {{\n{chains}}}"));
    node.succeed("nft", &["delete", "table", "inet", "flood"]);
}

/// Without an owner, rules are watched by their process.
#[test]
fn rules_that_are_removed_unheard_of_come_back() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let call = forward_to(Protocol::Tcp, &net.backends).args(&["--owner=false"]);
    let mut forwarder = call.start(&net.node);
    let before = net.node.ruleset();
    while_stopped(&mut forwarder, || {
        flood_of_changes(&net.node);
        net.node.succeed("nft", &["flush", "ruleset"]);
    });
    wait_until(|| net.node.ruleset() == before);
    let answer = net
        .client
        .request(Protocol::Tcp, net.front(Family::V4, FRONT));
    expect_answer(answer, "backend-1", net.backends[0].gateway(Family::V4));
    let outcome = forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
    // It was told of nobody.
    let said = "warning: the kernel had more news of nftables than it could keep: installing table inet nodefwd-tcp-80 again, in case it was changed";
    assert!(outcome.stderr.contains(said), "{outcome:?}");
    assert!(!outcome.stderr.contains("somebody else"), "{outcome:?}");
}

/// So many that the news of their installation would be more than the kernel keeps for a process.
#[test]
fn its_own_rules_are_no_news_to_it() {
    let node = Namespace::forwarding("node");
    let forwards = (1..=1000).map(|port| format!("tcp/{port}=10.2.0.11:8080"));
    let call = nodefwd(forwards).args(&["--owner=false", "--name=web"]);
    let forwarder = call.start(&node);
    let listening = || {
        let mut sockets = sockets(&forwarder).into_iter();
        sockets.find(|socket| socket.groups != 0)
    };
    let has_read_all = || wait_until(|| listening().is_some_and(|socket| socket.queued == 0));
    has_read_all();
    assert!(listening().is_some_and(|socket| socket.lost == 0));
    let before = node.ruleset();
    node.succeed("nft", &["flush", "ruleset"]);
    wait_until(|| node.ruleset() == before);
    has_read_all();
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    let count = |word| stderr.matches(word).count();
    assert_eq!(
        count("installed table inet nodefwd-web again"),
        1,
        "{stderr}"
    );
    assert_eq!(count("had more news"), 0, "{stderr}");
    assert_eq!(node.ruleset(), "");
}

/// How often it is started while others change the ruleset without a pause.
pub const STARTS: u16 = 50;

/// Its own transaction, and what it reads of a large sibling, must fit between two changes. It may
/// give up, but must say so, and leave nothing.
#[test]
fn amid_changes_without_end_it_starts_or_says_why_not() {
    let node = Namespace::forwarding("node");
    let sibling = [
        "--name=large",
        "udp/1-2000=10.2.0.1:2-2001",
        "udp/3000=10.2.0.1",
    ];
    let _sibling = nodefwd(sibling).start(&node);
    let before = node.ruleset();
    let changes = "add table inet other\ndelete table inet other\n".repeat(100_000);
    let mut others = Command::new("nft");
    others.arg("--interactive");
    let mut others = node.run(|| Process::spawn(others, &changes));
    for start in 1..=STARTS {
        let mut forwarder = nodefwd([format!("tcp/{start}=10.2.0.1")]).spawn(&node);
        if forwarder.has_said("ready") {
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
            continue;
        }
        forwarder.wait();
        let outcome = forwarder.finish().expect_exit(1);
        let said = outcome.stderr.contains("others keep changing the ruleset");
        assert!(said, "{outcome:?}");
    }
    others.signal(Signal::SIGTERM);
    others.wait();
    let theirs = node.output("nft", &["delete", "table", "inet", "other"]);
    drop(theirs);
    assert_eq!(node.ruleset(), before);
}
