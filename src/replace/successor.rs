//! The old instance's side: giving way to a successor.

use super::{DONE, PATIENCE, REQUEST, WITHDRAWN};
use crate::lock::{Holder, Lock, Peer};
use crate::logging::with_causes;
use crate::netfilter::pass;
use crate::poll::readable;
use crate::rules::{Rules, RulesError};
use crate::signals::Signals;
use log::{debug, info, warn};
use nix::unistd::geteuid;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a client may take to say what it wants. One that was let in and says nothing keeps others
/// waiting for this long, but no signal.
const SILENCE: Duration = Duration::from_secs(1);

/// What has come of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// This instance goes on.
    Kept,
    /// This process has taken its place.
    Replaced(Holder),
}

/// Answers whoever has connected to the lock.
pub fn answer(lock: &Lock, rules: &Rules<'_>, signals: &Signals) -> Result<Answered, RulesError> {
    let client = match lock.accept() {
        Ok(Some(client)) => client,
        Ok(None) => return Ok(Answered::Kept),
        Err(error) => {
            // Out of files or memory: the client is still there, so do not try again at once.
            warn!("cannot answer who has connected to the lock: {error}");
            signals.sleep(SILENCE)?;
            return Ok(Answered::Kept);
        }
    };
    match asks_to_replace(&client, signals) {
        Ok(Some(process)) => give_way(&client, process, lock, rules),
        Ok(None) => Ok(Answered::Kept),
        Err(error) => {
            debug!("somebody has connected to the lock in vain: {error}");
            Ok(Answered::Kept)
        }
    }
}

/// The process that wants to take this one's place, if the client is one that may.
fn asks_to_replace(mut client: &UnixStream, signals: &Signals) -> io::Result<Option<Holder>> {
    let peer = Peer::of(client)?;
    if peer.user != geteuid().as_raw() {
        debug!("user {} must not replace this instance", peer.user);
        return Ok(None);
    }
    client.set_nonblocking(true)?;
    let files = [Some(client.as_fd()), Some(signals.as_fd())];
    readable(files, Some(Instant::now() + SILENCE))?;
    let mut request = [0; REQUEST.len()];
    let length = client.read(&mut request)?;
    // Who only wants to know who holds the lock has hung up without a word.
    Ok((request[..length] == *REQUEST).then_some(peer.process))
}

/// Passes everything on, and waits for what comes of it.
fn give_way(
    client: &UnixStream,
    process: Holder,
    lock: &Lock,
    rules: &Rules<'_>,
) -> Result<Answered, RulesError> {
    info!("being replaced by {process}");
    let connection = rules.connection();
    let before = match connection.handle(rules.table()) {
        Ok(handle) => handle,
        Err(error) => {
            warn!("not replaced, going on: {}", with_causes(&error));
            return Ok(Answered::Kept);
        }
    };
    if let Err(error) = pass::send(client, [connection.as_fd(), lock.as_fd()]) {
        warn!("not replaced, going on: cannot pass the sockets on to the new process: {error}");
        return Ok(Answered::Kept);
    }
    let (gone, why) = match outcome(client)? {
        Outcome::Done => return Ok(Answered::Replaced(process)),
        Outcome::Gone => (true, "has ended before it was ready".to_owned()),
        Outcome::Late => (
            has_heard(client)?,
            format!("was not ready within {PATIENCE:?}"),
        ),
    };
    connection.discard_answers()?;
    // One that may still come back finds the ruleset changed then, tries anew, and reads before that
    // that it must not.
    if !gone || connection.handle(rules.table())? != before {
        rules.restore()?;
    }
    warn!("not replaced, going on: the new process {why}");
    Ok(Answered::Kept)
}

enum Outcome {
    Done,
    Gone,
    Late,
}

fn outcome(mut client: &UnixStream) -> io::Result<Outcome> {
    let [spoken] = readable([Some(client.as_fd())], Some(Instant::now() + PATIENCE))?;
    if !spoken {
        return Ok(Outcome::Late);
    }
    let mut word = [0];
    match client.read(&mut word) {
        Ok(1) if word == [DONE] => Ok(Outcome::Done),
        _ => Ok(Outcome::Gone),
    }
}

/// Tells a late one that it must not go on, and whether it has hung up upon that. As long as it has
/// not, it may get answers of the kernel's to this process, and this one its.
fn has_heard(mut client: &UnixStream) -> io::Result<bool> {
    let _ = client.write(&[WITHDRAWN]);
    let deadline = Instant::now() + SILENCE;
    // It may yet say that it is done.
    while readable([Some(client.as_fd())], Some(deadline))? == [true] {
        if !matches!(client.read(&mut [0]), Ok(1)) {
            return Ok(true);
        }
    }
    Ok(false)
}
