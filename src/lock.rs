//! The lock on an instance's name in a network namespace.
//!
//! The lock is an abstract socket (unix(7)): it belongs to the network namespace, as the rules do,
//! and it goes with its process, however that ends. So a table without an owner whose lock is free was
//! left by an instance that died. Over the same socket a new instance asks the running one to hand over
//! its table.
//!
//! Any process can bind that name, without privileges. Where the kernel knows tables with an owner, the
//! table itself is the lock, and an instance without the name only cannot be replaced.

use crate::config::Name;
use crate::netlink::{in_same_namespace, socket_option};
use crate::nftables::{Nftables, NftablesError};
use crate::process;
use crate::sock_diag;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockname, getsockopt,
    listen, socket, sockopt::PeerCredentials,
};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;
use thiserror::Error;

/// How many clients may wait in the kernel's queue. Further ones wait for room in it, and get it in the order
/// in which they came (unix_wait_for_peer in net/unix/af_unix.c), so a short queue is passed soon.
const MAX_QUEUED: i32 = 64;

/// A held lock. It is free when the last process that has it is gone.
#[derive(Debug)]
pub struct Lock(UnixListener);

/// Why an instance cannot have its name.
#[derive(Debug, Error)]
pub enum LockError {
    #[error(
        "instance {name}, table inet {}, runs in this network namespace already as {holder}: stop that one, replace it with NODEFWD_REPLACE=true (--replace), or give this one another name with NODEFWD_NAME (--name)",
        name.table()
    )]
    Running { name: Name, holder: Holder },
    /// The process that has the name is not the one that owns the table.
    #[error(
        "instance {name}, table inet {table}, runs in this network namespace already as {holder}, and cannot be replaced while {peer} holds the abstract socket @{table}: stop the instance, or give this one another name with NODEFWD_NAME (--name)",
        table = name.table()
    )]
    Irreplaceable {
        name: Name,
        holder: Holder,
        peer: Peer,
    },
    /// There is no table, but without an owner only the name keeps another instance from making it.
    #[error(
        "{peer} holds the abstract socket @{table}, which locks the name {name}, though there is no table inet {table}: it is another program, or an instance that is just starting or ending; end it, or give this instance another name with NODEFWD_NAME (--name)",
        table = name.table()
    )]
    Occupied { name: Name, peer: Peer },
    #[error("cannot bind the abstract socket that locks the name {name}")]
    Socket {
        name: Name,
        #[source]
        error: io::Error,
    },
    #[error(transparent)]
    Nftables(#[from] NftablesError),
}

impl Lock {
    /// Locks the name; `None` if another process has it.
    pub fn take(name: &Name) -> Result<Option<Self>, LockError> {
        let bind = || {
            let address = SocketAddr::from_abstract_name(name.table())?;
            let listener = UnixListener::bind_addr(&address)?;
            listener.set_nonblocking(true)?;
            Ok(Lock(listener))
        };
        match bind() {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(LockError::Socket {
                name: name.clone(),
                error,
            }),
        }
    }

    /// Takes over the lock on this name that another process has passed on. Both hold it from then on.
    /// Fails if it is anything else, or not of the namespace of `nftables`.
    pub fn adopt(passed: OwnedFd, name: &Name, nftables: &Nftables) -> io::Result<Self> {
        let is = |option, value| socket_option(passed.as_fd(), option).is_ok_and(|is| is == value);
        let address = getsockname::<UnixAddr>(passed.as_raw_fd());
        let has_name =
            address.is_ok_and(|address| address.as_abstract() == Some(name.table().as_bytes()));
        if !has_name
            || !is(libc::SO_TYPE, libc::SOCK_STREAM)
            || !is(libc::SO_ACCEPTCONN, 1)
            || !in_same_namespace(passed.as_fd(), nftables.as_fd())
        {
            return Err(io::Error::other("it is not the lock on this name"));
        }
        let listener = UnixListener::from(passed);
        listener.set_nonblocking(true)?;
        Ok(Lock(listener))
    }

    /// Has the kernel name this process as the holder: that is whoever called listen(2) last
    /// (unix_listen in net/unix/af_unix.c).
    pub fn refresh_credentials(&self) -> io::Result<()> {
        Ok(listen(&self.0, Backlog::new(MAX_QUEUED)?)?)
    }

    /// The next client that has connected, and the address that it is bound to; `None` if there is none.
    pub fn accept(&self) -> io::Result<Option<(UnixStream, SocketAddr)>> {
        match self.0.accept() {
            Ok(client) => Ok(Some(client)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Lock {
    /// Readable when a client has connected.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Looks whether an instance could have this name, without locking it. Gives the process that has the
/// name if the instance could run without: see [`go_without`].
pub fn look(nftables: &Nftables, name: &Name, owner: bool) -> Result<Option<Peer>, LockError> {
    match Peer::with_name(&name.table()) {
        None => Ok(None),
        Some(peer) => go_without(nftables, name, owner, peer).map(Some),
    }
}

/// Gives the process that has the name, if an instance can run without: there is no table of the name yet,
/// and the one that it makes belongs to it, as `owner` asks for and the kernel knows.
pub fn go_without(
    nftables: &Nftables,
    name: &Name,
    owner: bool,
    peer: Peer,
) -> Result<Peer, LockError> {
    let (table, name) = (name.table(), name.clone());
    let Some(found) = nftables.table(&table)? else {
        if owner && nftables.supports_owner(&table) {
            return Ok(peer);
        }
        return Err(LockError::Occupied { name, peer });
    };
    let owner = found.owner.map(|port| process::owner(port).pid);
    match owner.map(|pid| pid.map_or(Holder::Unseen, Holder::Process)) {
        None => Err(LockError::Running {
            name,
            holder: peer.process,
        }),
        Some(holder) if holder == peer.process => Err(LockError::Running { name, holder }),
        Some(holder) => Err(LockError::Irreplaceable { name, holder, peer }),
    }
}

/// What a process that has an instance's name may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The instance of that name.
    Instance,
    /// One that is just starting, or that another is replacing: that is over in a moment.
    Changing,
    /// No instance.
    Stranger,
}

/// Whether a process that has the name may be the instance: the one that owns the table. Where the kernel
/// knows no owner, or does not show the table, the name says so.
pub fn standing(
    nftables: &Nftables,
    name: &Name,
    owner: bool,
    peer: Peer,
) -> Result<Standing, NftablesError> {
    let table = name.table();
    let owns = |process, port| {
        let has_socket = process::has_socket(process, port);
        has_socket.unwrap_or_else(|| process::owner(port).pid.is_none_or(|pid| pid == process))
    };
    let may_be_instance = match (nftables.table(&table)?, peer.process) {
        (_, Holder::None) => true,
        (None, _) => !(owner && nftables.could_own(&table)),
        (Some(found), Holder::Process(process)) => {
            found.owner.is_none_or(|port| owns(process, port))
        }
        (Some(_), Holder::Unseen) => true,
    };
    Ok(match peer.process {
        _ if may_be_instance => Standing::Instance,
        Holder::Process(process) if process::has_net_admin(process) == Some(false) => {
            Standing::Stranger
        }
        _ => Standing::Changing,
    })
}

/// Says that an instance runs without its name.
pub fn irreplaceable(name: &Name, peer: Peer) -> String {
    format!(
        "this instance cannot be replaced (--replace) while {peer} holds the abstract socket @{}: end that process, or give this instance another name with NODEFWD_NAME (--name)",
        name.table()
    )
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
        match connect_to(table, None, None) {
            Err(Errno::ECONNREFUSED) => Holder::None,
            Ok(stream) => Peer::of(&stream).map_or(Holder::Unseen, |peer| peer.process),
            Err(_) => Peer::with_name(table).map_or(Holder::Unseen, |peer| peer.process),
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

/// The process at the other end of a stream, or at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub process: Holder,
    /// Its effective user id, if it is known.
    pub user: Option<u32>,
}

impl Peer {
    /// One that cannot be found any more.
    pub const GONE: Self = Peer {
        process: Holder::None,
        user: None,
    };

    /// Asks the kernel (SO_PEERCRED in unix(7)).
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Peer {
            process: match u32::try_from(credentials.pid()) {
                Ok(process) if process > 0 => Holder::Process(process),
                _ => Holder::Unseen,
            },
            user: Some(credentials.uid()),
        })
    }

    /// The process that has the name of the instance with this table, whether it listens or not. `None` if
    /// the name is free.
    pub fn with_name(table: &str) -> Option<Self> {
        match connect_to(table, None, None) {
            Ok(stream) => Peer::of(&stream).ok(),
            // It does not listen, or too many clients wait.
            Err(_) => {
                let socket = sock_diag::stream_with_name(table).ok().flatten()?;
                let process = process::holder(socket.inode);
                Some(Peer {
                    process: process.map_or(Holder::Unseen, Holder::Process),
                    user: socket.user.or_else(|| process.and_then(process::user)),
                })
            }
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.process, self.user) {
            (Holder::Process(process), Some(user)) => write!(f, "process {process} of user {user}"),
            (Holder::Unseen, Some(user)) => {
                write!(f, "a process of user {user} that cannot be seen from here")
            }
            (process, _) => process.fmt(f),
        }
    }
}

/// Connects to the holder of a lock, without waiting until it accepts, from this abstract name if one is
/// given. Waits at most so long for room in its queue, or fails with EAGAIN. The stream does not block.
pub fn connect_to(
    table: &str,
    from: Option<&str>,
    patience: Option<Duration>,
) -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = |name: &str| UnixAddr::new_abstract(name.as_bytes());
    if let Some(name) = from {
        bind(socket.as_raw_fd(), &address(name)?)?;
    }
    let stream = UnixStream::from(socket);
    let set = match patience {
        // It limits connect(2) too.
        Some(patience) => stream.set_write_timeout(Some(patience)),
        None => stream.set_nonblocking(true),
    };
    let connected = connect(stream.as_raw_fd(), &address(table)?);
    set.and_then(|()| stream.set_nonblocking(true))
        .map_err(errno)?;
    connected.map(|()| stream)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
