//! The old process's side: it hands its table and its lock over to a successor that has proved that it may
//! have them.

use super::super::poll::readable;
use super::super::rules::{Rules, RulesError};
use super::super::signals::Signals;
use super::{CANCELLED, DONE, REPLY_TIMEOUT};
use crate::lock::{Holder, Lock};
use crate::logging::with_causes;
use crate::netlink::send_descriptors;
use crate::nftables::list::TableInfo;
use log::{info, warn};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a successor that must not go on may take to hang up.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Passes the sockets on, and waits for what comes of it, or for a signal, which is left to be waited for.
/// Gives the process, if it has replaced this one, or `None` if this instance goes on.
pub fn hand_over(
    client: &UnixStream,
    process: Holder,
    lock: &Lock,
    rules: &mut Rules<'_>,
    signals: &Signals,
) -> Result<Option<Holder>, RulesError> {
    info!("being replaced by {process}");
    let nftables = rules.nftables();
    let before = match nftables.table(rules.table()) {
        Ok(table) => table,
        Err(error) => {
            warn!("not replaced, going on: {}", with_causes(&error));
            return Ok(None);
        }
    };
    if let Err(error) = send_descriptors(client, [nftables.as_fd(), lock.as_fd()]) {
        warn!("not replaced, going on: cannot pass the sockets on to the new process: {error}");
        return Ok(None);
    }
    let why = match outcome(client, signals)? {
        Outcome::Done if is_replaced(before.as_ref(), rules) => return Ok(Some(process)),
        Outcome::Done => "says that it is ready, but has not installed its rules".to_owned(),
        Outcome::Gone => "has ended before it was ready".to_owned(),
        Outcome::Late => format!("was not ready within {REPLY_TIMEOUT:?}"),
        Outcome::Signal => "was not ready when a signal came".to_owned(),
    };
    let gone = cancel(client)?;
    nftables.discard_replies()?;
    // If a late successor commits after this, the kernel refuses (ERESTART), and before it retries it
    // reads CANCELLED.
    if !gone || handle(nftables.table(rules.table())?.as_ref()) != handle(before.as_ref()) {
        rules.restore()?;
    }
    warn!("not replaced, going on: the new process {why}");
    Ok(None)
}

fn handle(table: Option<&TableInfo>) -> Option<u64> {
    table?.handle
}

/// Whether there is another table in the place of this instance's. Over the sockets that were passed on, it
/// belongs to the same socket as before; without an owner, to the successor's.
fn is_replaced(before: Option<&TableInfo>, rules: &Rules<'_>) -> bool {
    let Ok(Some(now)) = rules.nftables().table(rules.table()) else {
        return false;
    };
    let had_owner = before.is_some_and(|before| before.owner.is_some());
    let port = rules.nftables().port();
    handle(Some(&now)) != handle(before)
        && (!had_owner || now.owner.is_none_or(|owner| owner == port))
}

/// What the new process has done.
enum Outcome {
    /// It says that its rules are installed.
    Done,
    /// It has hung up.
    Gone,
    /// It has not replied in time.
    Late,
    /// It has not replied, and a signal has come.
    Signal,
}

fn outcome(mut client: &UnixStream, signals: &Signals) -> io::Result<Outcome> {
    let files = [Some(client.as_fd()), Some(signals.as_fd())];
    let [replied, signal] = readable(files, Some(Instant::now() + REPLY_TIMEOUT))?;
    if !replied {
        return Ok(if signal {
            Outcome::Signal
        } else {
            Outcome::Late
        });
    }
    let mut word = [0];
    match client.read(&mut word) {
        Ok(1) if word == [DONE] => Ok(Outcome::Done),
        _ => Ok(Outcome::Gone),
    }
}

/// Tells a successor that it must not replace the rules. Gives whether it has hung up: until it has, either
/// process may read the kernel's replies to the other.
fn cancel(mut client: &UnixStream) -> io::Result<bool> {
    let _ = client.write(&[CANCELLED]);
    let deadline = Instant::now() + HANG_UP_TIMEOUT;
    // It may yet say that it is done.
    while readable([Some(client.as_fd())], Some(deadline))? == [true] {
        if !matches!(client.read(&mut [0]), Ok(1)) {
            return Ok(true);
        }
    }
    Ok(false)
}
