//! Another process of the network namespace, with all privileges, sends messages that only the kernel
//! should send.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

use super::netlink_sockets::{Socket, Subsystem, sockets};
use crate::fixture::{
    Family, ForwardedConnection, Namespace, Process, Protocol, TempFile, wait_until,
};

/// How many datagrams are sent to each socket of a process: far more than its queue holds.
pub const DATAGRAMS: usize = 10_000;

/// linux/netfilter/nfnetlink.h: NFNLGRP_CONNTRACK_DESTROY, as a bit mask.
const DESTROY: u32 = 1 << 2;

fn raw_socket(subsystem: Subsystem) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = match subsystem {
        Subsystem::Route => SockProtocol::NetlinkRoute,
        Subsystem::Netfilter => SockProtocol::NetlinkNetFilter,
    };
    socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).expect("a netlink socket")
}

/// A netlink message of this type and sequence number that looks as if it came from the kernel.
fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = 16 + payload.len() as u32;
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &[0; 2],
        &sequence.to_ne_bytes(),
        &[0; 4],
        payload,
    ]
    .concat()
}

/// Acknowledgements, errors and ends of dumps that the kernel has not sent.
fn spoofed_messages() -> Vec<Vec<u8>> {
    // linux/netlink.h: NLMSG_ERROR and NLMSG_DONE; 0 is an acknowledgement, 1 is EPERM.
    let [done, refused] = [0i32, -1].map(i32::to_ne_bytes);
    let of_sequence = |sequence| {
        [
            message(2, sequence, &done),
            message(2, sequence, &refused),
            message(3, sequence, &done),
        ]
    };
    (0..4).flat_map(of_sequence).collect()
}

fn send_to_all(process: &Process) {
    let messages = spoofed_messages();
    for socket in sockets(process) {
        let spoofer = raw_socket(socket.subsystem);
        let to = NetlinkAddr::new(socket.port, 0);
        for message in messages.iter().cycle().take(DATAGRAMS) {
            // The kernel may reject it, and the queue may be full.
            let _ = sendto(spoofer.as_raw_fd(), message, &to, MsgFlags::MSG_DONTWAIT);
        }
    }
}

#[test]
fn spoofed_replies_are_neither_believed_nor_in_the_way() {
    for owner in ["--owner=true", "--owner=false"] {
        let ForwardedConnection {
            net,
            mut forwarder,
            flow,
            server: _server,
            ..
        } = ForwardedConnection::start(Family::V4, |call| call.args(&["--drain=3600", owner]));
        net.node.run(|| send_to_all(&forwarder));
        forwarder.signal(Signal::SIGTERM);
        forwarder.wait_until_draining(1);
        net.node.run(|| send_to_all(&forwarder));
        drop(flow);
        let outcome = forwarder.finish().expect_exit(0);
        for word in ["warning", "error"] {
            assert!(!outcome.stderr.contains(word), "{outcome:?}");
        }
        assert_eq!(net.node.ruleset(), "");
    }
}

/// The event that a conntrack entry has been deleted (linux/netfilter/nfnetlink_conntrack.h:
/// IPCTNL_MSG_CT_DELETE, with CTA_ID).
fn deletion_event(id: u32) -> Vec<u8> {
    let attribute = [
        &8u16.to_ne_bytes()[..],
        &12u16.to_ne_bytes(),
        &id.to_be_bytes(),
    ];
    let payload = [&[2, 0, 0, 0], &attribute.concat()[..]].concat();
    message(1 << 8 | 2, 0, &payload)
}

#[test]
fn spoofed_events_that_connections_have_ended_are_not_believed() {
    let forwarded = ForwardedConnection::start(Family::V4, |call| call.args(&["--drain=3600"]));
    let mut other = forwarded.another_flow();
    let ForwardedConnection {
        net,
        mut forwarder,
        mut flow,
        server: _server,
        ..
    } = forwarded;
    // In one datagram: a process that believed it would have drained at once.
    let events = [&flow, &other].map(|flow| {
        let port = flow.source().port();
        let id = net.node.conntrack_id(Protocol::Tcp, Family::V4, port);
        deletion_event(id)
    });
    assert_ne!(events[0], events[1], "two flows have two ids");

    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(2);
    net.node.run(|| {
        // To the multicast group. The kernel gets it too, and ignores what is not a request.
        let to = NetlinkAddr::new(0, DESTROY);
        let sent = sendto(
            raw_socket(Subsystem::Netfilter).as_raw_fd(),
            &events.concat(),
            &to,
            MsgFlags::empty(),
        );
        sent.expect("to be sent");
    });
    let are_read = |sockets: &Vec<Socket>| sockets.iter().all(|socket| socket.queued == 0);
    wait_until("empty queues", || sockets(&forwarder), are_read);
    flow.expect_unchanged();
    other.expect_unchanged();
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining is cut short by a signal: 2 connections still run");
    forwarder.finish().expect_exit(0);
}

/// linux/rtnetlink.h: RTNLGRP_IPV4_NETCONF as a bit mask, and RTM_NEWNETCONF.
const IPV4_NETCONF: u32 = 1 << 23;
const NEWNETCONF: u16 = 80;

/// Of all interfaces (linux/netconf.h: NETCONFA_IFINDEX, NETCONFA_FORWARDING).
const FORWARDING_OFF: [u8; 20] = [
    2, 0, 0, 0, 8, 0, 1, 0, 255, 255, 255, 255, 8, 0, 2, 0, 0, 0, 0, 0,
];

fn send_forwarding_off(node: &Namespace, _: &Process) {
    node.run(|| {
        let to = NetlinkAddr::new(0, IPV4_NETCONF);
        let spoofer = raw_socket(Subsystem::Route);
        let event = message(NEWNETCONF, 0, &FORWARDING_OFF);
        let sent = sendto(spoofer.as_raw_fd(), &event, &to, MsgFlags::empty());
        sent.expect("to be sent");
    });
}

/// How often an instance asks the kernel what is forwarded, where this happens while it runs.
fn questions(event: impl Fn(&Namespace, &Process)) -> usize {
    let file = TempFile::new("");
    let output = format!("--output={}", file.path().display());
    let strace = ["--trace=sendto", &output];
    let ForwardedConnection { net, forwarder, .. } =
        ForwardedConnection::start(Family::V4, |call| {
            call.env("RUST_LOG", "debug").traced(&strace)
        });
    forwarder.wait_for_line("debug: checked routes");
    event(&net.node, &forwarder);
    let are_read = |sockets: &Vec<Socket>| sockets.iter().all(|socket| socket.queued == 0);
    wait_until("empty queues", || sockets(&forwarder), are_read);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    let trace = fs::read_to_string(file.path()).expect("a trace");
    let asks = |line: &&str| line.contains("RTM_GETNETCONF");
    trace.lines().filter(asks).count()
}

/// The kernel alone says what is forwarded, and other processes cannot even have it asked.
#[test]
fn spoofed_events_that_forwarding_is_off_are_not_believed() {
    let without = questions(|_, _| {});
    assert_eq!(questions(send_forwarding_off), without);
    let switched = |node: &Namespace, forwarder: &Process| {
        node.set_sysctl("net/ipv4/ip_forward", "0");
        forwarder.wait_for_line("warning: not ready: ");
    };
    assert!(questions(switched) > without);
}
