//! `NODEFWD_CLAMP_MSS`: the MSS of forwarded TCP connections is lowered to what fits the path MTU, for paths
//! on which the ICMP messages that would say so are dropped.
//!
//! Each end announces in its SYN how large segments may be that it receives. `rt mtu` is the lesser MTU of
//! both directions (get_tcpmss in net/netfilter/nft_rt.c), and the MSS is never raised
//! (nft_exthdr_tcp_set_eval in nft_exthdr.c).

use super::masquerade::backend_sets;
use super::{CLAMP_MSS, Chain, Hook, Rule, Ruleset, Statement};
use crate::config::{Config, Family};

/// The base chain, before source NAT: there a SYN has the address and port of the destination already, and
/// the reply to it has them still.
pub fn base_chain(config: &Config) -> Option<Chain> {
    config.clamp_mss.then(|| Chain {
        name: CLAMP_MSS.into(),
        hook: Some(Hook::Mangle),
        title: "the MSS of forwarded connections".into(),
        rules: Vec::new(),
    })
}

/// The rules for the first segments of both ends: only of connections that are translated, to our
/// destinations.
pub fn rules(ruleset: &Ruleset, config: &Config, family: Family) -> Vec<Rule> {
    let clamp = |backend: Statement| {
        vec![
            Statement::TcpSyn,
            Statement::Translated,
            backend,
            Statement::ClampMss,
        ]
    };
    let sets = ruleset.existing(backend_sets(config), family);
    sets.flat_map(|set| {
        let to = Statement::BackendIn(family, set.clone());
        [to, Statement::FromBackendIn(family, set)].map(clamp)
    })
    .collect()
}
