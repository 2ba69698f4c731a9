//! Config → Ruleset.

use super::{
    Chain, Dnat, Element, Field, FieldType, Hook, LISTEN, PREROUTING, Rule, Ruleset, SERVICES,
    SOURCES, Set, Statement, TARGETS, set_name,
};
use crate::config::{Allowed, Config, Family, Forward, Listen, PortRange, Protocol};
use std::{collections::BTreeMap, net::IpAddr};

impl Ruleset {
    /// The rules that do what `config` asks for.
    pub fn new(config: &Config) -> Self {
        let mut ruleset = Ruleset {
            table: config.name.table(),
            sets: Vec::new(),
            chains: base_chains(config),
        };
        for family in Family::ALL {
            if config.takes(family) {
                ruleset.add_family(config, family);
            }
        }
        for forward in config
            .forwards
            .iter()
            .filter(|forward| config.takes(forward.family))
        {
            ruleset.add_forward(config, forward);
        }
        ruleset
    }

    fn add_family(&mut self, config: &Config, family: Family) {
        if let Allowed::Ranges(ranges) = config.sources.of(family) {
            let fields = ranges.iter().map(|range| vec![Field::Network(*range)]);
            let key = vec![FieldType::address(family)];
            self.add_set(SOURCES, family, key, true, fields.collect());
        }
        if let Listen::Addresses(addresses) = &config.listen {
            let of_family = addresses
                .iter()
                .filter(|address| Family::of(**address) == family);
            let fields = of_family.map(|address| vec![Field::Address(*address)]);
            let key = vec![FieldType::address(family)];
            self.add_set(LISTEN, family, key, false, fields.collect());
        }
        let forwards = || {
            config
                .forwards
                .iter()
                .filter(move |forward| forward.family == family)
        };
        self.add_services(family, forwards());
        if config.masquerade {
            self.add_targets(family, forwards());
        }

        let dispatch = self.dispatch(config, family);
        let masquerade = self.masquerade(family);
        for chain in &mut self.chains {
            match chain.hook {
                Some(Hook::Prerouting) => chain.rules.extend(dispatch.iter().cloned()),
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

    fn add_services<'a>(&mut self, family: Family, forwards: impl Iterator<Item = &'a Forward>) {
        let element = |forward: &Forward| Element {
            key: vec![
                Field::Protocol(forward.protocol),
                Field::Ports(forward.ports),
            ],
            goto: Some(chain_name(forward)),
        };
        let (single, ranges): (Vec<_>, Vec<_>) =
            forwards.partition(|forward| forward.ports.is_single());
        for (name, forwards) in [(SERVICES.0, single), (SERVICES.1, ranges)] {
            self.push_set(Set {
                name: set_name(name, family),
                key: vec![FieldType::InetProto, FieldType::InetService],
                interval: name == SERVICES.1,
                verdicts: true,
                elements: forwards.into_iter().map(element).collect(),
            });
        }
    }

    /// What masquerading is tied to: every address, protocol and port that a forward goes to.
    fn add_targets<'a>(&mut self, family: Family, forwards: impl Iterator<Item = &'a Forward>) {
        let mut ports: BTreeMap<(IpAddr, Protocol), Vec<PortRange>> = BTreeMap::new();
        for forward in forwards {
            for destination in &forward.destinations {
                let target = (destination.address, forward.protocol);
                ports.entry(target).or_default().push(destination.ports);
            }
        }
        let (mut single, mut ranges) = (Vec::new(), Vec::new());
        for ((address, protocol), ports) in ports {
            for ports in PortRange::merge(ports) {
                let list = if ports.is_single() {
                    &mut single
                } else {
                    &mut ranges
                };
                list.push(vec![
                    Field::Address(address),
                    Field::Protocol(protocol),
                    Field::Ports(ports),
                ]);
            }
        }
        let key = vec![
            FieldType::address(family),
            FieldType::InetProto,
            FieldType::InetService,
        ];
        self.add_set(TARGETS.0, family, key.clone(), false, single);
        self.add_set(TARGETS.1, family, key, true, ranges);
    }

    fn add_set(
        &mut self,
        name: &str,
        family: Family,
        key: Vec<FieldType>,
        interval: bool,
        fields: Vec<Vec<Field>>,
    ) {
        self.push_set(Set {
            name: set_name(name, family),
            key,
            interval,
            verdicts: false,
            elements: fields
                .into_iter()
                .map(|key| Element { key, goto: None })
                .collect(),
        });
    }

    /// A set without elements would cost a look-up and match nothing, so it is left out.
    fn push_set(&mut self, set: Set) {
        if !set.elements.is_empty() {
            self.sets.push(set);
        }
    }

    fn has_set(&self, name: &str) -> bool {
        self.sets.iter().any(|set| set.name == name)
    }

    /// The rules that lead a packet to the chain of its forward.
    fn dispatch(&self, config: &Config, family: Family) -> Vec<Rule> {
        let scope = match &config.listen {
            Listen::Local => vec![Statement::Family(family), Statement::LocalDestination],
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
        self.per_set(TARGETS, family, |name| {
            vec![
                Statement::Translated,
                Statement::TargetIn(family, name),
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

    fn add_forward(&mut self, config: &Config, forward: &Forward) {
        let name = chain_name(forward);
        let title = format!("{} over {}", forward.service(), forward.family);
        let mut rules = vec![];
        let mut to_destinations = vec![];
        match config.sources.of(forward.family) {
            Allowed::Everyone => {}
            Allowed::Nobody => rules.push(vec![Statement::Counter, Statement::Drop]),
            Allowed::Ranges(_) => rules.push(vec![
                Statement::SourceNotIn(forward.family, set_name(SOURCES, forward.family)),
                Statement::Counter,
                Statement::Drop,
            ]),
        }
        if !config.hairpin {
            let mut addresses: Vec<IpAddr> =
                forward.destinations.iter().map(|to| to.address).collect();
            addresses.sort();
            addresses.dedup();
            rules.push(vec![
                Statement::SourceAmong(forward.family, addresses),
                Statement::Return,
            ]);
        }
        let dnat = |to| {
            vec![
                Statement::Protocol(forward.protocol),
                Statement::Counter,
                Statement::Dnat(Dnat::new(forward.ports, to)),
            ]
        };
        if let [to] = forward.destinations[..] {
            rules.push(dnat(to));
        } else {
            let chain = |(index, to)| Chain {
                name: format!("{name}-{index}"),
                hook: None,
                title: format!("{title} to {to}"),
                rules: vec![dnat(to)],
            };
            to_destinations = (1..)
                .zip(forward.destinations.iter().copied())
                .map(chain)
                .collect();
            let names = to_destinations
                .iter()
                .map(|chain| chain.name.clone())
                .collect();
            rules.push(vec![Statement::Choose(
                forward.family,
                config.balance,
                names,
            )]);
        }
        self.chains.push(Chain {
            name,
            hook: None,
            title,
            rules,
        });
        self.chains.append(&mut to_destinations);
    }
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

/// Of the connections that this host makes, only those to its own addresses are taken, even where
/// those of others are taken in passing.
fn to_own_address(mut rule: Rule) -> Rule {
    if matches!(rule[..], [Statement::Family(_), Statement::Dispatch(_)]) {
        rule.insert(1, Statement::LocalDestination);
    }
    rule
}

/// `tcp-80-ipv4`
fn chain_name(forward: &Forward) -> String {
    let family = match forward.family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    format!("{}-{}-{family}", forward.protocol, forward.ports)
}
