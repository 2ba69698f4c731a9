//! Standard error, which nobody may read: writing to it never holds up the program for longer than a
//! moment. Lines that cannot be written are dropped and counted, and the count is written once that works
//! again.
//!
//! `O_NONBLOCK` belongs to the open file description, which other processes share, so it is not set there:
//! a pipe and a terminal are opened once more, and a socket has a flag for each call.

use super::format;
use nix::errno::Errno;
use nix::libc::STDERR_FILENO;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::{libc, unistd};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, IsTerminal, Stderr as Standard, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a line may wait until the reader has made room for it. Those after it do not wait.
const MOMENT: Duration = Duration::from_millis(100);

static STANDARD: LazyLock<Standard> = LazyLock::new(io::stderr);

static STATE: Mutex<State> = Mutex::new(State {
    file: Kind::Shared,
    rest: Vec::new(),
    lost: 0,
    is_full: false,
});

/// Where the log goes.
pub struct Stderr;

impl Stderr {
    /// Finds out how to write without waiting. To be called once, before anything is written.
    pub fn open() -> Self {
        lock().file = Kind::find();
        Stderr
    }
}

impl Write for Stderr {
    /// Writes a line, or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        lock().line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What standard error is.
pub fn metadata() -> io::Result<Metadata> {
    File::from(STANDARD.as_fd().try_clone_to_owned()?).metadata()
}

/// Standard error, if lines are missing because it was full: once it has room, call [`catch_up`].
pub fn full() -> Option<BorrowedFd<'static>> {
    lock().is_full.then(|| STANDARD.as_fd())
}

/// Writes how many lines are missing, if there is room now. Says whether there was any: a terminal may
/// report room and have too little.
pub fn catch_up() -> bool {
    let mut state = lock();
    let before = (state.rest.len(), state.lost);
    state.catch_up();
    before != (state.rest.len(), state.lost)
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How to write without waiting.
#[derive(Clone, Copy)]
enum Kind {
    Socket,
    /// Its description is this process's own, and does not block.
    Own,
    /// Anything else: a regular file, or what cannot be opened once more. It is asked for room before each
    /// write, of no more than a pipe with any room takes at once (pipe(7)).
    Shared,
}

impl Kind {
    fn find() -> Self {
        let Ok(metadata) = metadata() else {
            return Kind::Shared;
        };
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Kind::Socket;
        }
        let reopened = |()| {
            let mut options = OpenOptions::new();
            options.write(true);
            options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            let file = options.open("/proc/self/fd/2")?;
            Ok::<_, io::Error>(unistd::dup2_stderr(file)?)
        };
        if (kind.is_fifo() || STANDARD.is_terminal()) && reopened(()).is_ok() {
            return Kind::Own;
        }
        Kind::Shared
    }

    /// Writes as much as there is room for; EAGAIN if there is none.
    fn write(self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Kind::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(STDERR_FILENO, bytes, flags)
            }
            Kind::Own => unistd::write(STANDARD.as_fd(), bytes),
            Kind::Shared if !has_room(Duration::ZERO) => Err(Errno::EAGAIN),
            Kind::Shared => {
                let part = bytes.len().min(libc::PIPE_BUF);
                unistd::write(STANDARD.as_fd(), &bytes[..part])
            }
        }
    }

    /// Writes all of it within this time, or says how much it has written and why no more.
    fn write_all(self, bytes: &[u8], limit: Duration) -> (usize, Option<Errno>) {
        let deadline = Instant::now() + limit;
        let mut written = 0;
        while written < bytes.len() {
            match self.write(&bytes[written..]) {
                Ok(more) => written += more,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || !has_room(left) {
                        return (written, Some(Errno::EAGAIN));
                    }
                }
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }
}

/// Whether standard error has room, or has failed, within this time.
fn has_room(limit: Duration) -> bool {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut files = [PollFd::new(STANDARD.as_fd(), PollFlags::POLLOUT)];
    poll(&mut files, timeout).is_ok_and(|ready| ready > 0)
}

struct State {
    file: Kind,
    /// The end of a line of which a part is written.
    rest: Vec<u8>,
    /// How many lines are missing since.
    lost: usize,
    /// Whether that is because there was no room.
    is_full: bool,
}

impl State {
    fn line(&mut self, line: &[u8]) {
        if !self.catch_up() || !self.write(line, MOMENT) {
            self.lost += 1;
        }
    }

    /// Writes what is missing. Says whether another line may follow.
    fn catch_up(&mut self) -> bool {
        let rest = std::mem::take(&mut self.rest);
        let (written, error) = self.file.write_all(&rest, Duration::ZERO);
        self.rest = rest[written..].to_vec();
        self.is_full = error == Some(Errno::EAGAIN);
        if error.is_none() && self.lost > 0 {
            let line = format::lost(self.lost);
            if !self.write(line.as_bytes(), Duration::ZERO) {
                return false;
            }
            self.lost = 0;
        }
        error.is_none() && self.rest.is_empty()
    }

    /// Writes a line. Of one that is written in part, the rest follows before any other line.
    fn write(&mut self, line: &[u8], limit: Duration) -> bool {
        let (written, error) = self.file.write_all(line, limit);
        self.is_full = error == Some(Errno::EAGAIN);
        if error.is_some() && written > 0 {
            // What has failed otherwise may work later: that begins on a line of its own.
            let rest: &[u8] = if self.is_full {
                &line[written..]
            } else {
                b"\n"
            };
            self.rest = rest.to_vec();
        }
        error.is_none() || self.is_full && written > 0
    }
}
