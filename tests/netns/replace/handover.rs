//! How a predecessor hands its sockets over: other processes may connect to the lock, or hold it, and
//! must not get in the way.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use nix::sys::signal::Signal;
use nodefwd::netlink::receive_descriptors;

use super::peer::{
    PROVER, REQUEST, ask, connect_as, connect_to_lock as connect, forward, hold_lock, prove, send,
};
use super::replacing;
use crate::fixture::{Namespace, Process, expect_parts};

/// The instance must close the connection without having sent anything.
#[track_caller]
fn expect_closed(mut stream: UnixStream) {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => assert_eq!(received, b""),
        // It has not read all that was sent.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn connections_without_a_valid_request_are_closed() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    let silent = [connect(&node), connect(&node)];
    let partial = connect(&node);
    send(&partial, &REQUEST[..5]);
    let nonsense = connect(&node);
    send(&nonsense, &[b'x'; 1000]);
    drop(connect(&node));
    for stream in silent.into_iter().chain([partial, nonsense]) {
        expect_closed(stream);
    }
    // An open one does not keep a successor from replacing it,
    let _silent = connect(&node);
    let successor = replacing(&forward()).start(&node);
    forwarder.finish().expect_exit(0);
    // nor a signal from ending it.
    let _silent = [connect(&node), connect(&node)];
    successor.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

#[test]
fn a_successor_that_ends_before_it_gets_the_sockets_is_ignored() {
    let node = Namespace::forwarding("node");
    let mut forwarder = forward().start(&node);
    let before = node.rules();
    let stream = node.run(|| connect_as(PROVER));
    let table = ask(&stream, PROVER);
    node.succeed("nft", &["add", "table", "inet", &table]);
    forwarder.signal(Signal::SIGSTOP);
    send(&stream, b"p");
    drop(stream);
    forwarder.signal(Signal::SIGCONT);
    forwarder.wait_for_line("warning: not replaced, going on: cannot pass the sockets on");
    node.wait_for_rules(&before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Whoever runs it: what counts is CAP_NET_ADMIN.
#[test]
fn an_instance_of_another_user_is_replaced_by_whoever_may_change_the_rules() {
    let node = Namespace::forwarding("node");
    for owner in ["--owner=true", "--owner=false"] {
        let call = forward().args(&[owner]);
        let nobody = |call: super::Nodefwd| call.run_as_nobody_with_net_admin();
        let first = nobody(call.clone()).start(&node);
        let root = replacing(&call).start(&node);
        first.finish().expect_exit(0);
        let before = node.rules();

        let without = replacing(&call).run_as_nobody(&["--inh-caps=-all"]);
        let stderr = without.finish(&node).expect_exit(1).stderr;
        expect_parts(
            &stderr,
            [
                "cannot replace instance web",
                "cannot prove",
                "CAP_NET_ADMIN is only",
            ],
        );
        assert_eq!(node.rules(), before);

        let last = nobody(replacing(&call)).start(&node);
        root.finish().expect_exit(0);
        last.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }
}

/// Asks for the instance's sockets, and deletes its table with them, as a successor does in the
/// transaction that installs its own. Goes no further.
fn replace_by_half(node: &Namespace) -> UnixStream {
    let (stream, proof) = prove(node);
    let passed = receive_descriptors(&stream).expect("sockets");
    let [netlink, _lock] = passed.expect("what it passes on");
    node.succeed("nft", &["delete", "table", "inet", &proof]);
    // linux/netlink.h, linux/netfilter/nfnetlink.h: begin and end of a batch for nf_tables (10), and
    // between them NFT_MSG_DELTABLE (2) for a table of family inet (1), named by NFTA_TABLE_NAME (1).
    let message = |kind: u16, family: u8, attributes: &[u8]| {
        let length = 20 + attributes.len() as u32;
        let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[1, 0]].concat();
        [&header[..], &[0; 8], &[family, 0, 0, 10], attributes].concat()
    };
    let name = [&16u16.to_ne_bytes()[..], &[1, 0], b"nodefwd-web\0"].concat();
    let batch = [
        message(0x10, 0, &[]),
        message(10 << 8 | 2, 1, &name),
        message(0x11, 0, &[]),
    ];
    // A message type that does not exist (255). Its error is left in the socket's queue.
    let unknown = message(10 << 8 | 255, 1, &[]);
    let mut netlink = File::from(netlink);
    for sent in [&batch.concat(), &unknown] {
        netlink.write_all(sent).expect("the kernel takes it");
    }
    stream
}

#[test]
fn what_a_successor_changed_before_it_ended_is_undone() {
    for owner in ["--owner=true", "--owner=false"] {
        let node = Namespace::forwarding("node");
        let forwarder = forward().args(&[owner]).start(&node);
        let before = node.rules();
        drop(replace_by_half(&node));
        forwarder.wait_for_line("warning: not replaced, going on: the new process has ended");
        node.wait_for_rules(&before);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }
}

/// The predecessor does not wait for a successor that has its sockets and does not go on, and does not
/// let it go on later.
#[test]
fn a_successor_that_takes_too_long_cannot_take_over_any_more() {
    for owner in ["--owner=true", "--owner=false"] {
        let node = Namespace::forwarding("node");
        let mut forwarder = forward().args(&[owner]).start(&node);
        let before = node.rules();
        let mut stream = replace_by_half(&node);
        assert_eq!(node.rules(), "");
        forwarder.wait_for_line("warning: not replaced, going on: the new process was not ready");
        node.wait_for_rules(&before);
        assert!(forwarder.is_running());
        let mut cancelled = [0; 1];
        stream.read_exact(&mut cancelled).expect("a byte");
        assert_eq!(cancelled, *b"c");
        // That it is done is not read any more.
        send(&stream, b"d");
        expect_closed(stream);

        let successor = replacing(&forward()).args(&[owner]).start(&node);
        forwarder.finish().expect_exit(0);
        successor.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }
}

/// Another program may hold the lock, or a nodefwd that is too old to hand over. Without an owner, the lock
/// alone keeps two instances from having the same name.
#[test]
fn a_holder_of_the_lock_that_does_not_reply_or_does_not_hand_over_is_named() {
    let node = Namespace::forwarding("node");
    let listener = hold_lock(&node);
    let call = replacing(&forward()).args(&["--owner=false"]);
    let expect_named = || {
        let stderr = call.finish(&node).expect_exit(1).stderr;
        let holder = format!("process {} of user 0 holds", std::process::id());
        expect_parts(&stderr, [&holder[..], "there is no table inet nodefwd-web"]);
        assert_eq!(node.ruleset(), "");
    };
    expect_named();
    thread::spawn(move || {
        for stream in listener.incoming() {
            if stream.is_ok_and(|mut stream| matches!(stream.read(&mut [0]), Ok(1))) {
                continue;
            }
        }
    });
    expect_named();
}

/// One that does not reply: a running instance that is suspended.
#[test]
fn a_suspended_instance_is_not_replaced() {
    let node = Namespace::forwarding("node");
    let mut forwarder = forward().start(&node);
    let before = node.rules();
    forwarder.signal(Signal::SIGSTOP);
    let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
    let named = format!(
        "cannot replace instance web, which runs as process {}: it did not reply within 10s",
        forwarder.id()
    );
    expect_parts(&stderr, [named]);
    forwarder.signal(Signal::SIGCONT);
    assert_eq!(node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

/// One that asks whoever has the name, as that is the lock where tables have no owner.
fn successor(node: &Namespace) -> Process {
    let call = replacing(&forward()).args(&["--owner=false"]);
    call.spawn(node)
}

/// Waits for a request; other processes connect only to learn the holder's process id.
fn next_request(listener: &UnixListener) -> UnixStream {
    let mut streams = listener.incoming().flatten();
    let requesting = streams.find_map(|mut stream| {
        let mut received = [0; REQUEST.len()];
        (stream.read_exact(&mut received).is_ok() && received == REQUEST).then_some(stream)
    });
    requesting.expect("a request")
}

#[test]
fn a_signal_ends_a_successor_that_waits_for_its_predecessor() {
    let node = Namespace::forwarding("node");
    let listener = hold_lock(&node);
    let forwarder = successor(&node);
    let _request = next_request(&listener);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

/// A predecessor that is about to end closes the connection without a reply, and then the name is free.
#[test]
fn a_successor_of_an_instance_that_ends_at_that_moment_starts() {
    let node = Namespace::forwarding("node");
    let listener = hold_lock(&node);
    let forwarder = successor(&node);
    let request = next_request(&listener);
    drop(listener);
    drop(request);
    forwarder.wait_for_line("ready");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
