//! The signals that end the program.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// From its making on, the ending signals are taken down instead of ending the process: none is
/// lost, and none interrupts an installation half-way.
pub struct Signals(UnixStream);

impl Signals {
    /// Takes over TERM, INT, HUP and QUIT. As PID 1 of a container they would have no effect at all
    /// otherwise (pid_namespaces(7)).
    pub fn register() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let signals = [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ];
        // signal-hook's handler is in place a moment before it knows what to do: a signal that comes
        // between the two would be lost, so all of them are held back meanwhile.
        let set: SigSet = signals.into_iter().collect();
        set.thread_block()?;
        for signal in signals {
            pipe::register(signal as i32, write.try_clone()?)?;
        }
        set.thread_unblock()?;
        Ok(Signals(read))
    }

    /// Sleeps until one of the signals comes, or returns at once if one has come already.
    pub fn wait(&mut self) -> io::Result<()> {
        self.0.read_exact(&mut [0])
    }

    /// Sleeps for this time at most; says whether a signal has come that nobody has waited for.
    pub fn arrive_within(&self, time: Duration) -> io::Result<bool> {
        let milliseconds = u16::try_from(time.as_millis()).unwrap_or(u16::MAX);
        let mut sources = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        match poll(&mut sources, PollTimeout::from(milliseconds)) {
            Ok(_) | Err(Errno::EINTR) => Ok(sources[0].any().unwrap_or(false)),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    /// Can be read from when a signal has come that nobody has waited for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
