//! How a predecessor hands its sockets over: other processes may connect to the lock, or hold it, and
//! must not get in the way.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;

use nix::sys::signal::Signal;
use nodefwd::netlink::receive_descriptors;

use super::replacing;
use crate::fixture::{EVENT_TIMEOUT, Namespace, Nodefwd, expect_parts, nodefwd};

/// What a successor sends first.
const REQUEST: &[u8] = b"nodefwd replace 1\n";

fn forward() -> Nodefwd {
    nodefwd(["--name=web", "tcp/80=10.2.0.11"])
}

fn address() -> SocketAddr {
    SocketAddr::from_abstract_name("nodefwd-web").expect("an address")
}

fn connect(node: &Namespace) -> UnixStream {
    let stream = node.run(|| UnixStream::connect_addr(&address()));
    let stream = stream.expect("a connection");
    let set = stream.set_read_timeout(Some(EVENT_TIMEOUT));
    set.expect("a read timeout");
    stream
}

/// Takes the name of the lock before an instance does.
fn hold_lock(node: &Namespace) -> UnixListener {
    let listener = node.run(|| UnixListener::bind_addr(&address()));
    listener.expect("the name is free")
}

fn send(mut stream: &UnixStream, bytes: &[u8]) {
    // The instance may have closed it already, which is seen by what it sends.
    let _ = stream.write_all(bytes);
}

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
    forwarder.signal(Signal::SIGSTOP);
    send(&connect(&node), REQUEST);
    forwarder.signal(Signal::SIGCONT);
    forwarder.wait_for_line("warning: not replaced, going on: cannot pass the sockets on");
    assert_eq!(node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Not even root's: the test is root, and the instance runs as another user.
#[test]
fn a_process_of_another_user_does_not_get_the_sockets() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().run_as_nobody_with_net_admin().start(&node);
    let before = node.rules();
    let stream = connect(&node);
    send(&stream, REQUEST);
    expect_closed(stream);

    let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
    let named = format!(
        "cannot replace instance web, which runs as process {}: user 65534 runs it",
        forwarder.id()
    );
    expect_parts(&stderr, [named]);
    assert_eq!(node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Asks for the instance's sockets, and deletes its table with them, as a successor does in the
/// transaction that installs its own. Goes no further.
fn replace_by_half(node: &Namespace) -> UnixStream {
    let stream = connect(node);
    send(&stream, REQUEST);
    let passed = receive_descriptors(&stream).expect("sockets");
    let [netlink, _lock] = passed.expect("what it passes on");
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

/// Another program may hold the lock, or a nodefwd that is too old to hand over.
#[test]
fn a_holder_of_the_lock_that_does_not_reply_or_does_not_hand_over_is_named() {
    let node = Namespace::forwarding("node");
    let listener = hold_lock(&node);
    let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
    let named = format!(
        "cannot replace instance web, which runs as process {}: it did not reply within 10s",
        std::process::id()
    );
    expect_parts(&stderr, [named]);

    let closing = thread::spawn(move || {
        for stream in listener.incoming() {
            if stream.is_ok_and(|mut stream| matches!(stream.read(&mut [0]), Ok(1))) {
                continue;
            }
        }
    });
    let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
    expect_parts(&stderr, ["it closed the connection"]);
    assert_eq!(node.ruleset(), "");
    drop(closing);
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
    let forwarder = replacing(&forward()).spawn(&node);
    let _request = next_request(&listener);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

/// A predecessor that is about to end closes the connection without a reply, and then the name is free.
#[test]
fn a_successor_of_an_instance_that_ends_at_that_moment_starts() {
    let node = Namespace::forwarding("node");
    let listener = hold_lock(&node);
    let forwarder = replacing(&forward()).spawn(&node);
    let request = next_request(&listener);
    drop(listener);
    drop(request);
    forwarder.wait_for_line("ready");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
