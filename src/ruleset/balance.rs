//! `NODEFWD_BALANCE`: the chain of a forward with several destinations chooses one of them.
//!
//! Rule by rule, not by a map from numbers: nft has no name for the type of such keys, and nft 0.9.8 (Debian
//! 11) crashes on the note that stands in for it, whatever table it lists.

use super::shared_maps::SharedMaps;
use super::{Chain, Choice, Dnat, Numbers, Rule, Statement, chain_name};
use crate::config::{Balance, Destination, Forward};

/// A chain has no more rules than this; further destinations are in chains of groups.
const FAN_OUT: usize = 16;

/// The chain of a forward, and those of groups of its destinations.
pub fn chains(balance: Balance, forward: &Forward, maps: &mut SharedMaps) -> Vec<Chain> {
    let destinations: Vec<(usize, &Destination)> = (0..).zip(&forward.destinations).collect();
    let mut chains = Chains {
        balance,
        forward,
        maps,
        chains: Vec::new(),
    };
    chains.add(chain_name(forward.service), &destinations);
    chains.chains
}

struct Chains<'a> {
    balance: Balance,
    forward: &'a Forward,
    maps: &'a mut SharedMaps,
    chains: Vec<Chain>,
}

impl Chains<'_> {
    /// Adds the chain that chooses one of these destinations, each with its place in the forward's list.
    fn add(&mut self, name: String, destinations: &[(usize, &Destination)]) {
        let mut title = self.forward.service.to_string();
        if let ([first, ..], true) = (destinations, self.has_groups()) {
            title = format!("{title}, from destination {} on", first.0 + 1);
        }
        let index = self.chains.len();
        self.chains
            .push(Chain::regular(name.clone(), title, Vec::new()));
        let mut size = 1;
        while size * FAN_OUT < destinations.len() {
            size *= FAN_OUT;
        }
        let mut left = destinations;
        for number in 1.. {
            let (group, rest) = left.split_at(size.min(left.len()));
            let [(place, to), ..] = group else { break };
            let choice = self.choice(*place, group.len(), left.len());
            let rule = if size == 1 {
                dnat(self.forward, *place, to, choice, self.maps)
            } else {
                let name = format!("{name}-{number}");
                self.add(name.clone(), group);
                choice.into_iter().chain([Statement::Goto(name)]).collect()
            };
            self.chains[index].rules.push(rule);
            left = rest;
        }
    }

    fn has_groups(&self) -> bool {
        self.forward.destinations.len() > FAN_OUT
    }

    /// Lets `count` destinations have their share of the connections that the `left` ones get, of which
    /// they are the first. `None` if they are all that is left. The hash of a source stays the same from
    /// rule to rule; a random number and that of a turn are new ones.
    fn choice(&self, place: usize, count: usize, left: usize) -> Option<Statement> {
        let all = self.forward.destinations.len();
        let (start, modulus) = match self.balance {
            Balance::Random | Balance::RoundRobin => (0, left),
            Balance::Source => (place, all),
        };
        let matches = if count == 1 {
            Numbers::Is(start as u32)
        } else {
            Numbers::Below((start + count) as u32)
        };
        (count < left).then_some(Statement::Choose(Choice {
            family: self.forward.service.family,
            balance: self.balance,
            modulus: modulus as u32,
            matches,
        }))
    }
}

/// The rule that sends a connection to a destination, if it is chosen.
fn dnat(
    forward: &Forward,
    place: usize,
    to: &Destination,
    choice: Option<Statement>,
    maps: &mut SharedMaps,
) -> Rule {
    let dnat = if to.ports.is_single() {
        Dnat::Port(to.address, to.ports.first())
    } else if forward.maps_ports(to) {
        let map = maps.add_port_map(forward, place + 1, to);
        Dnat::Map(forward.service.family, map)
    } else {
        Dnat::SamePort(to.address)
    };
    let mut rule = vec![Statement::Protocol(forward.service.protocol)];
    rule.extend(choice);
    rule.extend([Statement::Counter, Statement::Dnat(dnat)]);
    rule
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The chains of a forward to so many destinations; the last byte or two of each address are its number.
    fn chains_of(balance: Balance, count: u16) -> HashMap<String, Vec<Rule>> {
        let to = |number: u16| {
            let [high, low] = number.to_be_bytes();
            format!("10.2.{high}.{low}:8080")
        };
        let list: Vec<String> = (0..count).map(to).collect();
        let config = crate::config::Config::new(&crate::config::Options {
            forwards: vec![format!("tcp/80={}", list.join(",")).into()],
            ..Default::default()
        });
        let chains = chains(
            balance,
            &config.unwrap().forwards[0],
            &mut SharedMaps::default(),
        );
        let rules = |chain: Chain| (chain.name, chain.rules);
        chains.into_iter().map(rules).collect()
    }

    /// Follows a connection to the number of its destination; `number` gives that of the rule with this
    /// modulus.
    fn follow(
        chains: &HashMap<String, Vec<Rule>>,
        mut number: impl FnMut((String, usize), u32) -> u32,
    ) -> u16 {
        let mut name = "tcp-80-ipv4".to_owned();
        loop {
            let rules = chains[&name].iter().enumerate();
            let mut chosen = rules.filter(|(index, rule)| {
                rule.iter().all(|statement| match statement {
                    Statement::Choose(choice) => {
                        let number = number((name.clone(), *index), choice.modulus);
                        assert!(number < choice.modulus);
                        match choice.matches {
                            Numbers::Is(one) => number == one,
                            Numbers::Below(end) => number < end,
                        }
                    }
                    _ => true,
                })
            });
            let (_, rule) = chosen.next().expect("a rule that matches");
            match rule.last() {
                Some(Statement::Goto(chain)) => name.clone_from(chain),
                Some(Statement::Dnat(Dnat::Port(std::net::IpAddr::V4(address), _))) => {
                    let [.., high, low] = address.octets();
                    return u16::from_be_bytes([high, low]);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    const COUNTS: [u16; 9] = [1, 2, 3, 16, 17, 31, 256, 257, 1000];

    #[test]
    fn a_hash_is_the_number_of_the_destination() {
        for count in COUNTS {
            let chains = chains_of(Balance::Source, count);
            for hash in 0..count {
                assert_eq!(follow(&chains, |_, _| hash.into()), hash, "of {count}");
            }
        }
    }

    #[test]
    fn destinations_take_turns() {
        for count in COUNTS {
            let chains = chains_of(Balance::RoundRobin, count);
            let mut counters = HashMap::new();
            for connection in 0..3 * count {
                let to = follow(&chains, |rule, modulus| {
                    let counter: &mut u32 = counters.entry(rule).or_default();
                    let number = *counter % modulus;
                    *counter += 1;
                    number
                });
                assert_eq!(to, connection % count, "of {count}");
            }
        }
    }

    /// The product of the shares on the way to each destination.
    #[test]
    fn chance_is_the_same_for_all() {
        fn shares(
            chains: &HashMap<String, Vec<Rule>>,
            name: &str,
            mut share: f64,
            all: &mut Vec<f64>,
        ) {
            for rule in &chains[name] {
                let chosen = rule.iter().find_map(|statement| match statement {
                    Statement::Choose(choice) => Some(match choice.matches {
                        Numbers::Is(_) => 1.0 / f64::from(choice.modulus),
                        Numbers::Below(end) => f64::from(end) / f64::from(choice.modulus),
                    }),
                    _ => None,
                });
                let of_rule = share * chosen.unwrap_or(1.0);
                share -= of_rule;
                match rule.last() {
                    Some(Statement::Goto(chain)) => shares(chains, chain, of_rule, all),
                    _ => all.push(of_rule),
                }
            }
        }
        for count in COUNTS {
            let mut all = Vec::new();
            let chains = chains_of(Balance::Random, count);
            shares(&chains, "tcp-80-ipv4", 1.0, &mut all);
            assert_eq!(all.len(), usize::from(count));
            let fair = 1.0 / f64::from(count);
            assert!(
                all.iter().all(|share| (share - fair).abs() < 1e-9),
                "{all:?}"
            );
        }
    }

    #[test]
    fn no_chain_has_many_rules() {
        let chains = chains_of(Balance::Random, 1000);
        assert!(chains.values().all(|rules| rules.len() <= FAN_OUT));
    }
}
