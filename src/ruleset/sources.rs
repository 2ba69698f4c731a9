//! `SRC_RANGES`: packets of sources that may not connect are counted and dropped.

use super::sets::{SERVICE_KEY, empty, keys, service_key};
use super::{
    ALLOWED, Chain, DROPPED, Field, FieldType, Rule, Ruleset, Set, Statement, family_name, set_name,
};
use crate::config::{Allowed, Config, Family, Forward};

/// The sources that may connect, unless all may or none.
pub fn allowed(config: &Config, family: Family) -> Set {
    let ranges = match config.sources.of(family) {
        Allowed::Ranges(ranges) => ranges.as_slice(),
        Allowed::All | Allowed::None => &[],
    };
    let mut set = empty(ALLOWED, family, vec![FieldType::address(family)]);
    set.interval = true;
    set.elements = keys(ranges.iter().map(|range| vec![Field::Network(*range)]));
    set
}

/// The services, whose elements count the packets that are dropped.
pub fn services(config: &Config, family: Family, forwards: &[&Forward]) -> Vec<Set> {
    if *config.sources.of(family) == Allowed::All {
        return Vec::new();
    }
    let (single, ranges): (Vec<&Forward>, Vec<&Forward>) = forwards
        .iter()
        .partition(|forward| forward.service.ports.is_single());
    let sets = [(DROPPED.0, single), (DROPPED.1, ranges)].map(|(name, forwards)| {
        let mut set = empty(name, family, SERVICE_KEY.to_vec());
        set.interval = name == DROPPED.1;
        set.counter = true;
        set.elements = keys(forwards.iter().map(|forward| service_key(forward.service)));
        set
    });
    sets.into()
}

/// The rules that come before all others in the chain of a family.
pub fn rules(ruleset: &Ruleset, config: &Config, family: Family) -> Vec<Rule> {
    match config.sources.of(family) {
        Allowed::All => Vec::new(),
        Allowed::None => drops(ruleset, family),
        Allowed::Ranges(_) => vec![vec![
            Statement::SourceNotIn(family, set_name(ALLOWED, family)),
            Statement::Goto(chain_name(family)),
        ]],
    }
}

/// The chain of those that may not connect, unless all may or none.
pub fn chain(ruleset: &Ruleset, config: &Config, family: Family) -> Option<Chain> {
    let Allowed::Ranges(_) = config.sources.of(family) else {
        return None;
    };
    let title = format!("new connections over {family} from sources that may not connect");
    let rules = drops(ruleset, family);
    Some(Chain::regular(chain_name(family), title, rules))
}

fn chain_name(family: Family) -> String {
    format!("dropped-{}", family_name(family))
}

fn drops(ruleset: &Ruleset, family: Family) -> Vec<Rule> {
    let drop = |name| vec![Statement::ServiceIn(name), Statement::Drop];
    ruleset.existing(DROPPED, family).map(drop).collect()
}
