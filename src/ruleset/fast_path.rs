//! `NODEFWD_FAST_PATH`: a flowtable, which takes packets of the connections in it over as soon as they come in: they
//! pass neither conntrack nor any chain on their way out, until the connection ends or idles for a while
//! (net/netfilter/nf_flow_table_ip.c).

use super::masquerade::backend_sets;
use super::{Chain, Hook, Rule, Ruleset, Statement};
use crate::config::{Config, Family, InterfaceName};

/// The name of the flowtable, and of the chain that puts connections into it.
pub const FAST_PATH: &str = "fast-path";

/// Where packets of the connections in it leave the usual path, and count as before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flowtable {
    pub name: &'static str,
    /// The interfaces on whose incoming packets it looks.
    pub devices: Vec<InterfaceName>,
}

impl Ruleset {
    /// Adds the fast path on these interfaces: none, if there is none, or no connection could take it.
    pub fn add_fast_path(&mut self, config: &Config, devices: Vec<InterfaceName>) {
        if devices.is_empty() || !config.wants_fast_path() {
            return;
        }
        let families = config.families();
        let chain = Chain {
            name: FAST_PATH.into(),
            hook: Some(Hook::FastPath),
            title: "established connections that the flowtable takes over".into(),
            rules: families
                .flat_map(|family| rules(self, config, family))
                .collect(),
        };
        let is_regular = |chain: &Chain| chain.hook.is_none();
        let regular = self.chains.iter().position(is_regular);
        self.chains
            .insert(regular.unwrap_or(self.chains.len()), chain);
        self.flowtable = Some(Flowtable {
            name: FAST_PATH,
            devices,
        });
    }

    /// Takes it away again.
    pub fn remove_fast_path(&mut self) {
        self.flowtable = None;
        self.chains.retain(|chain| chain.name != FAST_PATH);
    }
}

/// The rules for established connections to destinations. The cheapest test that most packets of others fail comes
/// first. SCTP is left alone by the kernel (nft_flow_offload_eval in net/netfilter/nft_flow_offload.c). A connection
/// is translated in its original direction alone at this hook: replies have the destination's address still.
fn rules(ruleset: &Ruleset, config: &Config, family: Family) -> impl Iterator<Item = Rule> {
    let rule = move |set| {
        vec![
            Statement::Translated,
            Statement::Original,
            Statement::Established,
            Statement::BackendIn(family, set),
            Statement::FlowAdd(FAST_PATH),
        ]
    };
    ruleset.existing(backend_sets(config), family).map(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn with_fast_path(forwards: &str, masquerade: &str) -> String {
        let config = Config::new(&Options {
            forwards: vec![forwards.into()],
            masquerade: Some(masquerade.into()),
            fast_path: Some("auto".into()),
            ..Options::default()
        });
        let config = config.unwrap();
        let mut ruleset = Ruleset::new(&config);
        let plain = ruleset.clone();
        ruleset.add_fast_path(
            &config,
            vec!["lan0".parse().unwrap(), "9@x".parse().unwrap()],
        );
        let text = ruleset.to_string();
        ruleset.remove_fast_path();
        assert_eq!(ruleset, plain);
        text
    }

    #[test]
    fn only_the_instances_own_connections_are_put_into_it() {
        for (masquerade, set) in [("true", "masquerade"), ("false", "destinations")] {
            let text = with_fast_path("tcp/80=10.2.0.11,fd00::11", masquerade);
            let flowtable = "\tflowtable fast-path {\n\t\thook ingress priority filter\n\
                \t\tdevices = { \"lan0\", \"9@x\" }\n\t\tcounter\n\t}\n";
            assert!(text.contains(flowtable), "{text}");
            for (family, ip) in [("4", "ip"), ("6", "ip6")] {
                let rule = format!(
                    "ct status dnat ct direction original ct state established th dport . meta l4proto . {ip} daddr @{set}{family} flow add @fast-path\n"
                );
                assert!(text.contains(&rule), "{text}");
            }
        }
    }

    #[test]
    fn without_a_protocol_that_flowtables_know_there_is_none() {
        let text = with_fast_path("sctp/80=10.2.0.11", "true");
        assert!(!text.contains("fast-path"), "{text}");
    }
}
