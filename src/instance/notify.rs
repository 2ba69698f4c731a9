//! Notifies a service manager that asks for it: the protocol of sd_notify(3), one datagram of
//! `VARIABLE=VALUE` lines at a time. Tells Kubernetes why a container ends.

use crate::text::Printable;
use log::{debug, info};
use nix::time::{ClockId, clock_gettime};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fmt, io};

/// How long the removal of the rules may take after a drain.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a manager that does not read may hold up the program, in all: nothing waits for one that has done
/// so once. A signal ends the wait at once (signal(7) on SO_SNDTIMEO).
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a notification could not be sent.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// Where Kubernetes reads why a container has ended, unless its terminationMessagePath says otherwise: a file
/// that the kubelet puts there.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// How long a reason may be: the kubelet takes 4096 bytes, and so does systemd of a whole datagram
/// (NOTIFY_BUFFER_MAX).
const MAX_REASON: usize = 4000;

/// Forwarding has begun; `status` says what is forwarded.
pub fn ready(status: &str) {
    send(&format!("READY=1\nSTATUS={}\n", Printable(status)));
}

/// A change of the rules begins; [`ready`] ends it, or [`not_reloaded`]. The manager tells by the time
/// which of its requests is meant (sd_notify(3)).
pub fn reloading() {
    if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
        let microseconds = Duration::from(now).as_micros();
        send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n"));
    }
}

/// The rules are as before, for this reason.
pub fn not_reloaded(reason: &str) {
    let reason = Printable(reason);
    send(&format!("READY=1\nSTATUS=not reloaded: {reason}\n"));
}

/// What is forwarded has changed.
pub fn forwarding(status: &str) {
    send(&format!("STATUS={}\n", Printable(status)));
}

/// The rules are in the kernel, but packets are not forwarded, for this reason.
pub fn not_forwarding(reason: &str) {
    let reason = Printable(reason);
    send(&format!("STATUS=not ready: {reason}\n"));
}

/// Forwarding ends, after running connections have had at most `drain` to end. The manager's own limit,
/// which counts from its signal on, may be shorter.
pub fn stopping(drain: Duration) {
    let extension = if drain.is_zero() {
        String::new()
    } else {
        let timeout = (drain + REMOVAL_TIMEOUT).as_micros();
        format!("EXTEND_TIMEOUT_USEC={timeout}\n")
    };
    send(&format!("STOPPING=1\nSTATUS=stopping\n{extension}"));
}

/// What the program does now, and with how many connections, on one line; the log has it too.
pub fn status(connections: usize, status: fmt::Arguments<'_>) {
    info!(connections; "{status}");
    send(&format!("STATUS={}\n", Printable(status)));
}

/// The program ends without success, for this reason, which the log has too.
pub fn failed(reason: &str) {
    let reason = Printable(reason).to_string();
    let reason = first_bytes(&reason, MAX_REASON);
    send(&format!("STATUS={reason}\n"));
    if let Err(error) = terminate(reason) {
        debug!("cannot write {TERMINATION_LOG}: {error}");
    }
}

/// As much of a text as so many bytes hold, without a part of a character.
fn first_bytes(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Writes the reason where Kubernetes looks for it, if there is such a file.
fn terminate(reason: &str) -> io::Result<()> {
    if !fs::metadata(TERMINATION_LOG).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).truncate(true).open(TERMINATION_LOG)?;
    writeln!(file, "{reason}")
}

/// Forwarding does not depend on what its manager knows, so a failure is worth no more than a debug
/// line.
fn send(message: &str) {
    if let Err(error) = try_send(message) {
        HAS_FAILED.store(true, Ordering::Relaxed);
        debug!("cannot notify the service manager: {error}");
    }
}

fn try_send(message: &str) -> io::Result<()> {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    if HAS_FAILED.load(Ordering::Relaxed) {
        sender.set_nonblocking(true)?;
    }
    sender.set_write_timeout(Some(SEND_TIMEOUT))?;
    sender.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(first_bytes("why", 4), "why");
        assert_eq!(first_bytes("why", 3), "why");
        assert_eq!(first_bytes("why", 2), "wh");
        // Two bytes each.
        assert_eq!(first_bytes("ää", 3), "ä");
        assert_eq!(first_bytes("ää", 1), "");
        // The kubelet and systemd take a whole datagram with it.
        let message = format!("STATUS={}\n", first_bytes(&"ä".repeat(9000), MAX_REASON));
        assert!((4000..4096).contains(&message.len()), "{}", message.len());
    }
}
