//! Config → the chains and rules of a ruleset.

use super::sets;
use super::shared_maps::SharedMaps;
use super::{
    ALLOWED, AddressType, BALANCED, Chain, Choice, Dnat, FORWARDS, Field, Hook, LISTEN, MASQUERADE,
    MapTo, NO_HAIRPIN, PORT_MAP, PREROUTING, RANGES, RANGES_TO_PORT, Rule, Ruleset, SERVICES, Set,
    Statement, chain_name, family_name, set_name,
};
use crate::config::{Allowed, Config, Destination, Family, Forward, Listen, Protocol};

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
            ruleset.add_family_chains(config, family);
        }
        let mut maps = SharedMaps::default();
        for forward in config.reachable_forwards() {
            if forward.destinations.len() > 1 {
                ruleset.add_balanced(config, forward, &mut maps);
            }
        }
        ruleset.sets.extend(maps.into_sets());
        ruleset
    }

    fn set(&self, name: &str, family: Family) -> Option<&Set> {
        let name = set_name(name, family);
        self.sets.iter().find(|set| set.name == name)
    }

    /// The names of those sets that the ruleset has.
    fn existing(&self, names: (&str, &str), family: Family) -> impl Iterator<Item = String> {
        let sets = [names.0, names.1].map(|name| self.set(name, family).map(|set| &set.name));
        let names: Vec<String> = sets.into_iter().flatten().cloned().collect();
        names.into_iter()
    }

    fn add_base_rules(&mut self, config: &Config, family: Family) {
        let masquerade = self.masquerade(family);
        for chain in &mut self.chains {
            match chain.hook {
                Some(Hook::Prerouting) => chain.rules.extend(incoming(config, family)),
                Some(Hook::Output) => chain.rules.extend(outgoing(config, family)),
                Some(Hook::Postrouting) => chain.rules.extend(masquerade.iter().cloned()),
                None => {}
            }
        }
    }

    fn masquerade(&self, family: Family) -> Vec<Rule> {
        let rule = |name| {
            vec![
                Statement::Translated,
                Statement::BackendIn(family, name),
                Statement::Masquerade,
            ]
        };
        self.existing(MASQUERADE, family).map(rule).collect()
    }

    /// Adds the chain that new connections of a family go through, and the one for sources that may not
    /// connect.
    fn add_family_chains(&mut self, config: &Config, family: Family) {
        let drop = |name| vec![Statement::ServiceIn(name), Statement::Drop];
        let drops: Vec<Rule> = self.existing(SERVICES, family).map(drop).collect();
        let denied = format!("denied-{}", family_name(family));
        let mut rules = match config.sources.of(family) {
            Allowed::All => Vec::new(),
            Allowed::None => drops.clone(),
            Allowed::Ranges(_) => vec![vec![
                Statement::SourceNotIn(family, set_name(ALLOWED, family)),
                Statement::Goto(denied.clone()),
            ]],
        };
        rules.extend(self.no_hairpin(family));
        rules.extend(self.dnat_by_map(family));
        let vmap = |name| vec![Statement::ServiceVmap(name)];
        rules.extend(self.existing(BALANCED, family).map(vmap));
        let title = format!("new connections over {family}");
        self.add_chain(family_name(family).into(), title, rules);
        if let Allowed::Ranges(_) = config.sources.of(family) {
            let title = format!("the same from sources that may not connect, over {family}");
            self.add_chain(denied, title, drops);
        }
    }

    /// The rules that leave alone what a destination itself sends to a port that leads to it.
    fn no_hairpin(&self, family: Family) -> Vec<Rule> {
        let rule = |name| {
            vec![
                Statement::SourceAndServiceIn(family, name),
                Statement::Return,
            ]
        };
        self.existing(NO_HAIRPIN, family).map(rule).collect()
    }

    /// The rules that look up where a connection goes. The hash tables come first: they cost less than
    /// the maps of ranges.
    fn dnat_by_map(&self, family: Family) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (name, to) in [
            (FORWARDS, MapTo::AddressAndPort),
            (PORT_MAP, MapTo::AddressAndPort),
            (RANGES_TO_PORT, MapTo::AddressAndPort),
            (RANGES, MapTo::Address),
        ] {
            if let Some(map) = self.set(name, family) {
                let dnat = Statement::Dnat(Dnat::Map(family, map.name.clone(), to));
                if name == RANGES_TO_PORT {
                    // nft takes a port from a map of ranges only after a match of the protocol.
                    let protocols = protocols(map).map(Statement::Protocol);
                    rules.extend(protocols.map(|protocol| vec![protocol, dnat.clone()]));
                } else {
                    rules.push(vec![dnat]);
                }
            }
        }
        rules
    }

    /// Adds the chain of a forward with several destinations, and one for each of them.
    fn add_balanced(&mut self, config: &Config, forward: &Forward, maps: &mut SharedMaps) {
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
        self.add_chain(name.clone(), title.clone(), vec![vec![choice]]);
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

/// The protocols among a map's keys.
fn protocols(map: &Set) -> impl Iterator<Item = Protocol> {
    let has = |protocol: &Protocol| {
        let key = Field::Protocol(*protocol);
        map.elements.iter().any(|element| element.key[0] == key)
    };
    Protocol::ALL.into_iter().filter(has)
}

/// The rules that lead connections that come in to the chain of their family: the cheap test of the family
/// first, and of the others only packets to the right address.
fn incoming(config: &Config, family: Family) -> Vec<Rule> {
    let jump = Statement::Jump(family_name(family).into());
    let of_family = Statement::Family(family);
    match &config.listen {
        Listen::Local => vec![vec![of_family, LOCAL, jump]],
        Listen::Any => {
            // A broadcast or multicast is also for this host: leave it alone.
            let types: &[AddressType] = match family {
                Family::Ipv4 => &[AddressType::Broadcast, AddressType::Multicast],
                // IPv6 has no broadcast (RFC 4291, section 2).
                Family::Ipv6 => &[AddressType::Multicast],
            };
            let leave = |kind: &AddressType| {
                let kind = Statement::DestinationType(*kind);
                vec![Statement::Family(family), kind, Statement::Return]
            };
            let mut rules: Vec<Rule> = types.iter().map(leave).collect();
            rules.push(vec![of_family, jump]);
            rules
        }
        Listen::Addresses(_) => vec![vec![listens(family), jump]],
    }
}

/// The same for connections that this host makes: only those to its own addresses are forwarded, but not
/// those to loopback addresses.
fn outgoing(config: &Config, family: Family) -> Vec<Rule> {
    let jump = Statement::Jump(family_name(family).into());
    let to_address = match &config.listen {
        Listen::Local | Listen::Any => Statement::Family(family),
        Listen::Addresses(_) => listens(family),
    };
    vec![
        vec![Statement::LoopbackDestination(family), Statement::Return],
        vec![to_address, LOCAL, jump],
    ]
}

const LOCAL: Statement = Statement::DestinationType(AddressType::Local);

fn listens(family: Family) -> Statement {
    Statement::DestinationIn(family, set_name(LISTEN, family))
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
