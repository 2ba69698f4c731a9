//! TCP connections that are only made to see whether a destination accepts them.

use crate::netlink::put_off_acknowledgement;
use nix::errno::Errno;
use nix::libc::linger;
use nix::sys::socket::sockopt::{Linger, SocketError};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket,
};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// What has come of an attempt: why it failed, if it did.
pub type Outcome = Result<(), Errno>;

/// A connection that is being made. Dropped, it is given up with a RST, so that neither end, nor conntrack,
/// keeps anything of it, and the destination's program has not seen it.
pub struct Attempt {
    socket: OwnedFd,
    /// When it has failed.
    pub deadline: Instant,
}

/// How far an attempt has come at once.
pub enum Begun {
    Runs(Attempt),
    Over(Outcome),
}

impl Attempt {
    /// Begins one. Fails if this host cannot begin it, which says nothing of the destination.
    pub fn begin(to: SocketAddr, deadline: Instant) -> Result<Begun, Errno> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None)?;
        let reset = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&socket, Linger, &reset)?;
        // Without it, the destination's program sees a connection that ends at once.
        let _ = put_off_acknowledgement(socket.as_fd());
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(Errno::EINPROGRESS) => Ok(Begun::Runs(Attempt { socket, deadline })),
            Ok(()) => Ok(Begun::Over(Ok(()))),
            Err(errno) if is_of_the_way(errno) => Ok(Begun::Over(Err(errno))),
            Err(errno) => Err(errno),
        }
    }

    /// What has come of it, once its socket is writable.
    pub fn outcome(&self) -> Outcome {
        match getsockopt(&self.socket, SocketError)? {
            0 => Ok(()),
            code => Err(Errno::from_raw(code)),
        }
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether forwarded packets would not come through either: no route, or one that leads nowhere (ip-route(8)).
fn is_of_the_way(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::ENETUNREACH
            | Errno::EHOSTUNREACH
            | Errno::ENETDOWN
            | Errno::EACCES
            | Errno::EINVAL
    )
}
