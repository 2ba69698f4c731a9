//! Sleeping until one of several files has something to read.

use crate::logging;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// Sleeps until one of the files is readable, or has been closed at its other end, and says which. None
/// is: the deadline has come.
pub fn readable<const N: usize>(
    files: [Option<BorrowedFd<'_>>; N],
    deadline: Option<Instant>,
) -> io::Result<[bool; N]> {
    let mut sources: Vec<PollFd<'_>> = files
        .iter()
        .flatten()
        .map(|file| PollFd::new(*file, PollFlags::POLLIN))
        .collect();
    let log = logging::full().map(|file| PollFd::new(file, PollFlags::POLLOUT));
    sources.extend(log.clone());
    sleep(&mut sources, deadline)?;
    if log.and_then(|_| sources.pop()?.any()) == Some(true) {
        logging::catch_up();
    }
    let mut ready = sources.iter().map(|source| source.any().unwrap_or(false));
    Ok(files.map(|file| file.is_some() && ready.next().unwrap_or(false)))
}

fn sleep(sources: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        match poll(sources, timeout(deadline)) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Rounded up, so that the sleep does not end before the deadline.
fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let milliseconds = left.as_nanos().div_ceil(1_000_000);
    i32::try_from(milliseconds)
        .ok()
        .and_then(|milliseconds| PollTimeout::try_from(milliseconds).ok())
        .unwrap_or(PollTimeout::MAX)
}
