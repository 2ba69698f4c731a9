//! `nodefwd reload`: asks a running instance to read its file again, and waits for what comes of it.

use super::super::poll::readable;
use super::super::replace::{AskError, Nonce, RELOAD, RELOADED, ask, connect};
use crate::config::Name;
use crate::lock::{self, Peer, Standing};
use crate::nftables::{Nftables, NftablesError};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::thread::sleep;
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
    #[error("instance {0} gives no answer: it is just ending, or its version knows no reload")]
    NoAnswer(Name),
    #[error(
        "instance {0} did not answer within {TIMEOUT:?}: see its log; it may be suspended (SIGSTOP)"
    )]
    Silent(Name),
    #[error("cannot ask instance {0}")]
    Ask(Name, #[source] AskError),
    #[error(transparent)]
    Nftables(#[from] NftablesError),
}

/// How long a reload may take. Large rulesets take seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long an instance is asked again that hangs up, and after how long each time.
const MAX_ASKING: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// As much of a reason as is read.
const MAX_REASON: usize = 4 << 10;

/// Has the instance of this name read its file again. Returns when its rules have changed. It takes the
/// capability that the instance has.
pub fn request(name: &Name) -> Result<(), RequestError> {
    let nftables = Nftables::open()?;
    let not_running = || RequestError::NotRunning(name.clone());
    let peer = Peer::with_name(&name.table()).ok_or_else(not_running)?;
    // It is not believed otherwise: any process can bind the name.
    if lock::standing(&nftables, name, true, peer)? != Standing::Instance {
        let name = name.clone();
        return Err(RequestError::OtherProcess { name, peer });
    }
    let failed = |error| match error {
        AskError::NotListening => not_running(),
        AskError::HungUp | AskError::NoNonce => RequestError::NoAnswer(name.clone()),
        error => RequestError::Ask(name.clone(), error),
    };
    let talk = |error: io::Error| failed(error.into());
    let nonce = Nonce::new().map_err(talk)?;
    let table = name.table();
    let try_once = || {
        let stream = connect(&table, nonce)?;
        let proof = ask(&stream, nonce, RELOAD, true, &nftables)?;
        Ok((stream, proof))
    };
    let begin = Instant::now();
    let (mut stream, _proof) = loop {
        match try_once() {
            // Other clients may have taken its place.
            Err(AskError::HungUp) if begin.elapsed() < MAX_ASKING => sleep(RETRY_INTERVAL),
            asked => break asked.map_err(failed)?,
        }
    };
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
