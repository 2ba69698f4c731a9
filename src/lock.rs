//! The lock on an instance's name in a network namespace.
//!
//! The lock is an abstract socket (unix(7)): it belongs to the network namespace, as the rules do,
//! and it goes with its process, however that ends. So a table whose lock is free was left by an
//! instance that died. Over the same socket a new instance asks the running one to hand over its table.

use crate::config::Name;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, getsockopt, listen, socket,
    sockopt::PeerCredentials,
};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use thiserror::Error;

/// A held lock. It is free when the last process that has it is gone.
#[derive(Debug)]
pub struct Lock(UnixListener);

/// Why a name cannot be locked.
#[derive(Debug, Error)]
pub enum LockError {
    #[error(
        "instance {name}, table inet {}, runs in this network namespace already as {holder}: stop that one, replace it with NODEFWD_REPLACE=true (--replace), or give this one another name with NODEFWD_NAME (--name)",
        name.table()
    )]
    Held { name: Name, holder: Holder },
    #[error("cannot bind the abstract socket that locks the name {name}")]
    Socket {
        name: Name,
        #[source]
        error: io::Error,
    },
}

impl Lock {
    /// Locks the name, or says who holds it.
    pub fn take(name: &Name) -> Result<Self, LockError> {
        let bind = || {
            let address = SocketAddr::from_abstract_name(name.table())?;
            let listener = UnixListener::bind_addr(&address)?;
            listener.set_nonblocking(true)?;
            Ok(Lock(listener))
        };
        bind().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => LockError::Held {
                name: name.clone(),
                holder: Holder::of(&name.table()),
            },
            _ => LockError::Socket {
                name: name.clone(),
                error,
            },
        })
    }

    /// Takes over a lock that another process has passed on. Both hold it from then on.
    pub fn adopt(passed: OwnedFd) -> Self {
        Lock(passed.into())
    }

    /// Has the kernel name this process as the holder: that is whoever called listen(2) last
    /// (unix_listen in net/unix/af_unix.c).
    pub fn refresh_credentials(&self) -> io::Result<()> {
        Ok(listen(&self.0, Backlog::MAXALLOWABLE)?)
    }

    /// The next client that has connected; `None` if there is none.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.0.accept() {
            Ok((client, _)) => Ok(Some(client)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails if a running instance holds the name. Does not lock it.
    pub fn check_free(name: &Name) -> Result<(), LockError> {
        match Holder::of(&name.table()) {
            Holder::None => Ok(()),
            holder => Err(LockError::Held {
                name: name.clone(),
                holder,
            }),
        }
    }
}

impl AsFd for Lock {
    /// Readable when a client has connected.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The process with this id.
    Process(u32),
    /// One that cannot be seen from this PID namespace.
    Unseen,
    /// There is none: the lock is free.
    None,
}

impl Holder {
    /// The process that holds the lock of the instance with this table.
    pub fn of(table: &str) -> Self {
        match connect_to(table) {
            Err(Errno::ECONNREFUSED) => Holder::None,
            Ok(stream) => Peer::of(&stream).map_or(Holder::Unseen, |peer| peer.process),
            Err(_) => Holder::Unseen,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process(process) => write!(f, "process {process}"),
            Holder::Unseen => f.write_str("a process that cannot be seen from here"),
            Holder::None => f.write_str("a process that has just ended"),
        }
    }
}

/// The process at the other end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub process: Holder,
    /// Its effective user id.
    pub user: u32,
}

impl Peer {
    /// Asks the kernel (SO_PEERCRED in unix(7)).
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Peer {
            process: match u32::try_from(credentials.pid()) {
                Ok(process) if process > 0 => Holder::Process(process),
                _ => Holder::Unseen,
            },
            user: credentials.uid(),
        })
    }
}

/// Connects to the holder of a lock, without waiting until it accepts. The stream does not block.
pub fn connect_to(table: &str) -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new_abstract(table.as_bytes())?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket.into())
}
