//! The new instance's side: asking the predecessor for what it has.

use super::{DONE, PATIENCE, REQUEST};
use crate::config::Name;
use crate::lock::{Holder, Lock, Peer, dial};
use crate::netfilter::{Connection, NetfilterError, pass};
use crate::poll::readable;
use crate::signals::Signals;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::geteuid;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;
use thiserror::Error;

/// A live instance that cannot be replaced.
#[derive(Debug, Error)]
#[error("cannot replace instance {name}, which runs as {holder}")]
pub struct ReplaceError {
    name: Name,
    holder: Holder,
    #[source]
    problem: Problem,
}

impl ReplaceError {
    /// Says why the instance of this name, which `holder` runs, cannot be replaced.
    pub fn new(name: &Name, holder: Holder, problem: Problem) -> Self {
        ReplaceError {
            name: name.clone(),
            holder,
            problem,
        }
    }
}

/// Why it cannot be replaced.
#[derive(Debug, Error)]
pub enum Problem {
    /// It is another user's.
    #[error(
        "user {0} runs it, and only the same user can replace it: run this one as that user, or stop that one first"
    )]
    OtherUser(u32),
    /// It says nothing.
    #[error(
        "it has not answered within {PATIENCE:?}: it is stopped, or too old for that; end it first"
    )]
    Silent,
    /// It hangs up.
    #[error(
        "it does not give way: it is no nodefwd, or ends just now; end it first, or give this one another name with NODEFWD_NAME (--name)"
    )]
    Refused,
    /// A signal to end has come.
    #[error("a signal has come before it answered")]
    Signal,
    /// It has waited long enough.
    #[error("it has waited {PATIENCE:?} for this one and goes on: try again")]
    Withdrawn,
    /// What it has passed on does not work.
    #[error("the socket that it has passed on cannot be used")]
    Passed(#[from] NetfilterError),
    /// No connection.
    #[error("cannot talk to it")]
    Talk(#[from] io::Error),
}

/// A live instance that waits to be replaced.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    name: Name,
    holder: Holder,
}

impl Predecessor {
    /// Asks the live instance of this name for its lock and for what its rules belong to. Nothing if
    /// it has hung up: the name may be free now.
    pub fn ask(
        name: &Name,
        signals: &Signals,
    ) -> Result<Option<(Self, Lock, Connection)>, ReplaceError> {
        let unknown = |error| ReplaceError::new(name, Holder::Unseen, Problem::Talk(error));
        let stream = match dial(&name.table()) {
            Ok(stream) => stream,
            Err(Errno::ECONNREFUSED) => return Ok(None),
            Err(errno) => return Err(unknown(errno.into())),
        };
        let peer = Peer::of(&stream).map_err(unknown)?;
        let predecessor = Predecessor {
            stream,
            name: name.clone(),
            holder: peer.process,
        };
        match predecessor.request(peer.user, signals) {
            Ok(Some([connection, lock])) => match Connection::adopt(&connection) {
                Ok(connection) => Ok(Some((predecessor, Lock::adopt(lock), connection))),
                Err(error) => Err(predecessor.error(error.into())),
            },
            Ok(None) => Ok(None),
            Err(Problem::Talk(error)) if has_hung_up(&error) => Ok(None),
            Err(problem) => Err(predecessor.error(problem)),
        }
    }

    fn request(&self, user: u32, signals: &Signals) -> Result<Option<[OwnedFd; 2]>, Problem> {
        if user != geteuid().as_raw() {
            return Err(Problem::OtherUser(user));
        }
        (&self.stream).write_all(REQUEST)?;
        let files = [Some(self.stream.as_fd()), Some(signals.as_fd())];
        match readable(files, Some(Instant::now() + PATIENCE))? {
            [true, _] => Ok(pass::receive(&self.stream)?),
            [false, true] => Err(Problem::Signal),
            [false, false] => Err(Problem::Silent),
        }
    }

    /// Whether it still waits. If it has died, there is nobody left to mind.
    pub fn waits(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags) != Ok(1)
    }

    /// Tells it that the rules are in, and waits until it has taken notice. Fails if it goes on
    /// nevertheless; then the rules are its own again.
    pub fn relieve(self) -> Result<(), ReplaceError> {
        // It may have died. What it would say has come before that.
        let _ = (&self.stream).write_all(&[DONE]);
        let _ = readable([Some(self.stream.as_fd())], Some(Instant::now() + PATIENCE));
        match (&self.stream).read(&mut [0]) {
            Ok(1) => Err(self.error(Problem::Withdrawn)),
            _ => Ok(()),
        }
    }

    /// Why it was not replaced.
    pub fn error(&self, problem: Problem) -> ReplaceError {
        ReplaceError::new(&self.name, self.holder, problem)
    }
}

fn has_hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}
