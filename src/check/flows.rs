//! Connections that the kernel knows of, and that have had no answer.

use super::{Finding, Level};
use crate::config::{Config, Destination, Forward, Service, first_few};
use crate::conntrack::{Conntrack, ConntrackError, Flow};
use std::collections::BTreeMap;

/// Destinations of which no connection has had an answer, though there are some. One that others got an
/// answer from is up, and a cause that was removed may have left connections.
pub fn unanswered(config: &Config) -> Result<Option<Finding>, ConntrackError> {
    let services = config.reachable_forwards().map(|forward| forward.service);
    let flows = Conntrack::open()?.translated(services)?;
    let mut found: BTreeMap<Destination, (usize, bool)> = BTreeMap::new();
    for flow in &flows {
        if let Some(to) = destination(flow, config) {
            let (count, replied) = found.entry(to).or_default();
            *count += 1;
            *replied |= flow.replied;
        }
    }
    found.retain(|_, (_, replied)| !*replied);
    let list = found
        .iter()
        .map(|(to, (count, _))| format!("{count} to {to}"));
    let text = format!(
        "connections of which none has had an answer: {}: is a server there, and does it route its replies back to this host? nodefwd check --connect tries it",
        first_few(list)
    );
    let finding = || Finding::new(Level::Doubt, "connections", text);
    Ok((!found.is_empty()).then(finding))
}

/// Where a flow was forwarded to, if that is a destination of its service now.
fn destination(flow: &Flow, config: &Config) -> Option<Destination> {
    let service = |forward: &Forward| forward.service;
    let kind = (flow.family, flow.protocol, flow.port);
    let forward = config
        .forwards
        .get(Service::position(&config.forwards, service, kind)?)?;
    let ports = forward.service.ports;
    let is_it = |to: &&Destination| Some(to.backend(ports, flow.port)) == flow.backend;
    forward.destinations.iter().find(is_it).copied()
}
