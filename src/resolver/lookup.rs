//! A look-up in a thread of its own, which ends by itself in time: whoever waits for it can wait for something
//! else too.

use super::{failed, search};
use crate::config::{Answer, HostName};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// A look-up that runs.
pub struct Lookup {
    names: Vec<HostName>,
    thread: JoinHandle<Vec<Answer>>,
    /// Its other end is closed when the look-up is over.
    end: UnixStream,
}

/// That names can be looked up.
pub struct Resolver;

impl Resolver {
    /// A build without names has none.
    pub fn new() -> Option<Self> {
        Some(Resolver)
    }
}

impl Lookup {
    /// Begins to look up names, which takes no longer than this time.
    pub fn begin(names: &[HostName], max_time: Duration) -> io::Result<Self> {
        let (end, open) = UnixStream::pair()?;
        let names = names.to_vec();
        let work = names.clone();
        let deadline = Instant::now() + max_time;
        let thread = Builder::new().name("resolver".into()).spawn(move || {
            let _open = open;
            search::all(&work, deadline)
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
