//! The new process's side: it asks the predecessor for its table and its lock, and takes nothing else for
//! them.

use super::super::poll::readable;
use super::super::signals::Signals;
use super::ask::{AskError, ask, connect, wait_for_reply};
use super::proof::Nonce;
use super::{DONE, HELLO, REPLY_TIMEOUT};
use crate::config::Name;
use crate::lock::{Holder, Lock, Peer};
use crate::netlink::receive_descriptors;
use crate::nftables::{Nftables, NftablesError};
use nix::sys::socket::{MsgFlags, recv};
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
    /// It does not reply.
    #[error(
        "it did not reply within {REPLY_TIMEOUT:?}: it is suspended (SIGSTOP), or its version cannot be replaced; end it first"
    )]
    Silent,
    /// It hangs up.
    #[error(
        "it closed the connection: it is not nodefwd, or it is just ending, or its version cannot be replaced; try again, end it first, or use another name with NODEFWD_NAME (--name)"
    )]
    Refused,
    /// It has waited long enough, or has not found the new rules.
    #[error(
        "the running instance waited {REPLY_TIMEOUT:?} for this process and keeps its rules: try again"
    )]
    Cancelled,
    #[error("the netlink socket that it passed cannot be used: end that process first")]
    Socket(#[source] NftablesError),
    #[error("the lock that it passed cannot be used: end that process first")]
    Lock(#[source] io::Error),
    #[error(
        "it does not own table inet {0}, but passed a socket as if it did: end that process first"
    )]
    NotOwner(String),
    #[error(transparent)]
    Ask(AskError),
}

impl From<AskError> for ReplaceProblem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Silent => ReplaceProblem::Silent,
            AskError::NoNonce => ReplaceProblem::Refused,
            error => ReplaceProblem::Ask(error),
        }
    }
}

impl From<io::Error> for ReplaceProblem {
    fn from(error: io::Error) -> Self {
        AskError::from(error).into()
    }
}

/// A running instance that waits to be replaced.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    name: Name,
    holder: Holder,
}

impl Predecessor {
    /// Asks the running instance of this name for its lock, and for the socket that owns its table; gives
    /// the one for the new table. `None` if it has hung up: the name may be free now. `holder` is who has
    /// the name, and `owner` whether the proof gets one, if it can.
    pub fn ask(
        name: &Name,
        holder: Holder,
        owner: bool,
    ) -> Result<Option<(Self, Lock, Nftables)>, ReplaceError> {
        let unknown = |problem| ReplaceError::new(name, holder, problem);
        let nonce = Nonce::new().map_err(|error| unknown(error.into()))?;
        let stream = match connect(&name.table(), nonce) {
            Ok(stream) => stream,
            Err(AskError::NotListening) => return Ok(None),
            Err(error) => return Err(unknown(error.into())),
        };
        let peer = Peer::of(&stream).map_err(|error| unknown(error.into()))?;
        let predecessor = Predecessor {
            stream,
            name: name.clone(),
            holder: peer.process,
        };
        match predecessor.request(nonce, owner) {
            Ok(Some((lock, nftables))) => Ok(Some((predecessor, lock, nftables))),
            Ok(None) => Ok(None),
            Err(ReplaceProblem::Ask(AskError::HungUp)) => Ok(None),
            // It may have used the socket again meanwhile.
            Err(_) if !predecessor.waits() => Err(predecessor.error(ReplaceProblem::Cancelled)),
            Err(problem) => Err(predecessor.error(problem)),
        }
    }

    fn request(
        &self,
        prover: Nonce,
        owner: bool,
    ) -> Result<Option<(Lock, Nftables)>, ReplaceProblem> {
        let stream = &self.stream;
        let own = Nftables::open().map_err(AskError::Proof)?;
        let _proof = ask(stream, prover, HELLO, owner, &own)?;
        wait_for_reply(stream)?;
        let Some([socket, lock]) = receive_descriptors(stream)? else {
            return Ok(None);
        };
        let lock = Lock::adopt(lock, &self.name, &own).map_err(ReplaceProblem::Lock)?;
        Ok(Some((lock, self.owner_of_table(&socket, own)?)))
    }

    /// The socket that owns the table: the one that was passed, if that is what the kernel says. A table
    /// without an owner takes none, so it is replaced over `own`.
    fn owner_of_table(&self, passed: &OwnedFd, own: Nftables) -> Result<Nftables, ReplaceProblem> {
        let passed = own.adopt(passed).map_err(ReplaceProblem::Socket)?;
        let table = self.name.table();
        // From 5.12 to 5.14 the kernel shows a table to its owner only.
        let found = passed.table(&table).map_err(ReplaceProblem::Socket)?;
        match found.and_then(|found| found.owner) {
            None => Ok(own),
            Some(owner) if owner == passed.port() => Ok(passed),
            Some(_) => Err(ReplaceProblem::NotOwner(table)),
        }
    }

    /// Whether it has not cancelled. Also true if it has died.
    pub fn waits(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags) != Ok(1)
    }

    /// Tells it that the rules are installed, and waits until it hangs up, or a signal comes. Fails if it
    /// has cancelled; then it installs its own rules again.
    pub fn commit(self, signals: &Signals) -> Result<(), ReplaceError> {
        // It may have died. If it had cancelled before, that can still be read.
        let _ = (&self.stream).write_all(&[DONE]);
        let files = [Some(self.stream.as_fd()), Some(signals.as_fd())];
        let _ = readable(files, Some(Instant::now() + REPLY_TIMEOUT));
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
