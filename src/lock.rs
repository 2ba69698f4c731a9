//! One instance of a name in a network namespace.
//!
//! The lock is an abstract socket (unix(7)): it belongs to the network namespace, as the rules do,
//! and it goes with its process, however that ends. So a table whose lock is free is a dead
//! instance's.

use crate::config::Name;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket,
    sockopt::PeerCredentials,
};
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use thiserror::Error;

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] UnixListener);

/// Why a name cannot be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// A live instance has it.
    #[error(
        "instance {name}, table inet {}, runs in this network namespace already{process}: stop that one, or give this one another name with NODEFWD_NAME (--name)",
        name.table()
    )]
    Taken {
        /// the name
        name: Name,
        /// ` as process N`, where that is known
        process: String,
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
            match UnixListener::bind_addr(&address) {
                Ok(listener) => Ok(Some(Lock(listener))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
                Err(error) => Err(error),
            }
        };
        match bind() {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(LockError::Taken {
                name: name.clone(),
                process: match Holder::of(&name.table()) {
                    Holder::Process(process) => format!(" as process {process}"),
                    Holder::Unseen | Holder::Nobody => String::new(),
                },
            }),
            Err(error) => Err(LockError::Socket {
                name: name.clone(),
                error,
            }),
        }
    }

    /// Fails if a live instance has the name; takes nothing.
    pub fn look(name: &Name) -> Result<(), LockError> {
        // unix(7), proc_pid_net(5): abstract names are listed behind an '@'.
        let sockets = std::fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        let path = format!(" @{}", name.table());
        if sockets.lines().any(|line| line.ends_with(&path)) {
            return Err(LockError::Taken {
                name: name.clone(),
                process: holder(name),
            });
        }
        Ok(())
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
    /// Who holds the lock of the instance with this table. The kernel tells whoever connects
    /// (SO_PEERCRED); 0 stands for a process that cannot be seen. Connecting must not wait until
    /// the holder has time.
    pub fn of(table: &str) -> Self {
        let process = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            let address = UnixAddr::new_abstract(table.as_bytes())?;
            connect(socket.as_raw_fd(), &address)?;
            getsockopt(&socket, PeerCredentials).map(|peer| peer.pid())
        };
        match process().map(u32::try_from) {
            Err(Errno::ECONNREFUSED) => Holder::Nobody,
            Ok(Ok(process)) if process > 0 => Holder::Process(process),
            _ => Holder::Unseen,
        }
    }
}
