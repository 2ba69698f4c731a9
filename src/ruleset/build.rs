//! Config → ruleset: the order of its sets, chains and rules. Each option has a module of its own.

use super::shared_maps::SharedMaps;
use super::{Chain, Hook, OUTPUT, POSTROUTING, PREROUTING, Rule, Ruleset, Set, family_name};
use super::{balance, clamp_mss, failover, forwards, hairpin};
use super::{invalid, left_out, listen, masquerade, output, sources};
use crate::config::{Config, Down, Family, Forward};

impl Ruleset {
    /// The rules that do what `config` asks for.
    pub fn new(config: &Config) -> Self {
        Self::without(config, &Down::default())
    }

    /// The same, but destinations that fail get no new connections.
    pub fn without(config: &Config, down: &Down) -> Self {
        let mut ruleset = Ruleset {
            table: config.name.table(),
            owner: config.owner,
            sets: Vec::new(),
            flowtable: None,
            chains: base_chains(config),
        };
        ruleset.sets.extend(listen::interfaces(config));
        for family in config.families() {
            ruleset.sets.extend(sets(config, family));
            ruleset.add_base_rules(config, family);
            ruleset.add_family_chains(config, family);
        }
        let invalid = invalid::chains(&ruleset, config);
        ruleset.chains.extend(invalid);
        let mut maps = SharedMaps::default();
        for forward in config.reachable_forwards() {
            if forwards::has_chain(forward) {
                let chains = balance::chains(config.balance, forward, down, &mut maps);
                ruleset.chains.extend(chains);
            }
        }
        ruleset.sets.extend(maps.into_sets());
        ruleset.chains.extend(failover::mark(config));
        ruleset.chains.extend(left_out::chains(config));
        ruleset
    }

    fn add_base_rules(&mut self, config: &Config, family: Family) {
        let masquerade: Vec<Rule> = masquerade::rules(self, config, family).collect();
        let clamp_mss = clamp_mss::rules(self, config, family);
        for chain in &mut self.chains {
            match chain.hook {
                Some(Hook::Prerouting) => {
                    chain.rules.extend(listen::bridged(config, family));
                    let rules = listen::rules(config, family, family_name(family));
                    chain.rules.extend(rules);
                }
                Some(Hook::Mangle) => chain.rules.extend(clamp_mss.iter().cloned()),
                Some(Hook::Output) => chain.rules.extend(output::rules(config, family)),
                Some(Hook::Postrouting) => chain.rules.extend(masquerade.iter().cloned()),
                Some(Hook::Input | Hook::Forward | Hook::FastPath) | None => {}
            }
        }
    }

    /// Adds the chain that new connections of a family go through, and those for sources that may not
    /// connect.
    fn add_family_chains(&mut self, config: &Config, family: Family) {
        let mut rules = Vec::from_iter(listen::left_to_host(family));
        rules.extend(sources::rules(self, config, family));
        rules.extend(hairpin::rules(self, family));
        rules.extend(forwards::rules(self, family));
        let title = format!("new connections over {family}");
        let name = family_name(family).into();
        self.chains.push(Chain::regular(name, title, rules));
        self.chains.extend(sources::chains(self, config, family));
    }
}

/// The sets of a family.
fn sets(config: &Config, family: Family) -> Vec<Set> {
    let of_family = |forward: &&Forward| forward.service.family == family;
    let forwards: Vec<&Forward> = config.forwards.iter().filter(of_family).collect();
    let mut sets = vec![
        sources::allowed(config, family),
        listen::set(config, family),
    ];
    sets.extend(forwards::maps(family, &forwards));
    sets.extend(sources::services(config, family, &forwards));
    sets.extend(hairpin::sets(config, family, &forwards));
    sets.extend(masquerade::sets(config, family, &forwards));
    sets.extend(invalid::sets(config, family, &forwards));
    // A set without elements would cost a look-up and match nothing.
    sets.retain(|set| !set.elements.is_empty());
    sets
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
            OUTPUT,
            Hook::Output,
            "connections made on this host",
        ),
        (
            config.masquerade,
            POSTROUTING,
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
        .chain(invalid::base_chains(config))
        .chain(clamp_mss::base_chain(config))
        .collect()
}
