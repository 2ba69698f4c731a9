//! `NODEFWD_BALANCE`: the chain of a forward with several destinations chooses the chain of one of them.

use super::shared_maps::SharedMaps;
use super::{BALANCED, Chain, Choice, Dnat, MapTo, Rule, Ruleset, Statement, chain_name};
use crate::config::{Config, Destination, Family, Forward};

/// The rules that lead connections to the chains of these forwards.
pub fn rules(ruleset: &Ruleset, family: Family) -> impl Iterator<Item = Rule> {
    let vmap = |name| vec![Statement::ServiceVmap(name)];
    ruleset.existing(BALANCED, family).map(vmap)
}

/// The chain of a forward with several destinations, and one for each of them.
pub fn chains(config: &Config, forward: &Forward, maps: &mut SharedMaps) -> Vec<Chain> {
    let name = chain_name(forward);
    let title = forward.service.to_string();
    let count = forward.destinations.len();
    let names = (1..=count).map(|number| format!("{name}-{number}"));
    let (map, first) = maps.add_backends(names.clone());
    let choice = Statement::Balance(Choice {
        family: forward.service.family,
        balance: config.balance,
        first,
        count: count as u32,
        map,
    });
    let mut chains = vec![Chain::regular(
        name.clone(),
        title.clone(),
        vec![vec![choice]],
    )];
    for ((number, to), name) in (1..).zip(&forward.destinations).zip(names) {
        let rule = dnat(forward, number, to, maps);
        chains.push(Chain::regular(name, format!("{title} to {to}"), vec![rule]));
    }
    chains
}

/// The rule that sends a connection to a destination, the one with this number in its forward's list.
fn dnat(forward: &Forward, number: usize, to: &Destination, maps: &mut SharedMaps) -> Rule {
    let dnat = if to.ports.is_single() {
        Dnat::Port(to.address, to.ports.first())
    } else if forward.maps_ports(to) {
        let map = maps.add_port_map(forward, number, to);
        Dnat::Map(forward.service.family, map, MapTo::AddressAndPort)
    } else {
        Dnat::SamePort(to.address)
    };
    vec![
        Statement::Protocol(forward.service.protocol),
        Statement::Counter,
        Statement::Dnat(dnat),
    ]
}
