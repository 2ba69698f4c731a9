//! The new process's side: it asks the predecessor for its table and its lock.

use super::super::poll::readable;
use super::{DONE, HELLO, REPLY_TIMEOUT};
use crate::config::Name;
use crate::lock::{Holder, Lock, Peer, connect_to};
use crate::netlink::receive_descriptors;
use crate::nftables::{Nftables, NftablesError};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::geteuid;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;
use thiserror::Error;

/// A running instance that cannot be replaced.
#[derive(Debug, Error)]
#[error("cannot replace instance {name}, which runs as {holder}")]
pub struct ReplaceError {
    name: Name,
    holder: Holder,
    #[source]
    problem: ReplaceProblem,
}

impl ReplaceError {
    /// Says why the instance of this name, which `holder` runs, cannot be replaced.
    pub fn new(name: &Name, holder: Holder, problem: ReplaceProblem) -> Self {
        ReplaceError {
            name: name.clone(),
            holder,
            problem,
        }
    }
}

/// Why it cannot be replaced.
#[derive(Debug, Error)]
pub enum ReplaceProblem {
    #[error(
        "user {0} runs it, and only the same user can replace it: run this one as that user, or stop that one first"
    )]
    OtherUser(u32),
    /// It does not reply.
    #[error(
        "it did not reply within {REPLY_TIMEOUT:?}: it is suspended (SIGSTOP), or its version cannot be replaced; end it first"
    )]
    Silent,
    /// It hangs up.
    #[error(
        "it closed the connection: it is not nodefwd, or it is just ending; try again, end it first, or use another name with NODEFWD_NAME (--name)"
    )]
    Refused,
    /// It has waited long enough.
    #[error(
        "the running instance waited {REPLY_TIMEOUT:?} for this process and keeps its rules: try again"
    )]
    Cancelled,
    #[error(
        "the netlink socket that the running instance passed cannot be used: end that instance first"
    )]
    Passed(#[from] NftablesError),
    #[error("cannot talk to the running instance")]
    Talk(#[from] io::Error),
}

/// A running instance that waits to be replaced.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    name: Name,
    holder: Holder,
}

impl Predecessor {
    /// Asks the running instance of this name for its lock, and for the socket that owns its table.
    /// `None` if it has hung up: the name may be free now.
    pub fn ask(name: &Name) -> Result<Option<(Self, Lock, Nftables)>, ReplaceError> {
        let unknown = |error| ReplaceError::new(name, Holder::Unseen, ReplaceProblem::Talk(error));
        let stream = match connect_to(&name.table()) {
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
        match predecessor.request(peer.user) {
            Ok(Some([socket, lock])) => match Nftables::adopt(&socket) {
                Ok(nftables) => Ok(Some((predecessor, Lock::adopt(lock), nftables))),
                Err(error) => Err(predecessor.error(error.into())),
            },
            Ok(None) => Ok(None),
            Err(ReplaceProblem::Talk(error)) if has_hung_up(&error) => Ok(None),
            Err(problem) => Err(predecessor.error(problem)),
        }
    }

    fn request(&self, user: u32) -> Result<Option<[OwnedFd; 2]>, ReplaceProblem> {
        if user != geteuid().as_raw() {
            return Err(ReplaceProblem::OtherUser(user));
        }
        (&self.stream).write_all(HELLO)?;
        let deadline = Some(Instant::now() + REPLY_TIMEOUT);
        match readable([Some(self.stream.as_fd())], deadline)? {
            [true] => Ok(receive_descriptors(&self.stream)?),
            [false] => Err(ReplaceProblem::Silent),
        }
    }

    /// Whether it has not cancelled. Also true if it has died.
    pub fn waits(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags) != Ok(1)
    }

    /// Tells it that the rules are installed, and waits until it hangs up. Fails if it has cancelled;
    /// then it installs its own rules again.
    pub fn commit(self) -> Result<(), ReplaceError> {
        // It may have died. If it had cancelled before, that can still be read.
        let _ = (&self.stream).write_all(&[DONE]);
        let _ = readable(
            [Some(self.stream.as_fd())],
            Some(Instant::now() + REPLY_TIMEOUT),
        );
        match (&self.stream).read(&mut [0]) {
            Ok(1) => Err(self.error(ReplaceProblem::Cancelled)),
            _ => Ok(()),
        }
    }

    /// Why it was not replaced.
    pub fn error(&self, problem: ReplaceProblem) -> ReplaceError {
        ReplaceError::new(&self.name, self.holder, problem)
    }
}

fn has_hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}
