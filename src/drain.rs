//! Waiting for the running connections to end.

use crate::events::{Event, Events};
use crate::flow::Flow;
use crate::lock::Holder;
use crate::netfilter::{Connection, FlowEvents, Lost, NetfilterError};
use crate::notify;
use crate::rules::RulesError;
use log::info;
use std::io;
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
    /// The rules were lost meanwhile.
    #[error("cannot keep the rules")]
    Rules(#[from] RulesError),
}

/// Progress is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Takes no new flows, and sleeps until none runs any more that `ours` says so of, `limit` is over, or
/// one more signal comes. Gives the process that has taken the instance's place meanwhile, if one has.
///
/// `flow_events` must have been open since before the flows began: since Linux 5.19 the kernel tells
/// the end of those flows only that began while somebody listened (net.netfilter.nf_conntrack_events).
pub fn wait(
    connection: &Connection,
    events: &mut Events<'_>,
    flow_events: &FlowEvents,
    limit: Duration,
    ours: impl Fn(&Flow) -> bool,
) -> Result<Option<Holder>, DrainError> {
    let deadline = Instant::now() + limit;
    events.close()?;
    // Old news, of flows that the count will not hold.
    flow_events.ended(|_| ())?;
    let mut running = connection.running_flows(&ours)?;
    notify::status(format_args!(
        "draining: {} connections, for at most {limit:?}",
        running.len()
    ));
    let mut logged = Instant::now();
    while !running.is_empty() {
        let outcome = match events.next(Some(flow_events), Some(deadline))? {
            Event::Flows => None,
            Event::TimeUp => Some("draining is over"),
            Event::Signal => Some("draining is cut short by a signal"),
            Event::Replaced(process) => return Ok(Some(process)),
        };
        if let Some(outcome) = outcome {
            info!("{outcome}: {} connections still run", running.len());
            return Ok(None);
        }
        let before = running.len();
        let Lost(lost) = flow_events.ended(|flow| {
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
    Ok(None)
}
