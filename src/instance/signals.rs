//! The signals that end the program.

use super::poll::readable;
use nix::sys::signal::{SigSet, Signal};
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Once registered, these signals are queued instead of ending the process: none is lost, and none
/// interrupts an installation half-way.
pub struct Signals(UnixStream);

impl Signals {
    /// Registers TERM, INT, HUP and QUIT. For PID 1 of a container they would otherwise have no effect at
    /// all (pid_namespaces(7)).
    pub fn register() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let signals = [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ];
        // signal-hook installs its handler a moment before the handler's action: a signal between the
        // two would be lost, so all of them are blocked meanwhile.
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

    /// Sleeps for this time, or until a signal comes, which is left to be waited for.
    pub fn sleep(&self, time: Duration) -> io::Result<()> {
        readable([Some(self.as_fd())], Some(Instant::now() + time)).map(|_| ())
    }
}

impl AsFd for Signals {
    /// Readable when a signal has come that was not waited for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
