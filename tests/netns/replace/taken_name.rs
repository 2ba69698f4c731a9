//! A process that has the name of an instance, and is none. Any process can bind it, without privileges.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, UnixAddr, bind, socket};
use nodefwd::netlink::send_descriptors;

use super::peer::{REQUEST, TABLE, forward, hold_lock};
use super::replacing;
use crate::fixture::{Namespace, Nodefwd, expect_parts, nodefwd};

/// A socket of this type with the name, which does not listen.
fn bound(node: &Namespace, kind: SockType) -> OwnedFd {
    node.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, kind, flags, None).expect("a socket");
        let address = UnixAddr::new_abstract(TABLE.as_bytes()).expect("an address");
        bind(socket.as_raw_fd(), &address).expect("a free name");
        socket
    })
}

fn check() -> Nodefwd {
    nodefwd(["check", "--name=web", "tcp/80=10.2.0.11"])
}

/// Whether the holder listens or not: the table is the lock.
#[test]
fn with_an_owner_it_starts_and_says_who_keeps_it_from_being_replaced() {
    let node = Namespace::forwarding("node");
    let holder = format!("process {} of user 0 holds", std::process::id());
    let cannot = format!("this instance cannot be replaced (--replace) while {holder}");
    for listens in [true, false] {
        let held: OwnedFd = if listens {
            hold_lock(&node).into()
        } else {
            bound(&node, SockType::Stream)
        };
        let checked = check().finish(&node).stdout;
        expect_parts(&checked, [format!("warning: instances: {cannot}")]);
        let forwarder = forward().start(&node);
        forwarder.wait_for_line(&format!("warning: {cannot}"));
        let before = node.rules();

        // A second one does not start, and names the first.
        let running = format!(
            "runs in this network namespace already as process {}, and cannot be replaced while {holder}",
            forwarder.id()
        );
        let stderr = forward().finish(&node).expect_exit(1).stderr;
        expect_parts(&stderr, [&running]);
        let checked = check().finish(&node).stdout;
        let same = format!("ok: instances: web runs here, process {}", forwarder.id());
        expect_parts(&checked, [same]);
        if !listens {
            let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
            expect_parts(&stderr, [&running]);
        }
        assert_eq!(node.rules(), before);

        drop(held);
        forwarder.wait_for_line("this instance can be replaced now");
        let successor = replacing(&forward()).start(&node);
        forwarder.finish().expect_exit(0);
        successor.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }
}

/// Without an owner, the name is what keeps another instance from making the table.
#[test]
fn without_an_owner_it_does_not_start_and_says_who_has_the_name() {
    let node = Namespace::forwarding("node");
    for listens in [true, false] {
        let _held: OwnedFd = if listens {
            hold_lock(&node).into()
        } else {
            bound(&node, SockType::Stream)
        };
        let problem = format!(
            "process {} of user 0 holds the abstract socket @{TABLE}, which locks the name web, though there is no table inet {TABLE}",
            std::process::id()
        );
        let stderr = forward()
            .args(&["--owner=false"])
            .finish(&node)
            .expect_exit(1)
            .stderr;
        expect_parts(&stderr, [&problem]);
        let checked = check().args(&["--owner=false"]).finish(&node).stdout;
        expect_parts(&checked, [&format!("failure: instances: {problem}")]);
        assert_eq!(node.ruleset(), "");
    }
}

/// The names of other types of sockets are others.
#[test]
fn a_socket_of_another_type_is_no_lock() {
    let node = Namespace::forwarding("node");
    let _held = [SockType::Datagram, SockType::SeqPacket].map(|kind| bound(&node, kind));
    for owner in ["--owner=true", "--owner=false"] {
        let checked = check().args(&[owner]).finish(&node).stdout;
        expect_parts(&checked, ["ok: instances: no other instance"]);
        let first = forward().args(&[owner]).start(&node);
        let second = replacing(&forward()).args(&[owner]).start(&node);
        let stderr = first.finish().expect_exit(0).stderr;
        assert!(!stderr.contains("cannot be replaced"), "{stderr}");
        second.stop(Signal::SIGTERM).expect_exit(0);
    }
}

fn netlink(protocol: SockProtocol) -> OwnedFd {
    let (netlink, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
    let socket = socket(netlink, SockType::Raw, flags, protocol).expect("a socket");
    let address = nix::sys::socket::NetlinkAddr::new(0, 0);
    bind(socket.as_raw_fd(), &address).expect("a port");
    socket
}

/// Does as an instance does for a successor, and passes these on.
fn pass_on(listener: &UnixListener, passed: [BorrowedFd<'_>; 2]) {
    // The last one that it was passed to may have changed that.
    listener
        .set_nonblocking(false)
        .expect("a listener that waits");
    for stream in listener.incoming() {
        let mut stream: UnixStream = stream.expect("a client");
        let mut request = [0; REQUEST.len()];
        if stream.read_exact(&mut request).is_err() || request != REQUEST {
            continue;
        }
        stream.write_all(&[b'0'; 32]).expect("a nonce is taken");
        if stream.read_exact(&mut [0]).is_ok() {
            send_descriptors(&stream, passed).expect("they are taken");
            let _ = stream.read(&mut [0]);
            return;
        }
    }
}

/// It has the name, but neither the table nor its socket, and passes on what may be mistaken for them. A
/// successor installs nothing over that: it starts like any other, or says who runs.
#[test]
fn a_successor_uses_no_other_socket_than_that_of_the_table() {
    let node = Namespace::forwarding("node");
    let elsewhere = Namespace::forwarding("elsewhere");
    let netfilter = || netlink(SockProtocol::NetlinkNetFilter);
    let own = node.run(netfilter);
    let foreign = elsewhere.run(netfilter);
    let route = node.run(|| netlink(SockProtocol::NetlinkRoute));
    let udp = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let unnamed = OwnedFd::from(UnixDatagram::unbound().expect("a socket"));
    let foreign_lock = OwnedFd::from(hold_lock(&elsewhere));

    let listener = hold_lock(&node);
    let lock = OwnedFd::from(listener.try_clone().expect("a copy"));
    for (socket, lock) in [
        (&udp, &lock),
        (&route, &lock),
        (&foreign, &lock),
        (&own, &udp),
        (&own, &unnamed),
        (&own, &foreign_lock),
    ] {
        thread::scope(|scope| {
            scope.spawn(|| pass_on(&listener, [socket.as_fd(), lock.as_fd()]));
            let forwarder = replacing(&forward()).start(&node);
            forwarder.wait_for_line("warning: this instance cannot be replaced");
            assert_eq!(elsewhere.ruleset(), "");
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
            assert_eq!(node.ruleset(), "");
        });
    }
    // A socket like that of an instance, but the table is another's.
    let forwarder = forward().start(&node);
    let before = node.rules();
    thread::scope(|scope| {
        scope.spawn(|| pass_on(&listener, [own.as_fd(), lock.as_fd()]));
        let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
        let running = format!("already as process {}, and cannot be", forwarder.id());
        expect_parts(&stderr, [running]);
    });
    assert_eq!(node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}
