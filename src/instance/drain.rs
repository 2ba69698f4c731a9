//! `NODEFWD_DRAIN`: waiting for running connections to end.

use super::events::{Event, Events};
use super::notify;
use super::rules::RulesError;
use crate::conntrack::ConntrackError;
use crate::lock::Holder;
use crate::nftables::NftablesError;
use crate::rtnetlink::RtnetlinkError;
use log::info;
use std::collections::HashSet;
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
    #[error("cannot keep the rules")]
    Rules(#[from] RulesError),
}

/// How long to wait at least before looking again whether connections still run.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How much longer than a look the wait for the next one is, so that draining takes at most this part of
/// one processor.
const LOOK_SHARE: u32 = 20;

/// With rules that accept no new flows, sleeps until none of those that `list` gives runs, `limit` is over, or a
/// second signal comes. Gives the process that has replaced the instance meanwhile, if one has.
///
/// It looks again and again: the kernel's events would come for each connection of the whole network
/// namespace, which overruns their queue in a flood, and do not come for those that began unobserved
/// (`net.netfilter.nf_conntrack_events`).
pub fn wait(
    events: &mut Events<'_>,
    limit: Duration,
    list: impl Fn() -> Result<HashSet<u32>, ConntrackError>,
) -> Result<Option<Holder>, DrainError> {
    let deadline = Instant::now() + limit;
    let (mut running, mut next_look) = look(&list)?;
    let connections = running.len();
    notify::status(
        connections,
        format_args!("draining: {connections} connections, for at most {limit:?}"),
    );
    while !running.is_empty() {
        let outcome = match events.next(Some(deadline.min(next_look)))? {
            Event::TimeUp if Instant::now() < deadline => {
                let before = running.len();
                let still;
                (still, next_look) = look(&list)?;
                running.retain(|flow| still.contains(flow));
                if (1..before).contains(&running.len()) {
                    let connections = running.len();
                    notify::status(
                        connections,
                        format_args!("draining: {connections} connections"),
                    );
                }
                continue;
            }
            Event::Host(_) | Event::Health | Event::Names => continue,
            Event::Reload => {
                events.answer_reload(Err(
                    "it is ending, and only lets running connections finish",
                ));
                continue;
            }
            Event::TimeUp => "draining is over",
            Event::Signal => "draining is cut short by a signal",
            Event::Replaced(process) => return Ok(Some(process)),
        };
        info!("{outcome}: {} connections still run", running.len());
        return Ok(None);
    }
    info!("drained: no connection runs any more");
    Ok(None)
}

/// The flows that run, and when to look again.
fn look(
    list: &impl Fn() -> Result<HashSet<u32>, ConntrackError>,
) -> Result<(HashSet<u32>, Instant), ConntrackError> {
    let begin = Instant::now();
    let running = list()?;
    let end = Instant::now();
    Ok((running, end + LOOK_INTERVAL.max((end - begin) * LOOK_SHARE)))
}
