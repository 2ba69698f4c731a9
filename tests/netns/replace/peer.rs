//! The other end of the lock, made by hand: successors, attackers, and holders of the name.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};

use crate::fixture::{EVENT_TIMEOUT, Namespace, Nodefwd, nodefwd, wait_until};

/// What a successor sends first.
pub const REQUEST: &[u8] = b"nodefwd replace 2\n";

pub const TABLE: &str = "nodefwd-web";

/// The nonce in the name that hand-made successors are bound to.
pub const PROVER: &str = "00000000000000000000000000000001";

pub fn forward() -> Nodefwd {
    nodefwd(["--name=web", "tcp/80=10.2.0.11"])
}

fn address() -> SocketAddr {
    SocketAddr::from_abstract_name(TABLE).expect("an address")
}

/// Connects to the lock.
pub fn connect_to_lock(node: &Namespace) -> UnixStream {
    let stream = node.run(|| UnixStream::connect_addr(&address()));
    readable_in_time(stream.expect("a connection"))
}

fn readable_in_time(stream: UnixStream) -> UnixStream {
    let set = stream.set_read_timeout(Some(EVENT_TIMEOUT));
    set.expect("a read timeout");
    stream
}

/// Connects to the lock from the name of a successor with this nonce.
pub fn connect_as(prover: &str) -> UnixStream {
    let (unix, flags) = (AddressFamily::Unix, SockFlag::SOCK_CLOEXEC);
    let socket = socket(unix, SockType::Stream, flags, None).expect("a socket");
    let named = |name: &str| UnixAddr::new_abstract(name.as_bytes()).expect("an address");
    let own = named(&format!("nodefwd.successor-{prover}"));
    bind(socket.as_raw_fd(), &own).expect("a free name");
    connect(socket.as_raw_fd(), &named(TABLE)).expect("a connection");
    readable_in_time(socket.into())
}

/// Connects from this thread's namespace, and waits for room in the queue.
pub fn connect_waiting() -> io::Result<UnixStream> {
    UnixStream::connect_addr(&address())
}

/// Connects without waiting, and says whether that was possible.
pub fn try_to_connect() -> bool {
    let (unix, flags) = (
        AddressFamily::Unix,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    );
    let socket = socket(unix, SockType::Stream, flags, None).expect("a socket");
    let lock = UnixAddr::new_abstract(TABLE.as_bytes()).expect("an address");
    match connect(socket.as_raw_fd(), &lock) {
        Ok(()) => true,
        Err(Errno::EAGAIN) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Takes the name of the lock before an instance does.
pub fn hold_lock(node: &Namespace) -> UnixListener {
    // Another thread's child may hold the one that was closed here until it runs its program.
    let bound = || node.run(|| UnixListener::bind_addr(&address()));
    wait_until("a free name", bound, Result::is_ok).expect("a name")
}

pub fn send(mut stream: &UnixStream, bytes: &[u8]) {
    // The instance may have closed it already, which is seen by what it sends.
    let _ = stream.write_all(bytes);
}

/// Asks to replace the instance, and gives the name of the table that proves that it may.
pub fn ask(mut stream: &UnixStream, prover: &str) -> String {
    send(stream, REQUEST);
    let mut nonce = [0; 32];
    stream.read_exact(&mut nonce).expect("a nonce");
    let nonce = std::str::from_utf8(&nonce).expect("a number");
    format!("nodefwd.replace-{nonce}-{prover}")
}

/// The same, with the proof, which it names, and says so. The table is left to the instance.
pub fn prove(node: &Namespace) -> (UnixStream, String) {
    let stream = node.run(|| connect_as(PROVER));
    let table = ask(&stream, PROVER);
    node.succeed("nft", &["add", "table", "inet", &table]);
    send(&stream, b"p");
    (stream, table)
}
