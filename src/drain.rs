//! Waiting for the running connections to end.

use crate::flow::Flow;
use crate::netfilter::{Connection, FlowEvents, Lost, NetfilterError};
use crate::notify;
use crate::signals::Signals;
use log::info;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why it cannot be waited for.
#[derive(Debug, Error)]
pub enum DrainError {
    /// The flows are out of reach.
    #[error(transparent)]
    Flows(#[from] NetfilterError),
    /// The kernel tells nothing of them.
    #[error("cannot wait for the kernel's news of connections")]
    Events(#[from] io::Error),
}

/// Progress is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Sleeps until no flow runs any more that `ours` says so of, `limit` is over, or one more signal
/// comes. New flows must not be taken any more.
///
/// `events` must have been open since before the flows began: since Linux 5.19 the kernel tells the
/// end of those flows only that began while somebody listened (net.netfilter.nf_conntrack_events).
pub fn wait(
    connection: &Connection,
    events: &FlowEvents,
    signals: &Signals,
    limit: Duration,
    ours: impl Fn(&Flow) -> bool,
) -> Result<(), DrainError> {
    let deadline = Instant::now() + limit;
    // Old news, of flows that the count will not hold.
    events.ended(|_| ())?;
    let mut running = connection.running_flows(&ours)?;
    notify::status(format_args!(
        "draining: {} connections, for at most {limit:?}",
        running.len()
    ));
    let mut logged = Instant::now();
    while !running.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            info!("draining is over: {} connections still run", running.len());
            return Ok(());
        }
        if !sleep(signals, events, left)? {
            info!(
                "draining is cut short by a signal: {} connections still run",
                running.len()
            );
            return Ok(());
        }
        let before = running.len();
        let Lost(lost) = events.ended(|flow| {
            running.remove(&flow);
        })?;
        if lost {
            let still = connection.running_flows(&ours)?;
            running.retain(|flow| still.contains(flow));
        }
        if running.len() < before && logged.elapsed() >= LOG_INTERVAL {
            notify::status(format_args!("draining: {} connections", running.len()));
            logged = Instant::now();
        }
    }
    info!("drained: no connection runs any more");
    Ok(())
}

/// Sleeps until there is news of flows or the time is up; gives false at a signal.
fn sleep(signals: &Signals, events: &FlowEvents, limit: Duration) -> io::Result<bool> {
    let mut sources = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(events.as_fd(), PollFlags::POLLIN),
    ];
    // Rounded up, so that it never wakes before the time is up.
    let milliseconds = i32::try_from(limit.as_millis() + 1).unwrap_or(i32::MAX);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    match poll(&mut sources, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(!sources[0].any().unwrap_or(false)),
        Err(error) => Err(error.into()),
    }
}
