//! TCP connections that are only made to see whether a destination accepts them.

use crate::netlink::put_off_acknowledgement;
use nix::errno::Errno;
use nix::libc::{self, linger};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::socket::sockopt::{Linger, SocketError};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, connect, getsockopt,
    setsockopt, socket,
};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// How many files are open beside attempts, at most.
const OTHER_FILES: rlim_t = 128;

/// Has the kernel let this process open so many attempts at once, as far as it may: by default 1,024 files, which is
/// no more than what select(2) takes, and 524,288 for programs that do not use it (File Descriptor Limits in
/// systemd.exec(5)). Where it cannot, [`Attempt::begin`] tells.
pub fn make_room(attempts: usize) {
    let Ok((limit, most)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let wanted = (attempts as rlim_t).saturating_add(OTHER_FILES).min(most);
    if wanted > limit {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, most);
    }
}

/// What has come of an attempt: why it failed, if it did.
pub type Outcome = Result<(), Errno>;

/// A connection that is being made. Dropped, it is given up with a RST, so that neither end, nor conntrack,
/// keeps anything of it, and the destination's program has not seen it.
pub struct Attempt {
    socket: OwnedFd,
    family: AddressFamily,
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
        let family = family(&to);
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None)?;
        let reset = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&socket, Linger, &reset)?;
        // Without it, the destination's program sees a connection that ends at once.
        let _ = put_off_acknowledgement(socket.as_fd());
        let attempt = Attempt {
            socket,
            family,
            deadline,
        };
        attempt.connect(to)
    }

    /// Begins another one with the socket of one that was given up.
    pub fn begin_again(mut self, to: SocketAddr, deadline: Instant) -> Result<Begun, Errno> {
        self.deadline = deadline;
        self.connect(to)
    }

    fn connect(self, to: SocketAddr) -> Result<Begun, Errno> {
        match connect(self.socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(Errno::EINPROGRESS) => Ok(Begun::Runs(self)),
            Ok(()) => Ok(Begun::Over(Ok(()))),
            Err(errno) if is_of_the_way(errno) => Ok(Begun::Over(Err(errno))),
            Err(errno) => Err(errno),
        }
    }

    /// Gives it up as dropping it does, but keeps its socket (connect(2): an address of family AF_UNSPEC). Gives
    /// whether the kernel did.
    fn give_up(&self) -> bool {
        let nowhere = SockaddrIn::from(libc::sockaddr_in {
            sin_family: libc::AF_UNSPEC as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: 0 },
            sin_zero: [0; 8],
        });
        connect(self.socket.as_raw_fd(), &nowhere).is_ok()
    }

    /// What has come of it, once its socket is writable.
    pub fn outcome(&self) -> Outcome {
        match getsockopt(&self.socket, SocketError)? {
            0 => Ok(()),
            code => Err(Errno::from_raw(code)),
        }
    }
}

/// Attempts that were given up, for others with their sockets: to make one and to close it is a fifth of the work.
#[derive(Default)]
pub struct Spare(Vec<Attempt>);

/// How many are kept.
const MAX_SPARE: usize = 64;

impl Spare {
    /// Gives one up that has come to its end, and keeps it if there is room.
    pub fn keep(&mut self, attempt: Attempt) {
        if self.0.len() < MAX_SPARE && attempt.give_up() {
            self.0.push(attempt);
        }
    }

    /// One whose socket can connect to that.
    pub fn take(&mut self, to: &SocketAddr) -> Option<Attempt> {
        let family = family(to);
        let place = self.0.iter().rposition(|spare| spare.family == family)?;
        Some(self.0.swap_remove(place))
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn family(to: &SocketAddr) -> AddressFamily {
    match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::net::TcpListener;

    fn outcome(begun: Begun) -> (Outcome, Option<Attempt>) {
        match begun {
            Begun::Over(outcome) => (outcome, None),
            Begun::Runs(attempt) => {
                let mut files = [PollFd::new(attempt.as_fd(), PollFlags::POLLOUT)];
                poll(&mut files, PollTimeout::NONE).unwrap();
                (attempt.outcome(), Some(attempt))
            }
        }
    }

    #[test]
    fn a_socket_makes_one_attempt_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let deadline = Instant::now();
        let (first, attempt) = outcome(Attempt::begin(open, deadline).unwrap());
        assert_eq!(first, Ok(()));
        let mut spare = Spare::default();
        spare.keep(attempt.unwrap());
        assert!(spare.take(&"[::1]:80".parse().unwrap()).is_none());
        let attempt = spare.take(&closed).unwrap();
        assert!(spare.take(&closed).is_none());
        let (second, attempt) = outcome(attempt.begin_again(open, deadline).unwrap());
        assert_eq!(second, Ok(()));
        spare.keep(attempt.unwrap());
        let attempt = spare.take(&closed).unwrap();
        let (third, _) = outcome(attempt.begin_again(closed, deadline).unwrap());
        assert_eq!(third, Err(Errno::ECONNREFUSED));
        // None was accepted, as none was completed.
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
    }
}
