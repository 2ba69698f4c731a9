//! Looks names of hosts up: in /etc/hosts, then with the name servers of /etc/resolv.conf. Not with the C
//! library: linked statically it cannot load the modules of nsswitch.conf(5), and it does not tell how long
//! an answer holds.

#[cfg(feature = "names")]
mod conf;
#[cfg(feature = "names")]
mod exchange;
#[cfg(feature = "names")]
mod hosts;
#[cfg(feature = "names")]
mod lookup;
#[cfg(feature = "names")]
mod message;
// Without names no thread is ever made: what the C library needs for them takes 140 KB.
#[cfg(not(feature = "names"))]
mod none;
#[cfg(feature = "names")]
mod search;

#[cfg(feature = "names")]
pub use lookup::{Lookup, Resolver};
#[cfg(not(feature = "names"))]
pub use none::{Lookup, Resolver};

use crate::config::{Answer, HostName};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long all look-ups of names that begin together may take.
pub const MAX_TIME: Duration = Duration::from_secs(10);

/// The same for a reload: the instance waits for them, and a process that would replace it for its reply, as long as
/// REPLY_TIMEOUT.
pub const MAX_TIME_OF_RELOAD: Duration = Duration::from_secs(5);

/// After how long a name is looked up again that could not be.
pub const RETRY_PAUSE: Duration = Duration::from_secs(15);

/// Looks names up, and waits for the answers: no longer than this time, or until the other file is readable.
pub fn look_up(
    names: &[HostName],
    max_time: Duration,
    until: Option<BorrowedFd<'_>>,
) -> Vec<Answer> {
    let lookup = match Lookup::begin(names, max_time) {
        Ok(lookup) => lookup,
        Err(error) => return failed(names, error),
    };
    let files = [Some(lookup.as_fd()), until].into_iter().flatten();
    let mut files: Vec<PollFd<'_>> = files
        .map(|file| PollFd::new(file, PollFlags::POLLIN))
        .collect();
    let waited = loop {
        match poll(&mut files, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            waited => break waited,
        }
    };
    let is_over = waited.is_ok() && files[0].any() == Some(true);
    if is_over {
        lookup.answers()
    } else {
        failed(names, "a signal has come")
    }
}

/// Answers for names that could not be looked up.
pub fn failed(names: &[HostName], reason: impl ToString) -> Vec<Answer> {
    let reason = reason.to_string();
    let expires = Instant::now() + RETRY_PAUSE;
    let failed = |name| Answer::failed(name, &reason, expires);
    names.iter().map(failed).collect()
}
