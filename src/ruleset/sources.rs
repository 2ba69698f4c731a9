//! `SRC_RANGES`: packets of sources that may not connect are counted and dropped.

use super::sets::{SERVICE_KEY, empty, keys, service_key};
use super::{
    ALLOWED, Chain, DROPPED, Element, Field, FieldType, Rule, Ruleset, Set, Statement, Value,
    ValueType, family_name, set_name,
};
use crate::config::{Allowed, Config, Family, Forward, Service};

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

/// The services whose dropped packets are counted: by the elements of single ports, and by the chains that
/// ranges lead to.
pub fn services(config: &Config, family: Family, forwards: &[&Forward]) -> Vec<Set> {
    if *config.sources.of(family) == Allowed::All {
        return Vec::new();
    }
    let (single, ranges): (Vec<&Forward>, Vec<&Forward>) = forwards
        .iter()
        .partition(|forward| forward.service.ports.is_single());
    let mut set = empty(DROPPED.0, family, SERVICE_KEY.to_vec());
    set.counter = true;
    set.elements = keys(single.iter().map(|forward| service_key(forward.service)));
    let mut map = empty(DROPPED.1, family, SERVICE_KEY.to_vec());
    map.interval = true;
    map.values = Some(ValueType::Verdict);
    map.elements.extend(ranges.iter().map(|forward| Element {
        key: service_key(forward.service),
        value: Some(Value::Goto(range_chain_name(forward.service))),
    }));
    vec![set, map]
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

/// The chain of those that may not connect, unless all may or none, and those of ranges.
pub fn chains(ruleset: &Ruleset, config: &Config, family: Family) -> Vec<Chain> {
    let sources = *config.sources.of(family) != Allowed::All;
    let forwards = config.forwards.iter().map(|forward| forward.service);
    let ranges = forwards
        .filter(|service| sources && service.family == family && !service.ports.is_single());
    let range = |service: Service| {
        let rules = vec![vec![Statement::Counter, Statement::Drop]];
        let title = format!("{service} from sources that may not connect");
        Chain::regular(range_chain_name(service), title, rules)
    };
    let mut chains = Vec::new();
    if let Allowed::Ranges(_) = config.sources.of(family) {
        let title = format!("new connections over {family} from sources that may not connect");
        let rules = drops(ruleset, family);
        chains.push(Chain::regular(chain_name(family), title, rules));
    }
    chains.extend(ranges.map(range));
    chains
}

/// `dropped-ipv4`
fn chain_name(family: Family) -> String {
    format!("dropped-{}", family_name(family))
}

/// `dropped-tcp-8000-8100-ipv4`
fn range_chain_name(service: Service) -> String {
    format!("dropped-{}", super::chain_name(service))
}

fn drops(ruleset: &Ruleset, family: Family) -> Vec<Rule> {
    let set = ruleset.set(DROPPED.0, family);
    let map = ruleset.set(DROPPED.1, family);
    let set = set.map(|set| vec![Statement::ServiceIn(set.name.clone()), Statement::Drop]);
    let map = map.map(|map| vec![Statement::ServiceVmap(map.name.clone())]);
    set.into_iter().chain(map).collect()
}
