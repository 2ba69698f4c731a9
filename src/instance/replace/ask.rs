//! The client's side of the lock: it asks for something, with the proof that it may have it.

use super::super::poll::readable;
use super::proof::{self, Nonce, Proof};
use super::{PROVED, REPLY_TIMEOUT};
use crate::lock::connect_to;
use crate::nftables::{Nftables, NftablesError};
use nix::errno::Errno;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;
use thiserror::Error;

/// Why the holder of the lock did not get as far as the proof.
#[derive(Debug, Error)]
pub enum AskError {
    /// It has hung up.
    #[error("it closed the connection")]
    HungUp,
    /// No process listens at that name.
    #[error("no process listens at the lock")]
    NotListening,
    /// Other clients are in the way.
    #[error(
        "for {REPLY_TIMEOUT:?} its queue was full of other processes' connections: see which with ss -xp, and end them, or try again"
    )]
    Busy,
    /// It does not reply.
    #[error("it did not reply within {REPLY_TIMEOUT:?}")]
    Silent,
    /// It replies with anything but a nonce.
    #[error("its reply is not that of an instance")]
    NoNonce,
    #[error(
        "cannot prove to the running instance that this process may administer its network namespace"
    )]
    Proof(#[source] NftablesError),
    #[error("cannot talk to the running instance")]
    Talk(#[source] io::Error),
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match error.kind() {
            BrokenPipe | ConnectionReset => AskError::HungUp,
            _ => AskError::Talk(error),
        }
    }
}

/// Connects to the lock on this name. The address is that of the nonce.
pub fn connect(table: &str, prover: Nonce) -> Result<UnixStream, AskError> {
    connect_to(table, Some(&prover.address()), Some(REPLY_TIMEOUT)).map_err(|errno| match errno {
        Errno::ECONNREFUSED => AskError::NotListening,
        Errno::EAGAIN => AskError::Busy,
        errno => AskError::Talk(errno.into()),
    })
}

/// Asks with this word, and proves that it may, over the stream from the nonce's address. The proof must live
/// until the answer is there. `owner` is whether it gets one, if it can; `own` is any socket to nftables.
pub fn ask(
    mut stream: &UnixStream,
    prover: Nonce,
    word: &[u8],
    owner: bool,
    own: &Nftables,
) -> Result<Proof, AskError> {
    stream.write_all(word)?;
    wait_for_reply(stream)?;
    let mut nonce = [0; Nonce::LENGTH];
    let length = stream.read(&mut nonce)?;
    if length == 0 {
        return Err(AskError::HungUp);
    }
    let asked = Nonce::parse(&nonce[..length]).ok_or(AskError::NoNonce)?;
    let proof = Proof::new(proof::table(asked, prover), owner, own).map_err(AskError::Proof)?;
    stream.write_all(&[PROVED])?;
    Ok(proof)
}

/// Waits until there is something to read.
pub fn wait_for_reply(stream: &UnixStream) -> Result<(), AskError> {
    let deadline = Some(Instant::now() + REPLY_TIMEOUT);
    match readable([Some(stream.as_fd())], deadline)? {
        [true] => Ok(()),
        [false] => Err(AskError::Silent),
    }
}
