//! A process that has the name of an instance, and is none. Any process can bind it, without privileges.

use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, UnixAddr, bind, connect, listen,
    socket,
};
use nodefwd::netlink::send_descriptors;

use super::peer::{REQUEST, TABLE, forward, hold_lock};
use super::replacing;
use crate::fixture::{
    NEW_TABLE, Namespace, Nodefwd, Process, attribute, expect_parts, netfilter_socket, nodefwd,
    send_transaction, wait_until,
};

/// A socket of this type with the name, which does not listen.
fn bound(node: &Namespace, kind: SockType) -> OwnedFd {
    bound_to(node, kind, TABLE.as_bytes())
}

fn bound_to(node: &Namespace, kind: SockType, name: &[u8]) -> OwnedFd {
    node.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, kind, flags, None).expect("a socket");
        let address = UnixAddr::new_abstract(name).expect("an address");
        // Another thread's child may hold the one that was closed here until it runs its program.
        let bound = || bind(socket.as_raw_fd(), &address);
        wait_until("a free name", bound, Result::is_ok).expect("a name");
        socket
    })
}

/// The name of the lock, held by a socket that listens, or that does not, or that is connected to another.
fn held(node: &Namespace, how: How) -> OwnedFd {
    match how {
        How::Listens => hold_lock(node).into(),
        How::Bound => bound(node, SockType::Stream),
        How::Connected => {
            let [socket, listener] =
                [TABLE, "another"].map(|name| bound_to(node, SockType::Stream, name.as_bytes()));
            listen(&listener, Backlog::new(1).expect("a length")).expect("it listens");
            let address = UnixAddr::new_abstract(b"another").expect("an address");
            connect(socket.as_raw_fd(), &address).expect("a connection");
            socket
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Listens,
    Bound,
    Connected,
}

const ALL: [How; 3] = [How::Listens, How::Bound, How::Connected];

fn check() -> Nodefwd {
    nodefwd(["check", "--name=web", "tcp/80=10.2.0.11"])
}

/// Whether the holder listens or not: the table is the lock.
#[test]
fn with_an_owner_it_starts_and_says_who_keeps_it_from_being_replaced() {
    let node = Namespace::forwarding("node");
    let holder = format!("process {} of user 0 holds", std::process::id());
    let cannot = format!("this instance cannot be replaced (--replace) while {holder}");
    // Names that are lines of /proc/net/unix, or that are no text.
    let forged = "x\n0000000000000000: 00000002 00000000 00000000 0001 01     1 @nodefwd-web\n";
    let _forged =
        [forged.as_bytes(), b"\n\xff"].map(|name| bound_to(&node, SockType::Stream, name));
    for how in ALL {
        let held = held(&node, how);
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
        if how != How::Listens {
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

/// A process of another user that has the name, listens, and never answers.
fn silent_squatter(node: &Namespace) -> Process {
    let script = format!(
        "import socket, sys, time
squatter = socket.socket(socket.AF_UNIX)
squatter.bind('\\0{TABLE}')
squatter.listen(9)
print('listening', file=sys.stderr, flush=True)
time.sleep(9999)"
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(["/usr/bin/python3", "-c", &script]);
    let squatter = node.spawn(command);
    squatter.wait_for_line("listening");
    squatter
}

/// How long an instance is given to answer. Whoever holds the name and owns no table is not asked.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn a_silent_holder_of_the_name_delays_no_start() {
    let node = Namespace::forwarding("node");
    for user in ["65534", "0"] {
        let (squatter, own) = match user {
            "0" => (None, Some(hold_lock(&node))),
            _ => (Some(silent_squatter(&node)), None),
        };
        let process = squatter.as_ref().map_or(std::process::id(), Process::id);
        let begin = Instant::now();
        let forwarder = replacing(&forward()).start(&node);
        let holder = format!("process {process} of user {user} holds the abstract socket");
        expect_parts(&forwarder.stderr(), [&holder]);
        // Nor is it asked to replace the one that has the table.
        let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
        let running = format!("already as process {}, and cannot be", forwarder.id());
        expect_parts(&stderr, [&running, &holder]);
        assert!(begin.elapsed() < REPLY_TIMEOUT, "{:?}", begin.elapsed());
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
        drop((squatter, own));
    }
}

/// Without an owner, the name is what keeps another instance from making the table.
#[test]
fn without_an_owner_it_does_not_start_and_says_who_has_the_name() {
    let node = Namespace::forwarding("node");
    for how in ALL {
        let _held = held(&node, how);
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

/// It has the name, and there is a table without an owner, so that it may be the instance, and it passes on
/// what may be mistaken for its sockets. A successor installs nothing over that, and says why.
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
    let other_lock = bound_to(&node, SockType::Stream, b"nodefwd-other");
    listen(&other_lock, Backlog::new(1).expect("a length")).expect("it listens");

    let listener = hold_lock(&node);
    let lock = OwnedFd::from(listener.try_clone().expect("a copy"));
    node.load(&format!("table inet {TABLE}"));
    let before = node.rules();
    const SOCKET: &str = "the netlink socket that it passed cannot be used: end that process first: cannot talk to nf_tables over netlink: it is no netfilter socket of this network namespace";
    const LOCK: &str = "the lock that it passed cannot be used";
    for (socket, lock, problem) in [
        (&udp, &lock, SOCKET),
        (&route, &lock, SOCKET),
        (&foreign, &lock, SOCKET),
        (&own, &udp, LOCK),
        (&own, &unnamed, LOCK),
        (&own, &foreign_lock, LOCK),
        (&own, &other_lock, LOCK),
    ] {
        thread::scope(|scope| {
            scope.spawn(|| pass_on(&listener, [socket.as_fd(), lock.as_fd()]));
            let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
            expect_parts(&stderr, [problem]);
            assert_eq!(elsewhere.ruleset(), "");
            assert_eq!(node.rules(), before);
        });
    }
}

/// The same, with a table that it owns over another socket than the one that it passes on.
#[test]
fn a_successor_does_not_use_a_socket_that_does_not_own_the_table() {
    let node = Namespace::forwarding("node");
    let listener = hold_lock(&node);
    let lock = OwnedFd::from(listener.try_clone().expect("a copy"));
    let [owner, other] = [(); 2].map(|()| node.run(netfilter_socket));
    // NFTA_TABLE_NAME, and the flag for an owner in NFTA_TABLE_FLAGS.
    let table = [
        attribute(1, format!("{TABLE}\0").as_bytes()),
        attribute(2, &2u32.to_be_bytes()),
    ];
    send_transaction(&owner, &[(NEW_TABLE, &table)]);
    let before = node.rules();
    thread::scope(|scope| {
        scope.spawn(|| pass_on(&listener, [other.as_fd(), lock.as_fd()]));
        let stderr = replacing(&forward()).finish(&node).expect_exit(1).stderr;
        let problem =
            format!("it does not own table inet {TABLE}, but passed a socket as if it did");
        expect_parts(&stderr, [problem]);
    });
    assert_eq!(node.rules(), before);
}

/// How many connections an instance closes, as one does that is being replaced by others again and again: more than the
/// successor makes while the name may be between two of them.
pub const HANG_UPS: usize = 60;

/// After that, the name is between two instances: its holder owns no table yet.
#[test]
fn a_name_that_goes_from_one_instance_to_the_next_is_waited_for() {
    let node = Namespace::forwarding("node");
    let listener = hold_lock(&node);
    let owner = node.run(netfilter_socket);
    let table = [
        attribute(1, format!("{TABLE}\0").as_bytes()),
        attribute(2, &2u32.to_be_bytes()),
    ];
    send_transaction(&owner, &[(NEW_TABLE, &table)]);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("waited-for");
    let output = format!("--output={}", file.display());
    let call = replacing(&forward()).traced(&["--trace=bind", &output]);
    let successor = call.spawn(&node);
    for _ in 0..HANG_UPS {
        drop(listener.accept().expect("a connection"));
    }
    drop(owner);
    node.wait_for_rules("");
    let attempts = || {
        let trace = fs::read_to_string(&file).expect("a trace");
        trace.matches("EADDRINUSE").count()
    };
    let before = attempts();
    wait_until("attempts", attempts, |count| *count > before + 2);
    drop(listener);
    successor.wait_for_line("ready");
    let stderr = successor.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert!(!stderr.contains("cannot be replaced"), "{stderr}");
}
