//! `NODEFWD_DRAIN`: waiting for running connections to end.

use super::events::{Event, Events};
use super::notify;
use super::rules::RulesError;
use crate::conntrack::{ConntrackError, FlowEvents};
use crate::lock::Holder;
use crate::netlink::Overrun;
use crate::nftables::NftablesError;
use crate::rtnetlink::RtnetlinkError;
use log::info;
use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why running connections cannot be waited for.
#[derive(Debug, Error)]
pub enum DrainError {
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    #[error(transparent)]
    Addresses(#[from] RtnetlinkError),
    #[error(transparent)]
    Close(#[from] NftablesError),
    #[error("cannot wait for the kernel's events of connections")]
    Events(#[from] io::Error),
    #[error("cannot keep the rules")]
    Rules(#[from] RulesError),
}

/// Progress is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts no new flows, and sleeps until none of those that `list` gives runs, `limit` is over, or a
/// second signal comes. Gives the process that has replaced the instance meanwhile, if one has.
///
/// `flow_events` must have been open since before the flows began: since Linux 5.19 the kernel sends an
/// event only for the end of a flow that began while a process listened
/// (net.netfilter.nf_conntrack_events).
pub fn wait(
    events: &mut Events<'_>,
    flow_events: &FlowEvents,
    limit: Duration,
    list: impl Fn() -> Result<HashSet<u32>, ConntrackError>,
) -> Result<Option<Holder>, DrainError> {
    let deadline = Instant::now() + limit;
    events.close()?;
    // Drops old events, of flows that will not be among the running ones.
    flow_events.ended(|_| ())?;
    let mut running = list()?;
    notify::status(format_args!(
        "draining: {} connections, for at most {limit:?}",
        running.len()
    ));
    let mut logged = Instant::now();
    while !running.is_empty() {
        let outcome = match events.next(Some(flow_events), Some(deadline))? {
            Event::Flows | Event::Host(_) => None,
            Event::TimeUp => Some("draining is over"),
            Event::Signal => Some("draining is cut short by a signal"),
            Event::Replaced(process) => return Ok(Some(process)),
        };
        if let Some(outcome) = outcome {
            info!("{outcome}: {} connections still run", running.len());
            return Ok(None);
        }
        let before = running.len();
        let Overrun(lost) = flow_events.ended(|flow| {
            running.remove(&flow);
        })?;
        if lost {
            let still = list()?;
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
