//! Destinations: routes to them, their neighbours, and those that are this host itself or a whole network.

use super::{Egress, EgressKey, Paths, egress_key, reason};
use crate::check::sockets::{Sockets, listens};
use crate::check::{Finding, Level};
use crate::config::{Config, Family, Protocol, first_few};
use crate::rtnetlink::{Ingress, RtnetlinkError, SilentNeighbour};
use crate::text::interface_sysctl;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

const SUBJECT: &str = "routes";

impl Paths {
    /// Destinations that packets cannot be sent to.
    pub fn missing(&self) -> Finding {
        let missing = |((address, ..), egress): (&EgressKey, &Egress)| {
            matches!(egress, Egress::None).then_some(*address)
        };
        let mut missing: Vec<IpAddr> = self.egresses.iter().filter_map(missing).collect();
        missing.dedup();
        let Some(first) = missing.first() else {
            return Finding::new(Level::Ok, SUBJECT, "every destination has one");
        };
        let shown = first_few(missing.iter());
        match self.ingress(Family::of(*first)) {
            // This host's own packets have a route.
            Some(Ingress {
                client, interface, ..
            }) if self.has_route(*first) => {
                let name = &interface.name;
                let text = format!("none to {shown} for packets that come in on {name}: ");
                reason(*first, *client, interface).failure(SUBJECT, text)
            }
            _ => Finding::new(Level::Failure, SUBJECT, format!("none to {shown}")).mended(
                ": add one with",
                Some(format!("ip route add {first} via ROUTER{}", self.in_vrf())),
            ),
        }
    }

    fn has_route(&self, address: IpAddr) -> bool {
        matches!(self.routes.find(address, None, None), Ok(Some(_)))
    }

    /// Destinations that are this host itself: their connections go to its own sockets.
    pub fn local(&self, config: &Config, sockets: Option<&Sockets>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for forward in config.reachable_forwards() {
            for to in &forward.destinations {
                let protocol = forward.service.protocol;
                if !self.is_local(protocol, to) {
                    continue;
                }
                let (level, what) = match listens(sockets, protocol, to) {
                    Some(true) => (Level::Ok, "goes to the socket that listens there"),
                    Some(false) => (
                        Level::Doubt,
                        "is refused until a server listens there: start one, or forward to another host",
                    ),
                    None => (
                        Level::Doubt,
                        "goes to a server of this host, if one listens there",
                    ),
                };
                let service = forward.service.without_family();
                let text = format!("{to} is this host itself: {service} {what}");
                findings.push(Finding::new(level, SUBJECT, text));
            }
        }
        findings
    }

    /// Destinations that are the broadcast address of a network. The kernel forwards packets to one where
    /// `bc_forwarding` is on, for all interfaces and for the one that they come in on
    /// (ip_route_input_slow in net/ipv4/route.c). Replies come from other addresses, which conntrack does
    /// not know.
    pub fn broadcasts(&self, config: &Config) -> Vec<Finding> {
        let mut findings = Vec::new();
        for forward in config.reachable_forwards() {
            let protocol = forward.service.protocol;
            for to in &forward.destinations {
                let egress = self.egresses.get(&egress_key(protocol, to));
                if matches!(egress, Some(Egress::Broadcast)) {
                    findings.push(self.broadcast(protocol, to.address));
                }
            }
        }
        findings.dedup();
        findings
    }

    fn broadcast(&self, protocol: Protocol, address: IpAddr) -> Finding {
        let text = format!("{address} is a broadcast address: ");
        if protocol != Protocol::Udp {
            let text = text + &format!("no {protocol} connection can be made to it");
            return Finding::new(Level::Failure, SUBJECT, text);
        }
        let ingress = self.ingress(Family::Ipv4);
        let input = ingress.map_or("default", |ingress| &*ingress.interface.name);
        let is_off = |of: &str| {
            let file = format!("/proc/sys/net/ipv4/conf/{of}/bc_forwarding");
            fs::read_to_string(file).is_ok_and(|value| value.trim() == "0")
        };
        let mut off = vec!["all", input];
        off.retain(|of| is_off(of));
        let settings = off
            .iter()
            .filter_map(|of| interface_sysctl(of, "bc_forwarding=1"));
        let command = format!("sysctl -w {}", settings.collect::<Vec<_>>().join(" "));
        if off.is_empty() {
            let text = text
                + "its hosts get the packets, but no client gets their replies; rules on the way there were not looked at";
            return Finding::new(Level::Warning, SUBJECT, text);
        }
        let text = text + "this host forwards no packets to it";
        Finding::new(Level::Failure, SUBJECT, text).mended("; forward them with", Some(command))
    }

    /// Destinations, or the routers to them, that have not replied when this host asked for their link-layer
    /// addresses.
    pub fn silent_neighbours(&self) -> Result<Option<Finding>, RtnetlinkError> {
        let silent = self.routes.silent_neighbours()?;
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for ((address, ..), egress) in &self.egresses {
            let Egress::Through(interface) = egress else {
                continue;
            };
            if silent.is_empty() || !seen.insert(*address) {
                continue;
            }
            let hop = self.routes.next_hop(*address)?;
            let is_hop = |neighbour: &&SilentNeighbour| {
                (neighbour.address, neighbour.interface) == (hop, interface.index)
            };
            if let Some(neighbour) = silent.iter().find(is_hop) {
                let router = if hop == *address {
                    String::new()
                } else {
                    format!("router {hop}, ")
                };
                let state = if neighbour.failed {
                    "FAILED"
                } else {
                    "INCOMPLETE"
                };
                found.push(format!("{address} ({router}{state} on {})", interface.name));
            }
        }
        let text = format!(
            "no reply when this host asked who has the address (see ip neigh): {}: is that host up, and is the address right?",
            first_few(found.iter())
        );
        let finding = || Finding::new(Level::Doubt, "neighbours", text);
        Ok((!found.is_empty()).then(finding))
    }
}
