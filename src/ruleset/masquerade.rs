//! `NODEFWD_MASQUERADE`: a destination sees this host's address instead of the client's.

use super::sets::of_addresses_and_services;
use super::{MASQUERADE, Rule, Ruleset, Set, Statement};
use crate::config::{Config, Destination, Family, Forward};

/// Every address, protocol and port that a forward sends connections to: only these are masqueraded.
pub fn sets(config: &Config, family: Family, forwards: &[&Forward]) -> Vec<Set> {
    if !config.masquerade {
        return Vec::new();
    }
    let keys = forwards.iter().flat_map(|forward| {
        let key = |to: &Destination| (to.address, forward.service.protocol, to.ports);
        forward.destinations.iter().map(key)
    });
    of_addresses_and_services(MASQUERADE, family, keys).into()
}

/// The rules for connections on their way to these.
pub fn rules(ruleset: &Ruleset, family: Family) -> impl Iterator<Item = Rule> {
    let rule = move |name| {
        vec![
            Statement::Translated,
            Statement::BackendIn(family, name),
            Statement::Masquerade,
        ]
    };
    ruleset.existing(MASQUERADE, family).map(rule)
}
