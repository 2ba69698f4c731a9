//! `nodefwd reload`: asks a running instance to read its file again, and waits for what comes of it.

use super::super::poll::readable;
use super::super::replace::{RELOAD, RELOADED};
use crate::config::Name;
use crate::lock::{Holder, Peer, connect_to};
use crate::nftables::Nftables;
use crate::process;
use nix::errno::Errno;
use nix::unistd::geteuid;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why an instance has not reloaded.
#[derive(Debug, Error)]
pub enum RequestError {
    #[error(
        "no instance '{0}' answers in this network namespace: start it, or list those that run with: nodefwd status"
    )]
    NotRunning(Name),
    /// Its reason.
    #[error("instance {name} goes on with the rules as they were: {reason}")]
    Refused { name: Name, reason: String },
    /// Any process can bind the name.
    #[error(
        "{peer} holds the abstract socket @{table}, and is not the process that owns table inet {table}: send HUP to that one, or end {peer}",
        table = name.table()
    )]
    OtherProcess { name: Name, peer: Peer },
    #[error(
        "instance {0} gives no answer: only its own user and root may have it reload, and only a version that can"
    )]
    NoAnswer(Name),
    #[error(
        "instance {0} did not answer within {TIMEOUT:?}: see its log; it may be suspended (SIGSTOP)"
    )]
    Silent(Name),
    #[error("cannot talk to instance {0}")]
    Talk(Name, #[source] io::Error),
}

/// How long a reload may take. Large rulesets take seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// As much of a reason as is read.
const MAX_REASON: usize = 4 << 10;

/// Has the instance of this name read its file again. Returns when its rules have changed.
pub fn request(name: &Name) -> Result<(), RequestError> {
    let talk = |error: io::Error| match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => RequestError::NoAnswer(name.clone()),
        _ => RequestError::Talk(name.clone(), error),
    };
    let mut stream = match connect_to(&name.table(), None) {
        Ok(stream) => stream,
        Err(Errno::ECONNREFUSED) => return Err(RequestError::NotRunning(name.clone())),
        Err(errno) => return Err(talk(errno.into())),
    };
    let peer = Peer::of(&stream).map_err(talk)?;
    check_runs_the_instance(peer, name)?;
    stream.write_all(RELOAD).map_err(talk)?;
    let deadline = Some(Instant::now() + TIMEOUT);
    let mut answer = Vec::new();
    while answer.len() < MAX_REASON {
        if readable([Some(stream.as_fd())], deadline).map_err(talk)? == [false] {
            return Err(RequestError::Silent(name.clone()));
        }
        let mut part = [0; 512];
        match stream.read(&mut part).map_err(talk)? {
            0 => break,
            length => answer.extend(&part[..length]),
        }
    }
    match &answer[..] {
        RELOADED => Ok(()),
        [] => Err(RequestError::NoAnswer(name.clone())),
        reason => Err(RequestError::Refused {
            name: name.clone(),
            reason: String::from_utf8_lossy(reason).into_owned(),
        }),
    }
}

/// Fails unless the holder of the name is the process that owns the table. Who cannot ask the kernel (that
/// takes CAP_NET_ADMIN) believes processes of the same user only.
fn check_runs_the_instance(peer: Peer, name: &Name) -> Result<(), RequestError> {
    let own_user = geteuid();
    let table = Nftables::open().and_then(|nftables| nftables.table(&name.table()));
    let port = match table {
        Ok(None) => None,
        Ok(Some(table)) if table.owner.is_some() => table.owner,
        // Without an owner, the name is what says whose the table is.
        Ok(Some(_)) => return Ok(()),
        Err(_) if peer.user == Some(own_user.as_raw()) => return Ok(()),
        Err(_) => return Err(RequestError::NoAnswer(name.clone())),
    };
    let owner = port.map(|port| process::owner(port).pid);
    if owner.map(|pid| pid.map_or(Holder::Unseen, Holder::Process)) == Some(peer.process) {
        return Ok(());
    }
    let name = name.clone();
    Err(RequestError::OtherProcess { name, peer })
}
