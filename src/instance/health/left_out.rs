//! What comes of destinations that fail: which are left out, and what becomes of connections to them.

use super::super::deletion::{delete_flows, deleted};
use super::super::events::Events;
use super::super::flows;
use super::Health;
use crate::config::{Config, Destination, Down, Forward, Service};
use crate::nftables::list::Table;
use crate::status;
use log::{info, warn};

/// The destinations that the table of this name leaves out, as the instance has them that is to be replaced. They
/// are tried from then on like the others.
pub fn take_over(config: &Config, health: Option<&mut Health>) -> Down {
    let Some(health) = health.filter(|_| config.replace) else {
        return Down::default();
    };
    let table = Table::inet(&config.name.table());
    // It may not be there.
    let forwards = status::forwards_of(&table, status::MAX_ROWS).unwrap_or_default();
    let destinations = forwards
        .iter()
        .flatten()
        .flat_map(|forward| &forward.destinations);
    let down = destinations.filter(|destination| destination.up == Some(false));
    health.assume(&down.map(|destination| destination.to).collect());
    health.down()
}

/// Leaves out the destinations that fail now, and says so; with `NODEFWD_HEALTH_RESET` ends the connections to
/// those that did not before. Gives whether the rules have changed.
pub fn apply(config: &Config, events: &mut Events<'_>) -> bool {
    let Some((before, now)) = events.leave_out_failed(config) else {
        return false;
    };
    let all_fail = |forward: &Forward, down| forward.failed(down).iter().all(|failed| *failed);
    for forward in config.reachable_forwards() {
        if all_fail(forward, &now) && !all_fail(forward, &before) {
            let service = forward.service;
            warn!("all destinations of {service} fail: they get connections as if none did");
        }
    }
    if config.health_reset {
        let ended = end_flows(config, &now, &before);
        if ended > 0 {
            info!("deleted the conntrack entries of {ended} connections to destinations that fail");
        }
    }
    true
}

/// Deletes the conntrack entries of connections to destinations that are left out now and were not before.
fn end_flows(config: &Config, now: &Down, before: &Down) -> usize {
    let wanted = flows::can_be_forwarded(config);
    let newly = |forward: &Forward| {
        let (now, before) = (forward.left_out(now), forward.left_out(before));
        let destinations = forward.destinations.iter().zip(now.iter().zip(before));
        let newly = destinations.filter(|(_, (now, before))| **now && !before);
        newly.map(|(to, _)| *to).collect()
    };
    let newly: Vec<Down> = config.forwards.iter().map(newly).collect();
    let service = |forward: &Forward| forward.service;
    let ended = delete_flows(config, &wanted, &|matcher, flow| {
        let made_to = (flow.family, flow.protocol, flow.port);
        let place = Service::position(&config.forwards, service, made_to);
        let to = |to: &Destination| Some((to.address, to.ports.first())) == flow.backend;
        let to_failed = |place: usize| newly[place].iter().any(to);
        place.is_some_and(to_failed) && matcher.is_forwarded(flow)
    });
    deleted(ended)
}
