//! More events than the kernel keeps for a socket: some are lost, and the process learns only that
//! (ENOBUFS, netlink(7)).

use nix::sys::signal::Signal;

use super::netlink_sockets::{Socket, Subsystem, sockets, while_stopped};
use super::nft_with_input;
use crate::fixture::{
    BACKEND_PORT, CHANGED, CONTENDED, FORWARDED_PORT, Family, MORE_EVENTS, Namespace, Net,
    Protocol, expect_parts, expect_reply, forward_to, nodefwd, wait_until,
};

/// How many objects of nftables are added while the process is stopped.
pub const EVENTS: u16 = 5000;

/// Adds as many objects in another program's table, and deletes it.
fn overrun_nftables_events(node: &Namespace) {
    let chains: String = (1..=EVENTS)
        .map(|number| format!("chain c{number} {{}}\n"))
        .collect();
    node.load(&format!("table inet flood {{\n{chains}}}"));
    node.succeed("nft", &["delete", "table", "inet", "flood"]);
}

/// Without the owner flag it watches the events of nftables.
#[test]
fn rules_whose_removal_is_lost_are_installed_again() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let call = forward_to(Protocol::Tcp, &net.backends).args(&["--owner=false"]);
    let mut forwarder = call.start(&net.node);
    let before = net.node.rules();
    while_stopped(&mut forwarder, || {
        overrun_nftables_events(&net.node);
        net.node.succeed("nft", &["flush", "ruleset"]);
    });
    net.node.wait_for_rules(&before);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let reply = net.client.request(Protocol::Tcp, node_addr);
    expect_reply(reply, "backend-1", net.backends[0].gateway(Family::V4));
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert_eq!(net.node.ruleset(), "");
    let again = "installing table inet nodefwd-tcp-80 again, in case it was changed";
    expect_parts(&stderr, [format!("{MORE_EVENTS}{again}")]);
    // It does not know whether another process has changed them.
    assert!(!stderr.contains(CHANGED), "{stderr}");
}

/// What is switched off after so many events of a switch that does not matter.
#[test]
fn forwarding_that_is_switched_off_is_noticed_though_its_event_is_lost() {
    let net = Net::new(1);
    let mut forwarder = forward_to(Protocol::Tcp, &net.backends).start(&net.node);
    while_stopped(&mut forwarder, || {
        for number in 0..EVENTS {
            let value = if number % 2 == 0 { "0" } else { "1" };
            let key = "net/ipv6/conf/lo/forwarding";
            net.node.set_sysctl(key, value);
        }
        net.node.set_sysctl("net/ipv4/ip_forward", "0");
    });
    forwarder.wait_for_line("warning: not ready: IPv4 forwarding is off");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// The events of its own installation, of so many rules, would overrun its socket.
#[test]
fn its_own_changes_cause_no_events_for_it() {
    let node = Namespace::forwarding("node");
    let forwards = (1..=1000).map(|port| format!("tcp/{port}=10.2.0.11:8080"));
    let call = nodefwd(forwards).args(&["--owner=false", "--name=web"]);
    let forwarder = call.start(&node);
    let event_socket = || {
        let mut sockets = sockets(&forwarder).into_iter();
        sockets.find(|socket| socket.subsystem == Subsystem::Netfilter && socket.groups != 0)
    };
    let is_read = |socket: &Option<Socket>| socket.is_some_and(|socket| socket.queued == 0);
    let wait_until_read = || wait_until("an empty queue of events", event_socket, is_read);
    let socket = wait_until_read();
    assert!(socket.is_some_and(|socket| socket.lost == 0), "{socket:?}");
    let before = node.rules();
    node.succeed("nft", &["flush", "ruleset"]);
    node.wait_for_rules(&before);
    wait_until_read();
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    let count = |message| stderr.matches(message).count();
    let reinstalled = count("installed table inet nodefwd-web again");
    assert_eq!(reinstalled, 1, "{stderr}");
    assert_eq!(count(CHANGED), 1, "{stderr}");
    assert_eq!(count(MORE_EVENTS), 0, "{stderr}");
    assert_eq!(node.ruleset(), "");
}

/// How often it is started while another program changes the ruleset without a pause.
pub const STARTS: u16 = 10;

/// What it reads of a large sibling, and its own transaction, must fit between two changes. It may fail,
/// but must say so, and leave nothing.
#[test]
fn while_the_ruleset_changes_without_a_pause_it_starts_or_says_why_not() {
    let node = Namespace::forwarding("node");
    let sibling = [
        "--name=large",
        "udp/1-2000=10.2.0.1:2-2001",
        "udp/3000=10.2.0.1",
    ];
    let _sibling = nodefwd(sibling).start(&node);
    let before = node.ruleset();
    let changes = "add table inet other\ndelete table inet other\n".repeat(100_000);
    let other = nft_with_input(&node, &changes);
    for start in 1..=STARTS {
        let forwarder = nodefwd([format!("tcp/{start}=10.2.0.1")]).spawn(&node);
        if forwarder.has_said("ready") {
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        } else {
            let stderr = forwarder.finish().expect_exit(1).stderr;
            expect_parts(&stderr, [CONTENDED]);
        }
    }
    other.stop(Signal::SIGTERM);
    // It may have ended between its two changes.
    node.output("nft", &["delete", "table", "inet", "other"]);
    assert_eq!(node.ruleset(), before);
}
