//! Looks names of hosts up: in /etc/hosts, then with the name servers of /etc/resolv.conf. Not with the C
//! library: linked statically it cannot load the modules of nsswitch.conf(5), and it does not tell how long
//! an answer holds.
//!
//! A look-up runs in a thread of its own, which ends by itself in time: whoever waits for it can wait for
//! something else too.

#[cfg(feature = "names")]
mod conf;
#[cfg(feature = "names")]
mod exchange;
#[cfg(feature = "names")]
mod hosts;
#[cfg(feature = "names")]
mod message;
#[cfg(feature = "names")]
mod search;

use crate::config::{Answer, HostName};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long all look-ups of names that begin together may take.
pub const MAX_TIME: Duration = Duration::from_secs(10);

/// After how long a name is looked up again that could not be.
pub const RETRY_PAUSE: Duration = Duration::from_secs(15);

/// A look-up that runs.
pub struct Lookup {
    names: Vec<HostName>,
    thread: JoinHandle<Vec<Answer>>,
    /// Its other end is closed when the look-up is over.
    end: UnixStream,
}

impl Lookup {
    /// Begins to look up names.
    pub fn begin(names: &[HostName]) -> io::Result<Self> {
        let (end, open) = UnixStream::pair()?;
        let names = names.to_vec();
        let work = names.clone();
        let thread = Builder::new().name("resolver".into()).spawn(move || {
            let _open = open;
            all(&work)
        })?;
        Ok(Lookup { names, thread, end })
    }

    /// The answers, one for each name. Waits for them.
    pub fn answers(self) -> Vec<Answer> {
        self.thread
            .join()
            .unwrap_or_else(|_| failed(&self.names, "the look-up has ended early"))
    }
}

impl AsFd for Lookup {
    /// Readable when the answers are there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// Looks names up, and waits for the answers: no longer than until the other file is readable.
pub fn look_up(names: &[HostName], until: Option<BorrowedFd<'_>>) -> Vec<Answer> {
    let lookup = match Lookup::begin(names) {
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

#[cfg(feature = "names")]
fn all(names: &[HostName]) -> Vec<Answer> {
    search::all(names, Instant::now() + MAX_TIME)
}

/// There are none: config has refused them.
#[cfg(not(feature = "names"))]
fn all(names: &[HostName]) -> Vec<Answer> {
    failed(names, "this build of nodefwd has no resolver")
}
