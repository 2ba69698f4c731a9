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

/// How many files are kept for all that is no attempt: so many, or half of what may be open if that is less, but not
/// less than an instance has open while it reloads.
const OTHER_FILES: rlim_t = 128;
const MIN_OTHER_FILES: rlim_t = 32;

/// How many attempts may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub attempts: usize,
    /// How many files this process may open, and how many it would need for all attempts.
    pub limit: rlim_t,
    pub needed: rlim_t,
}

impl Room {
    /// Has the kernel let this process open so many attempts at once, as far as it may: by default 1,024 files, which
    /// is no more than what select(2) takes, and 524,288 for programs that do not use it (File Descriptor Limits in
    /// systemd.exec(5)).
    pub fn make(attempts: usize) -> Self {
        let needed = (attempts as rlim_t).saturating_add(OTHER_FILES);
        let Ok((mut limit, most)) = getrlimit(Resource::RLIMIT_NOFILE) else {
            return Self::of(needed, needed);
        };
        let wanted = needed.min(most);
        if wanted > limit && setrlimit(Resource::RLIMIT_NOFILE, wanted, most).is_ok() {
            limit = wanted;
        }
        Self::of(limit, needed)
    }

    fn of(limit: rlim_t, needed: rlim_t) -> Self {
        let others = (limit / 2).clamp(MIN_OTHER_FILES, OTHER_FILES);
        Room {
            attempts: limit.saturating_sub(others).max(1) as usize,
            limit,
            needed,
        }
    }

    /// Whether some attempts have to wait for others.
    pub fn is_short(&self) -> bool {
        self.limit < self.needed
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

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Closes one.
    pub fn close_one(&mut self) {
        self.0.pop();
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
    fn files_are_left_for_all_else() {
        let attempts = |limit, needed| Room::of(limit, needed).attempts;
        assert_eq!(attempts(1024, 128 + 896), 896);
        assert!(!Room::of(1024, 1024).is_short());
        assert!(Room::of(1024, 1025).is_short());
        assert_eq!(attempts(256, 1128), 128);
        assert_eq!(attempts(64, 1128), 32);
        assert_eq!(attempts(40, 1128), 8);
        assert_eq!(attempts(16, 1128), 1);
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
