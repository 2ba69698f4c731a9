//! `NODEFWD_BALANCE`: the chain of a forward with several destinations chooses one of them.
//!
//! Rule by rule, not by a map from numbers: nft has no name for the type of such keys, and nft 0.9.8 (Debian
//! 11) crashes on the note that stands in for it, whatever table it lists.

use super::failover::{self, slots};
use super::shared_maps::SharedMaps;
use super::{Chain, Choice, Dnat, Numbers, Rule, Statement, chain_name, down_chain_name};
use crate::config::{Balance, Destination, Down, Forward};

/// A chain has no more rules than this; further destinations are in chains of groups.
pub const FAN_OUT: usize = 16;

/// The seed of the hash that gives a client its destination. A fixed one, so that a client keeps
/// its destination across restarts and on every node.
const SOURCE_HASH_SEED: u32 = 0x6e6f_6465;

/// The chain of a forward, those of groups of its destinations, and those for what becomes of the connections
/// to destinations that fail.
pub fn chains(
    balance: Balance,
    forward: &Forward,
    down: &Down,
    maps: &mut SharedMaps,
) -> Vec<Chain> {
    let destinations = (1..).zip(&forward.destinations);
    let mut chains = Chains {
        balance,
        forward,
        left_out: forward.left_out(down),
        dnats: destinations
            .map(|(number, to)| dnat(forward, number, to, maps))
            .collect(),
        chains: Vec::new(),
    };
    let name = chain_name(forward.service);
    let places = 0..forward.destinations.len();
    // A client whose destination is left out is the only one that is given another.
    let choices: Vec<usize> = match balance {
        Balance::Source => places.collect(),
        Balance::Random | Balance::RoundRobin => {
            places.filter(|place| !chains.left_out[*place]).collect()
        }
    };
    chains.add(name.clone(), &choices);
    if balance == Balance::Source {
        chains.add_substitutes(&name);
    }
    let failed = forward.failed(down);
    if failed.contains(&true) {
        chains.add_failed(&name, &failed);
    }
    chains.chains
}

struct Chains<'a> {
    balance: Balance,
    forward: &'a Forward,
    /// For each destination.
    left_out: Vec<bool>,
    dnats: Vec<Dnat>,
    chains: Vec<Chain>,
}

impl Chains<'_> {
    /// Adds the chain that chooses one of the destinations at these places in the forward's list.
    fn add(&mut self, name: String, places: &[usize]) {
        let mut title = self.forward.service.to_string();
        if let ([first, ..], true) = (places, self.has_groups()) {
            title = format!("{title}, from destination {} on", first + 1);
        }
        let index = self.chains.len();
        self.chains
            .push(Chain::regular(name.clone(), title, Vec::new()));
        let mut size = 1;
        while size * FAN_OUT < places.len() {
            size *= FAN_OUT;
        }
        let mut left = places;
        for number in 1.. {
            let (group, rest) = left.split_at(size.min(left.len()));
            let [place, ..] = group else { break };
            let choice = self.choice(*place, group.len(), left.len());
            let rule = if size == 1 && !self.left_out[*place] {
                self.rule(*place, choice)
            } else {
                let name = if size == 1 {
                    failover::chain_name(&self.own_chain(), *place)
                } else {
                    let name = format!("{name}-{number}");
                    self.add(name.clone(), group);
                    name
                };
                choice.into_iter().chain([Statement::Goto(name)]).collect()
            };
            self.chains[index].rules.push(rule);
            left = rest;
        }
    }

    fn own_chain(&self) -> String {
        chain_name(self.forward.service)
    }

    /// Adds the chains that give the clients of destinations which are left out another one.
    fn add_substitutes(&mut self, name: &str) {
        for place in 0..self.left_out.len() {
            if !self.left_out[place] {
                continue;
            }
            let to = &self.forward.destinations[place];
            let title = format!("clients of {to}, which fails");
            let slots = slots(place, &self.left_out);
            let count = slots.len() as u32;
            let rules = (0..).zip(slots).map(|(number, place)| {
                let choice = Choice {
                    family: self.forward.service.family,
                    balance: Balance::Source,
                    modulus: count,
                    seed: failover::HASH_SEED,
                    matches: Numbers::Is(number),
                };
                let choice = (number + 1 < count).then_some(Statement::Choose(choice));
                self.rule(place, choice)
            });
            let name = failover::chain_name(name, place);
            let chain = Chain::regular(name, title, rules.collect());
            self.chains.push(chain);
        }
    }

    /// Adds the chain that lists the destinations which fail, for `status`.
    fn add_failed(&mut self, name: &str, failed: &[bool]) {
        let places = (0..failed.len()).filter(|place| failed[*place]);
        let rules = places.map(|place| self.rule(place, None)).collect();
        let title = format!("destinations of {} that fail", self.forward.service);
        let chain = Chain::regular(down_chain_name(name), title, rules);
        self.chains.push(chain);
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
            seed: SOURCE_HASH_SEED,
            matches,
        }))
    }

    /// The rule that sends a connection to a destination, if it is chosen.
    fn rule(&self, place: usize, choice: Option<Statement>) -> Rule {
        let mut rule = vec![Statement::Protocol(self.forward.service.protocol)];
        rule.extend(choice);
        let dnat = Statement::Dnat(self.dnats[place].clone());
        rule.extend([Statement::Counter, dnat]);
        rule
    }
}

/// How connections are sent to a destination, which has this number in the forward's list.
fn dnat(forward: &Forward, number: usize, to: &Destination, maps: &mut SharedMaps) -> Dnat {
    if to.ports.is_single() {
        Dnat::Port(to.address, to.ports.first())
    } else if forward.maps_ports(to) {
        let map = maps.add_port_map(forward, number, to);
        Dnat::Map(forward.service.family, map)
    } else {
        Dnat::SamePort(to.address)
    }
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
            &Down::default(),
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
