//! Sleeping until one of several files has something to read.

use crate::logging;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// How long standard error is left alone that reports room and has too little.
const LOG_PAUSE: Duration = Duration::from_millis(100);

/// Sleeps until one of the files is readable, or has been closed at its other end, and says which. None
/// is: the deadline has come. Meanwhile, lines of the log that are missing are made up for.
pub fn readable<const N: usize>(
    files: [Option<BorrowedFd<'_>>; N],
    deadline: Option<Instant>,
) -> io::Result<[bool; N]> {
    let open = files.iter().flatten();
    let mut sources: Vec<PollFd<'_>> = open
        .map(|file| PollFd::new(*file, PollFlags::POLLIN))
        .collect();
    let mut pause = None;
    loop {
        let log = logging::full().filter(|_| pause.is_none());
        let count = sources.len();
        sources.extend(log.map(|file| PollFd::new(file, PollFlags::POLLOUT)));
        sleep(&mut sources, [deadline, pause].into_iter().flatten().min())?;
        pause = None;
        let has_room = |log: PollFd<'_>| log.any().unwrap_or(false);
        if sources.drain(count..).any(has_room) && !logging::catch_up() {
            pause = Some(Instant::now() + LOG_PAUSE);
        }
        let is_ready = |source: &PollFd<'_>| source.any().unwrap_or(false);
        let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now());
        if is_over || sources.iter().any(is_ready) {
            let mut ready = sources.iter().map(is_ready);
            return Ok(files.map(|file| file.is_some() && ready.next().unwrap_or(false)));
        }
    }
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
