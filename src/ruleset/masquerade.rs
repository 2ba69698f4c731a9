//! `NODEFWD_MASQUERADE`, `NODEFWD_FULLY_RANDOM`: a destination sees this host's address instead of the client's.

use super::sets::of_addresses_and_services;
use super::{DESTINATIONS, MASQUERADE, Rule, Ruleset, Set, SourcePort, Statement};
use crate::config::{Config, Destination, Family, Forward, PortRange, Protocol};
use std::net::IpAddr;

/// The name of the base chain.
pub const POSTROUTING: &str = "postrouting";

/// Only connections to these are masqueraded.
pub fn sets(config: &Config, family: Family, forwards: &[&Forward]) -> Vec<Set> {
    if !config.masquerade {
        return Vec::new();
    }
    of_addresses_and_services(MASQUERADE, family, backends(forwards)).into()
}

/// The names of the sets that hold all destinations.
pub fn backend_sets(config: &Config) -> (&'static str, &'static str) {
    if config.masquerade {
        MASQUERADE
    } else {
        DESTINATIONS
    }
}

/// Every address, protocol and port that forwards send connections to.
pub fn backends(forwards: &[&Forward]) -> impl Iterator<Item = (IpAddr, Protocol, PortRange)> {
    forwards.iter().flat_map(|forward| {
        let key = |to: &Destination| (to.address, forward.service.protocol, to.ports);
        forward.destinations.iter().map(key)
    })
}

/// The rules for connections on their way to these.
pub fn rules(ruleset: &Ruleset, config: &Config, family: Family) -> impl Iterator<Item = Rule> {
    let port = if config.fully_random {
        SourcePort::FullyRandom
    } else {
        SourcePort::Kept
    };
    let rule = move |name| {
        vec![
            Statement::Translated,
            Statement::BackendIn(family, name),
            Statement::Masquerade(port),
        ]
    };
    ruleset.existing(MASQUERADE, family).map(rule)
}
