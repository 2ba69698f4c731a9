//! One instance of a name in a network namespace.
//!
//! The lock is an abstract socket (unix(7)): it belongs to the network namespace, as the rules do,
//! and it goes with its process, however that ends. So a table whose lock is free is a dead
//! instance's. Over the same socket a new instance asks the live one to give way
//! (replace.rs).

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

/// Held as long as it lives, in whatever process.
#[derive(Debug)]
pub struct Lock(UnixListener);

/// Why a name cannot be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// A live instance has it.
    #[error(
        "instance {name}, table inet {}, runs in this network namespace already as {holder}: stop that one, replace it with NODEFWD_REPLACE=true (--replace), or give this one another name with NODEFWD_NAME (--name)",
        name.table()
    )]
    Taken {
        /// the name
        name: Name,
        /// who it is
        holder: Holder,
    },
    /// No socket.
    #[error("cannot make the socket that keeps the name {name}")]
    Socket {
        /// the name
        name: Name,
        /// why
        #[source]
        error: io::Error,
    },
}

impl Lock {
    /// Takes the name, or says who has it.
    pub fn take(name: &Name) -> Result<Self, LockError> {
        let bind = || {
            let address = SocketAddr::from_abstract_name(name.table())?;
            let listener = UnixListener::bind_addr(&address)?;
            listener.set_nonblocking(true)?;
            Ok(Lock(listener))
        };
        bind().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => LockError::Taken {
                name: name.clone(),
                holder: Holder::of(&name.table()),
            },
            _ => LockError::Socket {
                name: name.clone(),
                error,
            },
        })
    }

    /// Takes over a lock that another process has passed on. It is held as long as either lives.
    pub fn adopt(passed: OwnedFd) -> Self {
        Lock(passed.into())
    }

    /// Has the kernel name this process as the one that holds it: that is whoever listened last
    /// (unix_listen in net/unix/af_unix.c).
    pub fn sign(&self) -> io::Result<()> {
        Ok(listen(&self.0, Backlog::MAXALLOWABLE)?)
    }

    /// Someone who has connected, if there is anybody left.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.0.accept() {
            Ok((client, _)) => Ok(Some(client)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails if a live instance has the name; takes nothing.
    pub fn look(name: &Name) -> Result<(), LockError> {
        match Holder::of(&name.table()) {
            Holder::Nobody => Ok(()),
            holder => Err(LockError::Taken {
                name: name.clone(),
                holder,
            }),
        }
    }
}

impl AsFd for Lock {
    /// Can be read from when somebody has connected.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This process.
    Process(u32),
    /// A process that cannot be seen from here, from this PID namespace.
    Unseen,
    /// Nobody.
    Nobody,
}

impl Holder {
    /// Who holds the lock of the instance with this table.
    pub fn of(table: &str) -> Self {
        match dial(table) {
            Err(Errno::ECONNREFUSED) => Holder::Nobody,
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
            Holder::Nobody => f.write_str("a process that has just ended"),
        }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Who listens there, or has connected from there.
    pub process: Holder,
    /// Whose process it is.
    pub user: u32,
}

impl Peer {
    /// Who it is, as the kernel says (SO_PEERCRED in unix(7)).
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

/// Connects to whoever holds the lock, without waiting until it has time. The stream does not block.
pub fn dial(table: &str) -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new_abstract(table.as_bytes())?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket.into())
}
