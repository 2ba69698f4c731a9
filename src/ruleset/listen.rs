//! `NODEFWD_LISTEN`: which packets that come in are led to the chain of their family, by the address
//! that they are sent to or the interface that they come in on.

use super::sets::{empty, keys};
use super::{
    AddressType, Field, FieldType, LISTEN, LISTEN_INTERFACES, Rule, Set, Statement, set_name,
};
use crate::config::{Config, Family, Listen};
use std::net::IpAddr;

/// The addresses to listen on, if the option lists any of this family.
pub fn set(config: &Config, family: Family) -> Set {
    let of_family = addresses(config, family);
    let mut set = empty(LISTEN, family, vec![FieldType::address(family)]);
    set.elements = keys(of_family.map(|address| vec![Field::Address(*address)]));
    set
}

fn addresses(config: &Config, family: Family) -> impl Iterator<Item = &IpAddr> {
    let addresses = config.listen.addresses().iter();
    addresses.filter(move |ip| Family::of(**ip) == family)
}

/// The interfaces to listen on, if the option lists any.
pub fn interfaces(config: &Config) -> Option<Set> {
    let interfaces = config.listen.interfaces().iter();
    let elements = keys(interfaces.map(|name| vec![Field::Interface(*name)]));
    (!elements.is_empty()).then(|| Set {
        name: LISTEN_INTERFACES.into(),
        key: vec![FieldType::Ifname],
        interval: false,
        values: None,
        counter: false,
        elements,
    })
}

/// The rules that lead packets that come in to this chain of their family: the cheap test of the family
/// first, and of the others only packets to the right address.
pub fn rules(config: &Config, family: Family, chain: &str) -> Vec<Rule> {
    let jump = Statement::Jump(chain.into());
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
        Listen::Only { interfaces, .. } => {
            let mut rules = Vec::new();
            if addresses(config, family).next().is_some() {
                rules.push(vec![listens(family), jump.clone()]);
            }
            if !interfaces.is_empty() {
                // Neither alone knows every address that this host has.
                let local = [LOCAL, Statement::LocalToInterface];
                rules.extend(local.map(|local| {
                    let on_interface = Statement::InterfaceIn(LISTEN_INTERFACES.into());
                    vec![of_family.clone(), on_interface, local, jump.clone()]
                }));
            }
            rules
        }
    }
}

/// The rules that leave alone what only passes through a bridge of this host. With br_netfilter, a frame
/// from one port to another meets the same hooks as a packet that is routed, and all that differs is the
/// hardware address that it is sent to (br_nf_pre_routing in net/bridge/br_netfilter_hooks.c). So the routes
/// decide: a bridged frame would go back to its bridge, or has come from hosts that this one reaches elsewhere,
/// as where the bridge has no address.
pub fn bridged(config: &Config, family: Family) -> Vec<Rule> {
    if config.listen != Listen::Any {
        return Vec::new();
    }
    let from_bridge = || vec![Statement::FromBridge, Statement::Family(family)];
    let mut rules = [from_bridge(), from_bridge()];
    rules[0].extend([Statement::WouldTurnBack, Statement::Return]);
    rules[1].extend([
        Statement::ToOthers,
        Statement::SourceIsElsewhere,
        Statement::Return,
    ]);
    rules.into()
}

/// The rules for packets that are left to this host, in the chain of each family: those to its link-local
/// addresses come from link-local ones, which no router forwards.
pub fn left_to_host(family: Family) -> Option<Rule> {
    let rule = || vec![Statement::LinkLocalDestination, Statement::Return];
    (family == Family::Ipv6).then(rule)
}

/// A packet that this host itself receives.
pub const LOCAL: Statement = Statement::DestinationType(AddressType::Local);

/// A packet to one of the addresses to listen on.
pub fn listens(family: Family) -> Statement {
    Statement::DestinationIn(family, set_name(LISTEN, family))
}
