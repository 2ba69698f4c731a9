//! The signals that end the program.

use crate::poll::readable;
use nix::sys::signal::{SigSet, Signal};
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

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
    pub fn wait(&self) -> io::Result<()> {
        (&self.0).read_exact(&mut [0])
    }

    /// Sleeps for this time, or until a signal comes that nobody has waited for.
    pub fn sleep(&self, time: Duration) -> io::Result<()> {
        readable([Some(self.as_fd())], Some(Instant::now() + time)).map(|_| ())
    }
}

impl AsFd for Signals {
    /// Can be read from when a signal has come that nobody has waited for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
