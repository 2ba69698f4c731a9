//! `nodefwd reload`: asks a running instance to read its file again, and waits for what comes of it.

use super::super::poll::readable;
use super::super::replace::{RELOAD, RELOADED};
use crate::config::Name;
use crate::lock::connect_to;
use nix::errno::Errno;
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
    #[error(
        "instance {0} closed the connection: only its own user and root may have it reload, and only a version that can"
    )]
    Closed(Name),
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
const MAX_REASON: u64 = 64 << 10;

/// Has the instance of this name read its file again. Returns when its rules have changed.
pub fn request(name: &Name) -> Result<(), RequestError> {
    let talk = |error: io::Error| match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => RequestError::Closed(name.clone()),
        _ => RequestError::Talk(name.clone(), error),
    };
    let mut stream = match connect_to(&name.table(), None) {
        Ok(stream) => stream,
        Err(Errno::ECONNREFUSED) => return Err(RequestError::NotRunning(name.clone())),
        Err(errno) => return Err(talk(errno.into())),
    };
    stream.write_all(RELOAD).map_err(talk)?;
    let deadline = Some(Instant::now() + TIMEOUT);
    if readable([Some(stream.as_fd())], deadline).map_err(talk)? == [false] {
        return Err(RequestError::Silent(name.clone()));
    }
    // It has written all before it hangs up.
    stream.set_nonblocking(false).map_err(talk)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(talk)?;
    let mut answer = Vec::new();
    stream
        .take(MAX_REASON)
        .read_to_end(&mut answer)
        .map_err(talk)?;
    match &answer[..] {
        RELOADED => Ok(()),
        [] => Err(RequestError::Closed(name.clone())),
        reason => Err(RequestError::Refused {
            name: name.clone(),
            reason: String::from_utf8_lossy(reason).into_owned(),
        }),
    }
}
