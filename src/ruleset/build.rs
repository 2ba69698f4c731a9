//! Config → Ruleset.

use super::sets;
use super::shared_maps::SharedMaps;
use super::{
    ALLOWED, AddressType, Chain, Choice, Dnat, Hook, LISTEN, MASQUERADE, NO_HAIRPIN, PREROUTING,
    Rule, Ruleset, SERVICES, Statement, chain_name, set_name,
};
use crate::config::{Allowed, Config, Destination, Family, Forward, Listen};

impl Ruleset {
    /// The rules that do what `config` asks for.
    pub fn new(config: &Config) -> Self {
        let mut ruleset = Ruleset {
            table: config.name.table(),
            owner: config.owner,
            sets: Vec::new(),
            chains: base_chains(config),
        };
        for family in config.families() {
            ruleset.sets.extend(sets::of_family(config, family));
            ruleset.add_base_rules(config, family);
        }
        let mut maps = SharedMaps::default();
        for forward in config.reachable_forwards() {
            ruleset.add_forward(config, forward, &mut maps);
        }
        ruleset.sets.extend(maps.into_sets());
        ruleset
    }

    fn add_base_rules(&mut self, config: &Config, family: Family) {
        let groups = groups(config, family);
        let mut dispatch = self.no_hairpin(config, family);
        dispatch.extend(self.dispatch(config, family));
        let masquerade = self.masquerade(family);
        for chain in &mut self.chains {
            match chain.hook {
                Some(Hook::Prerouting) => {
                    chain.rules.extend(groups.iter().chain(&dispatch).cloned());
                }
                Some(Hook::Output) => {
                    let loopback = vec![Statement::LoopbackDestination(family), Statement::Return];
                    chain.rules.push(loopback);
                    chain
                        .rules
                        .extend(dispatch.iter().cloned().map(to_own_address));
                }
                Some(Hook::Postrouting) => chain.rules.extend(masquerade.iter().cloned()),
                None => {}
            }
        }
    }

    fn has_set(&self, name: &str) -> bool {
        self.sets.iter().any(|set| set.name == name)
    }

    /// The rules that leave alone what a destination itself sends to a port that leads to it. Sources
    /// that may not connect are dropped later.
    fn no_hairpin(&self, config: &Config, family: Family) -> Vec<Rule> {
        self.per_set(NO_HAIRPIN, family, |name| {
            let mut rule = vec![
                Statement::SourceAndServiceIn(family, name),
                Statement::Return,
            ];
            if let Allowed::Ranges(_) = config.sources.of(family) {
                rule.insert(0, Statement::SourceIn(family, set_name(ALLOWED, family)));
            }
            rule
        })
    }

    /// The rules that lead a packet to the chain of its forward.
    fn dispatch(&self, config: &Config, family: Family) -> Vec<Rule> {
        let scope = match &config.listen {
            Listen::Local => vec![
                Statement::Family(family),
                Statement::DestinationType(AddressType::Local),
            ],
            Listen::Any => vec![Statement::Family(family)],
            Listen::Addresses(_) => {
                vec![Statement::DestinationIn(family, set_name(LISTEN, family))]
            }
        };
        self.per_set(SERVICES, family, |name| {
            let mut rule = scope.clone();
            rule.push(Statement::Dispatch(name));
            rule
        })
    }

    fn masquerade(&self, family: Family) -> Vec<Rule> {
        self.per_set(MASQUERADE, family, |name| {
            vec![
                Statement::Translated,
                Statement::BackendIn(family, name),
                Statement::Masquerade,
            ]
        })
    }

    fn per_set(
        &self,
        names: (&str, &str),
        family: Family,
        rule: impl Fn(String) -> Rule,
    ) -> Vec<Rule> {
        [names.0, names.1]
            .into_iter()
            .map(|name| set_name(name, family))
            .filter(|name| self.has_set(name))
            .map(rule)
            .collect()
    }

    /// Adds the forward's chain; with several destinations, one for each of them too.
    fn add_forward(&mut self, config: &Config, forward: &Forward, maps: &mut SharedMaps) {
        let name = chain_name(forward);
        let title = forward.service.to_string();
        let mut rules = drop_rules(config, forward.service.family);
        if let [to] = &forward.destinations[..] {
            rules.push(dnat(forward, 1, to, maps));
            self.add_chain(name, title, rules);
            return;
        }
        let count = forward.destinations.len();
        let names = (1..=count).map(|number| format!("{name}-{number}"));
        let (map, first) = maps.add_backends(names.clone());
        rules.push(vec![Statement::Balance(Choice {
            family: forward.service.family,
            balance: config.balance,
            first,
            count: count as u32,
            map,
        })]);
        self.add_chain(name.clone(), title.clone(), rules);
        for ((number, to), name) in (1..).zip(&forward.destinations).zip(names) {
            let rule = dnat(forward, number, to, maps);
            self.add_chain(name, format!("{title} to {to}"), vec![rule]);
        }
    }

    fn add_chain(&mut self, name: String, title: String, rules: Vec<Rule>) {
        self.chains.push(Chain {
            name,
            hook: None,
            title,
            rules,
        });
    }
}

/// The rules that leave broadcasts and multicasts alone where routed packets are forwarded: this host
/// may be among their receivers.
fn groups(config: &Config, family: Family) -> Vec<Rule> {
    let types: &[AddressType] = match (&config.listen, family) {
        (Listen::Local | Listen::Addresses(_), _) => &[],
        (Listen::Any, Family::Ipv4) => &[AddressType::Broadcast, AddressType::Multicast],
        // IPv6 knows no broadcast (RFC 4291, section 2).
        (Listen::Any, Family::Ipv6) => &[AddressType::Multicast],
    };
    let rule = |kind: &AddressType| {
        vec![
            Statement::Family(family),
            Statement::DestinationType(*kind),
            Statement::Return,
        ]
    };
    types.iter().map(rule).collect()
}

/// The rules that drop and count packets of sources that may not connect.
fn drop_rules(config: &Config, family: Family) -> Vec<Rule> {
    let drop = [Statement::Counter, Statement::Drop];
    match config.sources.of(family) {
        Allowed::All => vec![],
        Allowed::None => vec![drop.to_vec()],
        Allowed::Ranges(_) => {
            let mut rule = vec![Statement::SourceNotIn(family, set_name(ALLOWED, family))];
            rule.extend(drop);
            vec![rule]
        }
    }
}

/// The rule that sends a connection to a destination, the one with this number in its forward's list.
fn dnat(forward: &Forward, number: usize, to: &Destination, maps: &mut SharedMaps) -> Rule {
    let dnat = if to.ports.is_single() {
        Dnat::Port(to.address, to.ports.first())
    } else if forward.maps_ports(to) {
        Dnat::PortMap(
            forward.service.family,
            maps.add_port_map(forward, number, to),
        )
    } else {
        Dnat::SamePort(to.address)
    };
    vec![
        Statement::Protocol(forward.service.protocol),
        Statement::Counter,
        Statement::Dnat(dnat),
    ]
}

fn base_chains(config: &Config) -> Vec<Chain> {
    let hooks = [
        (
            true,
            PREROUTING,
            Hook::Prerouting,
            "connections that come in",
        ),
        (
            config.output,
            "output",
            Hook::Output,
            "connections made on this host",
        ),
        (
            config.masquerade,
            "postrouting",
            Hook::Postrouting,
            "forwarded connections on their way out",
        ),
    ];
    hooks
        .into_iter()
        .filter(|(wanted, ..)| *wanted)
        .map(|(_, name, hook, title)| Chain {
            name: name.into(),
            hook: Some(hook),
            title: title.into(),
            rules: Vec::new(),
        })
        .collect()
}

/// Of the connections that this host makes, only those to its own addresses are forwarded, wherever
/// clients' are.
fn to_own_address(mut rule: Rule) -> Rule {
    let local = Statement::DestinationType(AddressType::Local);
    let dispatches = matches!(rule.last(), Some(Statement::Dispatch(_)));
    if dispatches && !rule.contains(&local) {
        rule.insert(1, local);
    }
    rule
}
