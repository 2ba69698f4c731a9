//! The signals that end the program, and HUP where it reads its file again.

use super::poll::readable;
use crate::netlink::is_ignored;
use nix::sys::signal::{SigSet, Signal};
use signal_hook::flag;
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Once registered, these signals do not kill the process. Until [`defer`](Self::defer) they end it at
/// once, with status 0; then they are queued: none is lost, and none interrupts an installation half-way.
pub struct Signals {
    queue: UnixStream,
    /// Whether a signal ends the process at once.
    exits: Arc<AtomicBool>,
    /// Whether a signal has come.
    has_come: Arc<AtomicBool>,
    /// Where HUP is queued if it ends nothing.
    reloads: Option<UnixStream>,
}

impl Signals {
    /// Registers TERM, INT, QUIT and HUP. For PID 1 of a container they would otherwise have no effect at
    /// all (pid_namespaces(7)). With `reloads`, HUP ends nothing; else a HUP that is ignored stays so, as
    /// nohup(1) wants it. INT and QUIT do not: shells ignore them for every command in the background of a
    /// script, but whoever sends one to that process wants it to end.
    pub fn register(reloads: bool) -> io::Result<Self> {
        let (queue, write) = UnixStream::pair()?;
        let exits = Arc::new(AtomicBool::new(true));
        let has_come = Arc::new(AtomicBool::new(false));
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
        let hangup = reloads.then(hangups).transpose()?;
        let is_left = |signal| signal == Signal::SIGHUP && (reloads || is_ignored(signal as i32));
        for signal in signals.into_iter().filter(|signal| !is_left(*signal)) {
            let signal = signal as i32;
            flag::register_conditional_shutdown(signal, 0, exits.clone())?;
            flag::register(signal, has_come.clone())?;
            pipe::register(signal, write.try_clone()?)?;
        }
        set.thread_unblock()?;
        Ok(Signals {
            queue,
            exits,
            has_come,
            reloads: hangup,
        })
    }

    /// Readable when HUP has come since [`take_reload`](Self::take_reload); `None` if it ends the program.
    pub fn reloads(&self) -> Option<BorrowedFd<'_>> {
        self.reloads.as_ref().map(AsFd::as_fd)
    }

    /// Forgets every HUP that has come: what is read from now on is what they asked for.
    pub fn take_reload(&self) -> io::Result<()> {
        let mut bytes = [0; 64];
        while let Some(mut queue) = self.reloads.as_ref() {
            match queue.read(&mut bytes) {
                Ok(64) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                read => return read.map(|_| ()),
            }
        }
        Ok(())
    }

    /// Has signals wait until they are asked for: from now on there is something to undo.
    pub fn defer(&self) {
        self.exits.store(false, Ordering::SeqCst);
    }

    /// Whether one of the signals has come.
    pub fn have_come(&self) -> bool {
        self.flag().load(Ordering::SeqCst)
    }

    /// True once one of the signals has come.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.has_come
    }

    /// Sleeps until one of the signals comes, or returns at once if one has come already.
    pub fn wait(&self) -> io::Result<()> {
        (&self.queue).read_exact(&mut [0])
    }

    /// Sleeps for this time, or until a signal comes, which is left to be waited for.
    pub fn sleep(&self, time: Duration) -> io::Result<()> {
        readable([Some(self.as_fd())], Some(Instant::now() + time)).map(|_| ())
    }
}

/// Where HUP is queued from now on.
fn hangups() -> io::Result<UnixStream> {
    let (queue, write) = UnixStream::pair()?;
    queue.set_nonblocking(true)?;
    pipe::register(Signal::SIGHUP as i32, write)?;
    Ok(queue)
}

impl AsFd for Signals {
    /// Readable when a signal has come that was not waited for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
