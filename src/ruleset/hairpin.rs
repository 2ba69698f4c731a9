//! `NODEFWD_HAIRPIN`: without it, connections that a destination itself makes to the forwarded port are
//! left alone.

use super::sets::{empty, keys, of_addresses_and_services};
use super::{
    Field, FieldType, NO_HAIRPIN, NO_HAIRPIN_HOSTS, Rule, Ruleset, Set, Statement, set_name,
};
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
    let [single, ranges] = of_addresses_and_services(NO_HAIRPIN, family, keys);
    let hosts = hosts(family, &ranges);
    vec![single, hosts, ranges]
}

/// The addresses of a set of ranges, which is in order of them. Most clients are in neither, and a look-up in this
/// is much cheaper: one of ranges goes through the key byte by byte, and has the registers of the FPU saved before
/// (nft_pipapo_avx2_lookup in net/netfilter/nft_set_pipapo_avx2.c).
fn hosts(family: Family, ranges: &Set) -> Set {
    let fields = ranges.elements.iter().flat_map(|element| &element.key);
    let is_address = |field: &&Field| matches!(field, Field::Address(_));
    let mut addresses: Vec<Field> = fields.filter(is_address).copied().collect();
    addresses.dedup();
    let mut set = empty(NO_HAIRPIN_HOSTS, family, vec![FieldType::address(family)]);
    set.elements = keys(addresses.into_iter().map(|address| vec![address]));
    set
}

/// The rules that end the chain of a family for them.
pub fn rules(ruleset: &Ruleset, family: Family) -> impl Iterator<Item = Rule> {
    let single = ruleset.set(NO_HAIRPIN.0, family).map(|set| {
        vec![
            Statement::SourceAndServiceIn(family, set.name.clone()),
            Statement::Return,
        ]
    });
    let ranges = ruleset.set(NO_HAIRPIN.1, family).map(|set| {
        vec![
            Statement::SourceIn(family, set_name(NO_HAIRPIN_HOSTS, family)),
            Statement::SourceAndServiceIn(family, set.name.clone()),
            Statement::Return,
        ]
    });
    single.into_iter().chain(ranges)
}
