//! Another process of the network namespace, with all its rights, sends what only the kernel should.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

use super::netlink_sockets::{sockets, wait_until};
use crate::fixture::{Busy, FRONT};
use crate::fixture::{Connection, Family, Namespace, Process, Protocol};

/// How many datagrams each socket of a process is sent: far more than its queue holds.
pub const DATAGRAMS: usize = 10_000;

/// linux/netfilter/nfnetlink.h: NFNLGRP_CONNTRACK_DESTROY, as a bit mask.
const DESTROY: u32 = 1 << 2;

fn stranger() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkNetFilter;
    socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).expect("a netlink socket")
}

/// A netlink message of this kind and number, from the kernel by its looks.
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

/// Acknowledgements, refusals and ends of lists that nobody has given.
fn forgeries() -> Vec<Vec<u8>> {
    // linux/netlink.h: NLMSG_ERROR and NLMSG_DONE; 0 is done, 1 is not permitted.
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
    let (stranger, forgeries) = (stranger(), forgeries());
    for socket in sockets(process) {
        let to = NetlinkAddr::new(socket.port, 0);
        for forgery in forgeries.iter().cycle().take(DATAGRAMS) {
            // It may be refused, or be too much.
            let _ = sendto(stranger.as_raw_fd(), forgery, &to, MsgFlags::MSG_DONTWAIT);
        }
    }
}

#[test]
fn answers_that_others_send_are_neither_read_nor_in_the_way() {
    for owner in ["--owner=true", "--owner=false"] {
        let busy = Busy::start(Family::V4, |call| call.args(&["--drain=3600", owner]));
        let Busy {
            net,
            mut forwarder,
            flow,
            server: _server,
        } = busy;
        net.node.run(|| send_to_all(&forwarder));
        forwarder.signal(Signal::SIGTERM);
        forwarder.wait_for_line("draining: 1 connections");
        net.node.run(|| send_to_all(&forwarder));
        drop(flow);
        let outcome = forwarder.finish().expect_exit(0);
        for word in ["warning", "error"] {
            assert!(!outcome.stderr.contains(word), "{outcome:?}");
        }
        assert_eq!(net.node.ruleset(), "");
    }
}

/// The number by which the kernel tells of a connection from this port.
fn flow_number(node: &Namespace, flow: &Connection) -> u32 {
    let port = flow.source().port().to_string();
    let list = ["-L", "-o", "id", "-p", "tcp", "--orig-port-src", &port];
    let list = node.succeed("conntrack", &list);
    let number = list
        .split_whitespace()
        .find_map(|word| word.strip_prefix("id="));
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// News that a connection has ended (linux/netfilter/nfnetlink_conntrack.h: IPCTNL_MSG_CT_DELETE, and
/// CTA_ID in it).
fn end_of_flow(number: u32) -> Vec<u8> {
    let id = [
        &8u16.to_ne_bytes()[..],
        &12u16.to_ne_bytes(),
        &number.to_be_bytes(),
    ];
    message(1 << 8 | 2, 0, &[&[2, 0, 0, 0], &id.concat()[..]].concat())
}

#[test]
fn news_that_others_make_up_is_not_believed() {
    let Busy {
        net,
        mut forwarder,
        mut flow,
        server: _server,
    } = Busy::start(Family::V4, |call| call.args(&["--drain=3600"]));
    let front = net.front(Family::V4, FRONT);
    let mut other = net
        .client
        .connect(Protocol::Tcp, front)
        .expect("a connection");
    let answer = other.ask().expect("an answer");
    // In one datagram: who believed it would be drained at once.
    let news = [&flow, &other].map(|flow| end_of_flow(flow_number(&net.node, flow)));

    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining: 2 connections");
    net.node.run(|| {
        // To the group; the kernel gets it too, and takes no notice of what is no request.
        let to = NetlinkAddr::new(0, DESTROY);
        let sent = sendto(
            stranger().as_raw_fd(),
            &news.concat(),
            &to,
            MsgFlags::empty(),
        );
        sent.expect("to be sent");
    });
    let has_read_it = || {
        let mut sockets = sockets(&forwarder).into_iter();
        sockets.all(|socket| socket.queued == 0)
    };
    wait_until(has_read_it);
    assert_eq!(flow.ask().expect("an answer").server, "backend-1");
    assert_eq!(other.ask().expect("an answer"), answer);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line("draining is cut short by a signal: 2 connections still run");
    forwarder.finish().expect_exit(0);
}
