//! What else may connect to the lock, or hold it: neither must be in anybody's way.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use nodefwd::netfilter::pass;

use super::{replacing, rules};
use crate::fixture::{LIMIT, Namespace, Nodefwd, nodefwd};

/// What a new process asks for.
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
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    stream
}

fn say(mut stream: &UnixStream, words: &[u8]) {
    // The other side may have hung up already, which is seen by what it says.
    let _ = stream.write_all(words);
}

/// The other side must hang up without having said anything.
#[track_caller]
fn expect_hang_up(mut stream: UnixStream) {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => assert_eq!(said, b""),
        // What was sent to it was more than it wanted to read.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn who_says_nothing_or_nonsense_is_shown_out() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    let mute = [connect(&node), connect(&node)];
    let partial = connect(&node);
    say(&partial, &REQUEST[..5]);
    let nonsense = connect(&node);
    say(&nonsense, &[b'x'; 1000]);
    drop(connect(&node));
    for stream in mute.into_iter().chain([partial, nonsense]) {
        expect_hang_up(stream);
    }
    // Those that still wait keep nobody from replacing it.
    let _mute = connect(&node);
    let successor = replacing(&forward()).start(&node);
    forwarder.finish().expect_exit(0);
    // Nor from ending it.
    let _mute = [connect(&node), connect(&node)];
    successor.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

#[test]
fn who_has_gone_before_it_is_answered_is_let_go() {
    let node = Namespace::forwarding("node");
    let mut forwarder = forward().start(&node);
    let before = rules(&node);
    forwarder.signal(Signal::SIGSTOP);
    say(&connect(&node), REQUEST);
    forwarder.signal(Signal::SIGCONT);
    forwarder.wait_for_line("warning: not replaced, going on: cannot pass the sockets on");
    assert_eq!(rules(&node), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// The instance is another user's, and the test is root.
#[test]
fn another_user_gets_nothing() {
    let node = Namespace::forwarding("node");
    let forwarder = forward()
        .wrapped(&[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=+net_admin",
            "--ambient-caps=+net_admin",
        ])
        .start(&node);
    let before = rules(&node);
    let stream = connect(&node);
    say(&stream, REQUEST);
    expect_hang_up(stream);

    let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
    let named = format!(
        "cannot replace instance web, which runs as process {}: user 65534 runs it",
        forwarder.id()
    );
    assert!(stderr.contains(&named), "{stderr}");
    assert_eq!(rules(&node), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Asks for the instance's sockets, and deletes its table with them, as a new one does that is about to
/// make it anew. Goes no further.
fn replace_by_half(node: &Namespace) -> UnixStream {
    let stream = connect(node);
    say(&stream, REQUEST);
    let passed = pass::receive(&stream).expect("sockets");
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
    // A question that there is not (255). Nobody reads that it is refused.
    let question = message(10 << 8 | 255, 1, &[]);
    let mut netlink = File::from(netlink);
    for sent in [&batch.concat(), &question] {
        netlink.write_all(sent).expect("the kernel takes it");
    }
    stream
}

#[track_caller]
fn expect_rules(node: &Namespace, expected: &str) {
    let deadline = Instant::now() + LIMIT;
    while rules(node) != expected {
        assert!(Instant::now() < deadline, "{}", rules(node));
    }
}

#[test]
fn what_is_done_by_half_is_undone() {
    for owner in ["--owner=true", "--owner=false"] {
        let node = Namespace::forwarding("node");
        let forwarder = forward().args(&[owner]).start(&node);
        let before = rules(&node);
        drop(replace_by_half(&node));
        forwarder.wait_for_line("warning: not replaced, going on: the new process has ended");
        expect_rules(&node, &before);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }
}

/// A new one that is given everything and does not go on is not waited for; it may not go on later
/// either.
#[test]
fn who_takes_too_long_is_too_late() {
    for owner in ["--owner=true", "--owner=false"] {
        let node = Namespace::forwarding("node");
        let mut forwarder = forward().args(&[owner]).start(&node);
        let before = rules(&node);
        let mut stream = replace_by_half(&node);
        assert_eq!(rules(&node), "");
        forwarder.wait_for_line("warning: not replaced, going on: the new process was not ready");
        expect_rules(&node, &before);
        assert!(forwarder.is_running());
        let mut said = [0; 1];
        stream.read_exact(&mut said).expect("a word");
        assert_eq!(said, *b"w");
        // It is heard no more.
        say(&stream, b"d");
        expect_hang_up(stream);

        let successor = replacing(&forward()).args(&[owner]).start(&node);
        forwarder.finish().expect_exit(0);
        successor.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }
}

/// Something else has the name, or a nodefwd that is too old for this.
#[test]
fn who_does_not_give_way_is_named() {
    let node = Namespace::forwarding("node");
    let listener = node.run(|| UnixListener::bind_addr(&address()));
    let listener = listener.expect("the name is free");
    let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
    let named = format!(
        "cannot replace instance web, which runs as process {}: it has not answered within 10s",
        std::process::id()
    );
    assert!(stderr.contains(&named), "{stderr}");

    let closing = thread::spawn(move || {
        for stream in listener.incoming() {
            if stream.is_ok_and(|mut stream| matches!(stream.read(&mut [0]), Ok(1))) {
                continue;
            }
        }
    });
    let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
    assert!(stderr.contains("it does not give way"), "{stderr}");
    assert_eq!(node.ruleset(), "");
    drop(closing);
}

/// Waits for somebody who asks; others only want to know who is there.
fn next_request(listener: &UnixListener) -> UnixStream {
    let mut streams = listener.incoming().flatten();
    let asks = streams.find_map(|mut stream| {
        let mut said = [0; REQUEST.len()];
        (stream.read_exact(&mut said).is_ok() && said == REQUEST).then_some(stream)
    });
    asks.expect("a request")
}

/// A signal ends the new one also while it waits for the old one's answer.
#[test]
fn a_signal_ends_the_wait() {
    let node = Namespace::forwarding("node");
    let listener = node.run(|| UnixListener::bind_addr(&address()));
    let listener = listener.expect("the name is free");
    let forwarder = replacing(&forward()).spawn(&node);
    let _request = next_request(&listener);
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(1).stderr;
    assert!(
        stderr.contains("a signal has come before it answered"),
        "{stderr}"
    );
}

/// One that is about to end hears nobody any more; then its name is free.
#[test]
fn one_that_ends_just_then_is_followed() {
    let node = Namespace::forwarding("node");
    let listener = node.run(|| UnixListener::bind_addr(&address()));
    let listener = listener.expect("the name is free");
    let forwarder = replacing(&forward()).spawn(&node);
    let request = next_request(&listener);
    drop(listener);
    drop(request);
    forwarder.wait_for_line("ready");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
