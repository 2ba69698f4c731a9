//! Standard error that is full, and nobody reads it: that holds up nothing.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::unistd::pipe;

use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, Namespace, Net, Nodefwd, Protocol,
    forward_to, nodefwd,
};

/// The end that nobody reads, and the one that is full.
pub type Ends = (File, File);

/// What standard error is, and how it is made and filled.
pub type Kind = (&'static str, fn() -> Ends);

pub const KINDS: [Kind; 3] = [
    ("a pipe", full_pipe),
    ("a socket", full_socket),
    ("a terminal", full_terminal),
];

fn full_pipe() -> Ends {
    let (reader, writer) = pipe().expect("a pipe");
    (reader.into(), fill(writer))
}

fn full_socket() -> Ends {
    let (reader, writer) = UnixStream::pair().expect("sockets");
    (OwnedFd::from(reader).into(), fill(writer.into()))
}

fn full_terminal() -> Ends {
    let terminal = openpty(None, None).expect("a terminal");
    (terminal.master.into(), fill(terminal.slave))
}

fn flags(file: &impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).expect("flags"))
}

/// How often in a row it has no room before it counts as full: the kernel moves what a terminal holds to its
/// reader's side a moment later.
const FULL: usize = 20;

/// Writes until it has no room for one byte. Whoever shares it may block, as before.
fn fill(file: OwnedFd) -> File {
    let before = flags(&file);
    fcntl(&file, FcntlArg::F_SETFL(before | OFlag::O_NONBLOCK)).expect("flags");
    let mut file = File::from(file);
    let mut full = 0;
    while full < FULL {
        full += 1;
        for size in [1 << 12, 1] {
            while has_written(&mut file, size) {
                full = 0;
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    fcntl(&file, FcntlArg::F_SETFL(before)).expect("flags");
    file
}

fn has_written(file: &mut File, size: usize) -> bool {
    match file.write(&vec![b'\n'; size]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        written => written.expect("room or none") > 0,
    }
}

/// A manager to which it says that it is ready, also when it cannot log that.
fn manager(node: &Namespace) -> UnixDatagram {
    let address = SocketAddr::from_abstract_name("manager").expect("a name");
    let socket = node.run(|| UnixDatagram::bind_addr(&address).expect("a socket"));
    socket
        .set_read_timeout(Some(EVENT_TIMEOUT))
        .expect("a timeout");
    socket
}

#[track_caller]
fn expect_ready(manager: &UnixDatagram) {
    let mut message = [0; 4096];
    let length = manager.recv(&mut message).expect("a message");
    assert!(message[..length].starts_with(b"READY=1\n"));
}

/// Starts it, waits until it is ready, and ends it.
#[track_caller]
fn run(call: &Nodefwd, stderr: File) {
    let node = Namespace::forwarding("node");
    let manager = manager(&node);
    let call = call.clone().env("NOTIFY_SOCKET", "@manager");
    let forwarder = call.spawn_with_stderr(&node, stderr);
    expect_ready(&manager);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

/// Options with which it logs in different places.
pub const WAYS: [&[&str]; 4] = [&[], &["-vv"], &["--drain=3600"], &["--owner=false"]];

#[test]
fn a_full_standard_error_holds_up_neither_start_nor_end() {
    for (kind, full) in KINDS {
        for options in WAYS {
            let (unread, stderr) = full();
            let shared = stderr.try_clone().expect("a duplicate");
            let before = flags(&shared);
            run(&nodefwd(["tcp/80=10.2.0.11"]).args(options), stderr);
            // Other processes that write there block as they did.
            assert_eq!(flags(&shared), before, "{kind}");
            drop(unread);
        }
    }
}

/// Another user's pipe cannot be opened once more.
#[test]
fn nor_does_a_pipe_of_another_user() {
    let (_unread, stderr) = full_pipe();
    let call = nodefwd(["tcp/80=10.2.0.11", "-vv"]).run_as_nobody_with_net_admin();
    run(&call, stderr);
}

#[test]
fn nor_does_one_that_refuses_everything() {
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    run(&nodefwd(["tcp/80=10.2.0.11", "-vv"]), full);
    let (unread, stderr) = pipe().expect("a pipe");
    drop(unread);
    run(&nodefwd(["tcp/80=10.2.0.11", "-vv"]), stderr.into());
}

#[test]
fn nor_does_it_hold_up_an_error_or_a_wrong_command_line() {
    let node = Namespace::new("node");
    for (arguments, status) in [
        (&["--bogus"][..], 2),
        (&["tcp/80=10.2.0.256"], 2),
        (&["tcp/80=10.2.0.11"], 1),
    ] {
        let (_unread, stderr) = full_pipe();
        let call = nodefwd(arguments.iter().copied());
        call.spawn_with_stderr(&node, stderr)
            .finish()
            .expect_exit(status);
    }
}

#[test]
fn nor_does_it_hold_up_a_drain() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let (_unread, stderr) = full_pipe();
    let manager = manager(&net.node);
    let call = forward_to(Protocol::Tcp, &net.backends).args(&["--drain=1"]);
    let call = call.env("NOTIFY_SOCKET", "@manager");
    let forwarder = call.spawn_with_stderr(&net.node, stderr);
    expect_ready(&manager);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let mut flow = net.client.live_flow(Protocol::Tcp, node_addr);
    // It still runs when the limit is over.
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert!(flow.request().is_err());
    assert_eq!(net.node.ruleset(), "");
}

/// Reads what has been missing until a line holds this, and gives that line.
fn read_until(unread: &mut File, part: &str) -> String {
    let mut read = Vec::new();
    loop {
        let mut files = [PollFd::new(unread.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(EVENT_TIMEOUT).expect("milliseconds");
        assert_eq!(poll(&mut files, timeout), Ok(1), "no line with '{part}'");
        let mut buffer = [0; 4096];
        let length = unread.read(&mut buffer).expect("lines");
        assert_ne!(length, 0, "no line with '{part}'");
        read.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&read).replace('\r', "");
        let mut lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        if let Some(line) = lines.find(|line| line.contains(part)) {
            return line.to_owned();
        }
    }
}

/// At once, without waiting for another line.
#[test]
fn what_is_missing_is_counted_and_said_once_it_is_read() {
    for (kind, full) in KINDS {
        let (mut unread, stderr) = full();
        let node = Namespace::forwarding("node");
        let manager = manager(&node);
        let call = nodefwd(["tcp/80=10.2.0.11"]).env("NOTIFY_SOCKET", "@manager");
        let forwarder = call.spawn_with_stderr(&node, stderr);
        expect_ready(&manager);
        let line = read_until(&mut unread, "missing");
        // How many are logged until it is read depends on the machine.
        let counted = line
            .strip_prefix("warning: ")
            .and_then(|line| line.split_once(' '));
        let (count, of) = counted.unwrap_or_else(|| panic!("{kind}: {line}"));
        let lines = match count.parse::<usize>() {
            Ok(1) => "line ",
            Ok(2..) => "lines ",
            _ => panic!("{kind}: {line}"),
        };
        assert!(of.starts_with(lines), "{kind}: {line}");
        let reader = thread::spawn(move || read_until(&mut unread, "stopped"));
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        let line = reader.join().expect("a line");
        assert!(line.starts_with("stopped: "), "{kind}: {line}");
    }
}
