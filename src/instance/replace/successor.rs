//! The old process's side: it hands its table and its lock over to a successor.

use super::super::poll::readable;
use super::super::rules::{Rules, RulesError};
use super::super::signals::Signals;
use super::{CANCELLED, DONE, HELLO, REPLY_TIMEOUT};
use crate::lock::{Holder, Lock, Peer};
use crate::logging::with_causes;
use crate::netlink::send_descriptors;
use log::{debug, info, warn};
use nix::unistd::geteuid;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a client may take to ask. Meanwhile other clients wait, but no signal does.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the next client of the lock: gives the process that has replaced this one, or `None` if this
/// instance goes on.
pub fn serve(
    lock: &Lock,
    rules: &Rules<'_>,
    signals: &Signals,
) -> Result<Option<Holder>, RulesError> {
    let client = match lock.accept() {
        Ok(Some(client)) => client,
        Ok(None) => return Ok(None),
        Err(error) => {
            // Out of descriptors or memory: the client is still there, so do not try again at once.
            warn!("cannot accept a connection to the lock: {error}");
            signals.sleep(HELLO_TIMEOUT)?;
            return Ok(None);
        }
    };
    match asks_to_replace(&client, signals) {
        Ok(Some(process)) => hand_over(&client, process, lock, rules),
        Ok(None) => Ok(None),
        Err(error) => {
            debug!("a client of the lock sent no request: {error}");
            Ok(None)
        }
    }
}

/// The process that wants to replace this one, if the client is one that may.
fn asks_to_replace(mut client: &UnixStream, signals: &Signals) -> io::Result<Option<Holder>> {
    let peer = Peer::of(client)?;
    if peer.user != geteuid().as_raw() {
        debug!("user {} must not replace this instance", peer.user);
        return Ok(None);
    }
    client.set_nonblocking(true)?;
    let files = [Some(client.as_fd()), Some(signals.as_fd())];
    readable(files, Some(Instant::now() + HELLO_TIMEOUT))?;
    let mut hello = [0; HELLO.len()];
    let length = client.read(&mut hello)?;
    // A client that only asks who holds the lock hangs up without sending anything.
    Ok((hello[..length] == *HELLO).then_some(peer.process))
}

/// Passes the sockets on, and waits for what comes of it.
fn hand_over(
    client: &UnixStream,
    process: Holder,
    lock: &Lock,
    rules: &Rules<'_>,
) -> Result<Option<Holder>, RulesError> {
    info!("being replaced by {process}");
    let nftables = rules.nftables();
    let before = match nftables.handle(rules.table()) {
        Ok(handle) => handle,
        Err(error) => {
            warn!("not replaced, going on: {}", with_causes(&error));
            return Ok(None);
        }
    };
    if let Err(error) = send_descriptors(client, [nftables.as_fd(), lock.as_fd()]) {
        warn!("not replaced, going on: cannot pass the sockets on to the new process: {error}");
        return Ok(None);
    }
    let (gone, why) = match outcome(client)? {
        Outcome::Done => return Ok(Some(process)),
        Outcome::Gone => (true, "has ended before it was ready".to_owned()),
        Outcome::Late => (
            cancel(client)?,
            format!("was not ready within {REPLY_TIMEOUT:?}"),
        ),
    };
    nftables.discard_replies()?;
    // If a late successor commits after this, the kernel refuses (ERESTART), and before it retries it
    // reads CANCELLED.
    if !gone || nftables.handle(rules.table())? != before {
        rules.restore()?;
    }
    warn!("not replaced, going on: the new process {why}");
    Ok(None)
}

/// What the new process has done.
enum Outcome {
    /// Its rules are installed.
    Done,
    /// It has hung up.
    Gone,
    /// It has not replied in time.
    Late,
}

fn outcome(mut client: &UnixStream) -> io::Result<Outcome> {
    let [replied] = readable([Some(client.as_fd())], Some(Instant::now() + REPLY_TIMEOUT))?;
    if !replied {
        return Ok(Outcome::Late);
    }
    let mut word = [0];
    match client.read(&mut word) {
        Ok(1) if word == [DONE] => Ok(Outcome::Done),
        _ => Ok(Outcome::Gone),
    }
}

/// Tells a late successor that it must not replace the rules. Gives whether it has hung up: until it
/// has, either process may read the kernel's replies to the other.
fn cancel(mut client: &UnixStream) -> io::Result<bool> {
    let _ = client.write(&[CANCELLED]);
    let deadline = Instant::now() + HELLO_TIMEOUT;
    // It may yet say that it is done.
    while readable([Some(client.as_fd())], Some(deadline))? == [true] {
        if !matches!(client.read(&mut [0]), Ok(1)) {
            return Ok(true);
        }
    }
    Ok(false)
}
