//! Packets of forwarded connections that conntrack finds invalid, such as a TCP segment out of window
//! after others were lost.
//!
//! NAT leaves them as they are, so they end up at the wrong host: one from a client at this host
//! itself, one from a destination at this host or, without masquerading, at the client. That host knows
//! no such connection and answers with a RST, which ends a healthy one. So they are dropped here, as if
//! they were lost. An invalid packet belongs to no conntrack entry: only its addresses and ports tell
//! that it is one of a forward.

use super::listen;
use super::masquerade::{backend_sets, backends};
use super::sets::{of_addresses_and_services, of_services};
use super::{
    Chain, DESTINATIONS, DROPPED_INVALID, Hook, LISTEN_INTERFACES, Rule, Ruleset, SERVICES, Set,
    Statement, family_name,
};
use crate::config::{Config, Family, Forward, Listen};

/// The name of the chain that invalid packets come to first.
pub const INVALID: &str = "invalid";
/// For packets to other hosts. With br_netfilter, frames between two ports of a bridge are among them, which are
/// not routed, and none of a forwarded connection. What is routed from one bridge to another looks the same.
const INVALID_ROUTED: &str = "invalid-routed";
/// For packets to this host in a VRF, of whose addresses `fib` knows nothing at the input hook: there the VRF
/// has taken the place of the interface (vrf_ip_rcv in drivers/net/vrf.c).
const INVALID_LOCAL: &str = "invalid-local";

/// The services, and without masquerading the destinations, which are in a set already with it.
pub fn sets(config: &Config, family: Family, forwards: &[&Forward]) -> Vec<Set> {
    let services = forwards.iter().map(|forward| forward.service);
    let mut sets = Vec::from(of_services(SERVICES, family, services));
    if !config.masquerade {
        let backends = backends(forwards);
        sets.extend(of_addresses_and_services(DESTINATIONS, family, backends));
    }
    sets
}

/// The base chains: at the input hook, which no packet passes that is forwarded to another host; at the
/// forward hook only if such packets can be routed to another host.
pub fn base_chains(config: &Config) -> impl Iterator<Item = Chain> {
    let input = (
        "invalid-input",
        Hook::Input,
        INVALID,
        "packets to this host that conntrack finds invalid",
    );
    let forward = (
        "invalid-forward",
        Hook::Forward,
        INVALID_ROUTED,
        "packets to other hosts that conntrack finds invalid",
    );
    let chains = [Some(input), are_routed(config).then_some(forward)];
    chains
        .into_iter()
        .flatten()
        .map(|(name, hook, chain, title)| {
            let mut rules = vec![vec![Statement::Invalid, Statement::Jump(chain.into())]];
            if hook == Hook::Input && has_local_chain(config) {
                let jump = Statement::Jump(INVALID_LOCAL.into());
                rules.push(vec![Statement::Invalid, jump]);
            }
            Chain {
                name: name.into(),
                hook: Some(hook),
                title: title.into(),
                rules,
            }
        })
}

/// Whether packets of forwarded connections can be routed to another host untranslated.
fn are_routed(config: &Config) -> bool {
    !config.masquerade || config.listen == Listen::Any
}

/// Whether there are rules for packets to this host alone.
fn has_local_chain(config: &Config) -> bool {
    !config.listen.interfaces().is_empty() || masquerades_any(config)
}

/// Whether packets of destinations to other hosts are none of a forwarded connection, though they pass a hook.
fn masquerades_any(config: &Config) -> bool {
    config.masquerade && config.listen == Listen::Any
}

/// The chains that they lead to.
pub fn chains(ruleset: &Ruleset, config: &Config) -> Vec<Chain> {
    // No host answers a RST with a RST (RFC 9293, section 3.5.2), and a segment with SYN is no matter of
    // windows. They are exempt for the sake of others' connections to a destination of which this host
    // routes one way only: the reply to their SYN, which it has not seen, is invalid.
    let exempt = vec![Statement::TcpSynOrRst, Statement::Return];
    let mut rules = vec![exempt.clone()];
    let mut local = vec![exempt];
    let mut chains = Vec::new();
    for family in config.families() {
        let name = format!("{INVALID}-{}", family_name(family));
        rules.extend(listen::rules(config, family, &name));
        if !config.listen.interfaces().is_empty() {
            let in_vrf = Statement::VrfInterfaceIn(LISTEN_INTERFACES.into());
            let jump = Statement::Jump(name.clone());
            local.push(vec![Statement::Family(family), in_vrf, jump]);
        }
        let from_destinations = from_destinations(ruleset, config, family);
        if masquerades_any(config) {
            local.extend(from_destinations);
        } else {
            rules.extend(from_destinations);
        }
        let title = format!("packets of clients over {family} that conntrack finds invalid");
        let services = ruleset.existing(SERVICES, family);
        let of_forwards = services.map(|set| vec![Statement::ServiceIn(set), drop()]);
        let of_clients = listen::left_to_host(family).into_iter().chain(of_forwards);
        chains.push(Chain::regular(name, title, of_clients.collect()));
    }
    let title = "packets that conntrack finds invalid";
    chains.insert(0, Chain::regular(INVALID.into(), title.into(), rules));
    if has_local_chain(config) {
        let title = "packets to this host alone that conntrack finds invalid";
        chains.insert(1, Chain::regular(INVALID_LOCAL.into(), title.into(), local));
    }
    if are_routed(config) {
        let title =
            "packets to other hosts that conntrack finds invalid, but for frames of a bridge";
        let rules = vec![
            vec![Statement::FromBridgeToBridge, Statement::Return],
            vec![Statement::Goto(INVALID.into())],
        ];
        chains.push(Chain::regular(INVALID_ROUTED.into(), title.into(), rules));
    }
    let title = "packets of forwarded connections that conntrack finds invalid";
    let dropped = vec![vec![Statement::Counter, Statement::Drop]];
    chains.push(Chain::regular(
        DROPPED_INVALID.into(),
        title.into(),
        dropped,
    ));
    chains
}

/// The rules for packets of destinations.
fn from_destinations(
    ruleset: &Ruleset,
    config: &Config,
    family: Family,
) -> impl Iterator<Item = Rule> {
    let rule = move |set| vec![Statement::FromBackendIn(family, set), drop()];
    ruleset.existing(backend_sets(config), family).map(rule)
}

fn drop() -> Statement {
    Statement::Goto(DROPPED_INVALID.into())
}
