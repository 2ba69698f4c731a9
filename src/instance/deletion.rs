//! Conntrack entries that the instance deletes: of connections that bypass its rules, or are forwarded no longer.

use super::InstanceError;
use super::flows::{self, ClaimMatcher, FlowMatcher};
use super::signals::Signals;
use crate::config::Config;
use crate::conntrack::{self, Conntrack, ConntrackError, Flow, Wanted};
use crate::logging::with_causes;
use crate::netlink::give_up_when;
use crate::nftables::Nftables;
use crate::rtnetlink::{Addresses, RtnetlinkError};
use crate::siblings::{self, Claims};
use log::{info, warn};
use thiserror::Error;

/// Deletes the conntrack entries of connections that an instance with this config forwarded, and that no
/// instance forwards any more; says how many.
pub fn delete_abandoned_flows(config: &Config) -> Result<usize, InstanceError> {
    // A socket of its own: after a replacement, the other one is the successor's.
    let nftables = Nftables::open()?;
    let mut claims = Vec::new();
    for table in siblings::instances(&nftables)? {
        let theirs = Claims::read(&Nftables::open()?, &table.name)?;
        claims.extend(theirs.map(ClaimMatcher::from));
    }
    let wanted = flows::can_be_forwarded(config);
    let ended = delete_flows(config, &wanted, &|matcher, flow| {
        matcher.is_forwarded(flow) && !claims.iter().any(|claims| claims.matches(flow))
    });
    Ok(deleted(ended))
}

/// Those that bypass the rules.
pub fn delete_all_stale_flows(config: &Config, signals: &Signals) {
    let wanted = [flows::can_be_stale(config), flows::can_be_half_open(config)];
    delete_stale_flows(config, &wanted.concat(), signals);
}

/// Of the wanted ones, those that bypass the rules. Gives up when a signal comes.
pub fn delete_stale_flows(config: &Config, wanted: &[Wanted], signals: &Signals) {
    let mut ended = Ok(0);
    give_up_when(signals.flag(), None, || {
        ended = delete_flows(config, wanted, &|matcher, flow| matcher.is_stale(flow));
    });
    if signals.have_come() {
        return;
    }
    match deleted(ended) {
        0 => {}
        ended => info!("deleted {ended} stale conntrack entries"),
    }
}

/// Why they are not deleted.
#[derive(Debug, Error)]
pub enum FlowsError {
    #[error(transparent)]
    Addresses(#[from] RtnetlinkError),
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
}

/// Deletes conntrack entries, which are among the wanted ones, and says how many.
pub fn delete_flows(
    config: &Config,
    wanted: &[Wanted],
    matches: &dyn Fn(&FlowMatcher<'_>, &Flow) -> bool,
) -> Result<usize, FlowsError> {
    if wanted.is_empty() || conntrack::is_empty() {
        return Ok(0);
    }
    let addresses = Addresses::read_of(config.listen.interfaces())?;
    let matcher = FlowMatcher::new(config, &addresses);
    Ok(Conntrack::open()?.delete(wanted, &|flow| matches(&matcher, flow))?)
}

/// Forwarding does not depend on it, so a failure is only worth a warning.
pub fn deleted(flows: Result<usize, FlowsError>) -> usize {
    flows.unwrap_or_else(|error| {
        let causes = with_causes(&error);
        warn!("conntrack entries are not deleted: {causes}");
        0
    })
}
