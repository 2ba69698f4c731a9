//! `NODEFWD_HEALTH`: which destinations are tried, and which get no new connections when some fail.
//!
//! A TCP destination is tried if its forward has others that could take its connections. Forwards of UDP to the
//! same address and port follow: what listens there for UDP cannot be told without knowing its protocol, as no
//! reply is no failure. A range of ports at the destination says nothing of which of them must answer.

use super::{Config, Destination, Forward, OptionName, Protocol};

/// Destinations that fail, of those that are tried, in their order.
pub type Down = Vec<Destination>;

impl Forward {
    /// The destinations that can be tried: none unless others can take their connections.
    fn tried(&self) -> impl Iterator<Item = Destination> {
        let tried = self.service.protocol == Protocol::Tcp && self.destinations.len() > 1;
        let destinations = self.destinations.iter().copied();
        destinations.filter(move |to| tried && to.ports.is_single())
    }

    /// For each destination, whether it gets no new connections. None is left out if all would be.
    pub fn left_out(&self, down: &Down) -> Vec<bool> {
        let failed = self.failed(down);
        if failed.contains(&false) {
            failed
        } else {
            vec![false; failed.len()]
        }
    }

    /// For each destination, whether it fails.
    pub fn failed(&self, down: &Down) -> Vec<bool> {
        let follows = self.service.protocol != Protocol::Sctp && self.destinations.len() > 1;
        let is_down = |to| follows && down.binary_search(to).is_ok();
        self.destinations.iter().map(is_down).collect()
    }
}

impl Config {
    /// The destinations that are tried, each once and in order; none if `NODEFWD_HEALTH` is off.
    pub fn tried(&self) -> Vec<Destination> {
        let forwards = self.reachable_forwards();
        let on = forwards.filter(|_| !self.health.is_zero());
        let mut tried: Vec<Destination> = on.flat_map(Forward::tried).collect();
        tried.sort();
        tried.dedup();
        tried
    }

    /// Reports that no destination is tried though that is asked for.
    pub(super) fn health_without_effect(&self) -> Option<String> {
        let (health, reset) = (OptionName::HEALTH, OptionName::HEALTH_RESET);
        if self.health.is_zero() {
            let idle = || format!("{reset} is true, but {health} is not set: nothing is tried");
            return self.health_reset.then(idle);
        }
        self.tried().is_empty().then(|| {
            format!(
                "{health} is set, but no forward of TCP has several destinations with one port each: nothing is tried"
            )
        })
    }
}
