//! `NODEFWD_HAIRPIN`: without it, connections that a destination itself makes to the forwarded port are
//! left alone.

use super::sets::of_addresses_and_services;
use super::{NO_HAIRPIN, Rule, Ruleset, Set, Statement};
use crate::config::{Allowed, Config, Destination, Family, Forward};

/// The destinations with the services that would send them back to themselves.
pub fn sets(config: &Config, family: Family, forwards: &[&Forward]) -> Vec<Set> {
    if config.hairpin || *config.sources.of(family) == Allowed::None {
        return Vec::new();
    }
    let keys = forwards.iter().flat_map(|forward| {
        let key = |to: &Destination| (to.address, forward.service.protocol, forward.service.ports);
        forward.destinations.iter().map(key)
    });
    of_addresses_and_services(NO_HAIRPIN, family, keys).into()
}

/// The rules that end the chain of a family for them.
pub fn rules(ruleset: &Ruleset, family: Family) -> impl Iterator<Item = Rule> {
    let rule = move |name| {
        vec![
            Statement::SourceAndServiceIn(family, name),
            Statement::Return,
        ]
    };
    ruleset.existing(NO_HAIRPIN, family).map(rule)
}
