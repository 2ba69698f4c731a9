//! The paths of replies: back to clients, past this host, or out of another interface than clients come in on.

use super::{Egress, EgressKey, Paths, Uplink, reason, reverse_path_filter_is_strict};
use crate::check::surroundings::CLIENT_PORT;
use crate::check::{Finding, Level};
use crate::config::{Allowed, Config, Family, OptionName, first_few};
use crate::rtnetlink::{
    Arrival, Ingress, Interface, OwnAddress, Ports, Route, RtnetlinkError, forwards_from,
};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

const SUBJECT: &str = "replies";

impl Paths {
    /// What is wrong with the paths of replies, or that nothing is.
    pub fn replies(&self, config: &Config) -> Result<Vec<Finding>, RtnetlinkError> {
        let mut findings = Vec::from_iter(self.lost_replies());
        findings.extend(self.unknown_clients(config));
        findings.extend(self.other_uplinks()?);
        findings.extend(self.bypassing_replies(config));
        if findings.is_empty() {
            let text = "those of every destination have a route back";
            findings.push(Finding::new(Level::Ok, SUBJECT, text));
        }
        Ok(findings)
    }

    /// Destinations whose replies the kernel would not forward. It routes them to the client, since it
    /// undoes masquerading before.
    fn lost_replies(&self) -> Option<Finding> {
        for (key, egress) in &self.egresses {
            let (address, ..) = key;
            let (Egress::Through(interface), Some(Ingress { client, .. })) =
                (egress, self.ingress(Family::of(*address)))
            else {
                continue;
            };
            let back = self.reply_route(*client, *key, interface);
            if matches!(back, Ok(None)) && forwards_from(Family::of(*address), interface) {
                let name = &interface.name;
                let text = format!("those of {address}, which come in on {name}, are dropped: ");
                return Some(reason(*client, *address, interface).failure(SUBJECT, text));
            }
        }
        None
    }

    /// Where the kernel sends a destination's reply to a client, which comes in on this interface.
    fn reply_route(
        &self,
        client: IpAddr,
        (from, protocol, source): EgressKey,
        input: &Interface,
    ) -> Result<Option<Route>, RtnetlinkError> {
        let arrival = Arrival {
            from,
            interface: input.index,
        };
        let ports = Ports {
            protocol: protocol.number(),
            source,
            destination: CLIENT_PORT,
        };
        self.routes.find(client, Some(arrival), Some(ports))
    }

    /// Clients that there is no route to.
    fn unknown_clients(&self, config: &Config) -> Vec<Finding> {
        let mut findings = Vec::new();
        for family in config.families() {
            let clients = &self.unreachable[family as usize];
            let [first, ..] = &clients[..] else { continue };
            let all = match config.sources.of(family) {
                Allowed::Ranges(ranges) => ranges.len() == clients.len(),
                _ => false,
            };
            let (level, who, to) = if first.prefix_len() == 0 {
                let who = format!("clients of other networks than this host's own, over {family}");
                (Level::Doubt, who, "default".to_owned())
            } else {
                let level = if all { Level::Failure } else { Level::Warning };
                (level, first_few(clients.iter()), first.to_string())
            };
            let text = format!("{who}, get none: there is no route to them");
            let vrf = self.in_vrf();
            let command = format!("ip {}route add {to} via ROUTER{vrf}", option(family));
            let finding = Finding::new(level, SUBJECT, text);
            findings.push(finding.mended("; add one with", Some(command)));
        }
        findings
    }

    /// Interfaces that clients come in on, while replies to them leave through another: that of the default
    /// route. The reverse-path filter drops what comes in there, or a router on the other way what leaves.
    fn other_uplinks(&self) -> Result<Vec<Finding>, RtnetlinkError> {
        let mut findings = Vec::new();
        for Uplink { input, back, sure } in &self.other_uplinks {
            let client = back.client;
            let family = Family::of(client);
            let (name, out) = (&input.name, &back.interface);
            let who = match self.from {
                Some(from) => format!("{}, which comes in on {name},", from.address),
                None => format!("clients of other networks than its own that come in on {name}"),
            };
            if reverse_path_filter_is_strict(family, input) {
                // Of one client, the line about routes says so.
                if self.from.is_none() {
                    let text = format!("{who} get none: ");
                    let finding = reason(client, client, input).failure(SUBJECT, text);
                    let level = if *sure { Level::Failure } else { Level::Doubt };
                    findings.push(Finding { level, ..finding });
                }
            } else if !self.leads_back(client, input)? {
                let sure = *sure && out.is_tunnel;
                let level = if sure { Level::Failure } else { Level::Doubt };
                let text = format!(
                    "those to {who} leave through {}, where few networks let them pass: route them back through {name}, or limit who may connect",
                    out.name
                );
                findings.push(Finding::new(level, SUBJECT, text));
            }
        }
        Ok(findings)
    }

    /// Whether the replies of all destinations leave through an interface, or a routing rule for marked packets,
    /// such as those of a second uplink's connections, leads there.
    fn leads_back(&self, client: IpAddr, out: &Interface) -> Result<bool, RtnetlinkError> {
        let mut routes = BTreeSet::new();
        for (key, egress) in &self.egresses {
            if let (Egress::Through(input), true) =
                (egress, Family::of(key.0) == Family::of(client))
            {
                routes.insert(self.reply_route(client, *key, input)?);
            }
        }
        if routes == BTreeSet::from([Some(Route::Through(out.index))]) {
            return Ok(true);
        }
        for mark in self.routes.marks(Family::of(client))? {
            if self.routes.find_marked(client, mark)? == Some(Route::Through(out.index)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Without masquerading, replies must come back through this host: those to clients in the destination's
    /// own subnet do not, and of others it cannot be seen from here.
    fn bypassing_replies(&self, config: &Config) -> Vec<Finding> {
        let (mut past, mut unknown) = (Vec::new(), Vec::new());
        if config.masquerade {
            return Vec::new();
        }
        let mut addresses: Vec<IpAddr> = self
            .egresses
            .iter()
            .filter_map(|((address, ..), egress)| {
                matches!(egress, Egress::Through(_)).then_some(*address)
            })
            .collect();
        addresses.retain(|address| {
            let sources = config.sources.of(Family::of(*address));
            *sources != Allowed::None
        });
        addresses.dedup();
        for address in addresses {
            let mut networks = self.own.iter().filter(|own| own.network.contains(&address));
            match networks.find(|own| self.has_clients_past(config, own)) {
                Some(own) => past.push(format!("{address} to clients in {}", own.network.trunc())),
                None => unknown.push(address),
            }
        }
        let option = OptionName::MASQUERADE;
        let mut findings = Vec::new();
        if !past.is_empty() {
            let past = first_few(past.iter());
            let text = format!(
                "those of {past} bypass this host, which alone could translate them back: set {option} to true"
            );
            findings.push(Finding::new(Level::Failure, SUBJECT, text));
        }
        if !unknown.is_empty() {
            let unknown = first_few(unknown.iter());
            let text = format!(
                "not looked at: whether {unknown} routes those to clients through this host, as it must while {option} is false"
            );
            findings.push(Finding::new(Level::Doubt, SUBJECT, text));
        }
        findings
    }

    /// Whether replies to clients in a network of this host's bypass it: those that pass a bridge of its own
    /// are translated too where bridges call iptables.
    fn has_clients_past(&self, config: &Config, own: &OwnAddress) -> bool {
        let name = match own.address {
            IpAddr::V4(_) => "iptables",
            IpAddr::V6(_) => "ip6tables",
        };
        let file = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
        let calls = fs::read_to_string(file).is_ok_and(|value| value.trim() != "0");
        let interface = self.routes.interface(own.interface).ok().flatten();
        let is_bridge = interface.is_some_and(|interface| interface.bridge.is_some());
        self.has_clients_in(config, own.network, own.interface) && !(calls && is_bridge)
    }

    /// Whether clients come from this network, which is on a link of this host.
    fn has_clients_in(&self, config: &Config, network: IpNet, link: u32) -> bool {
        let family = Family::of(network.addr());
        let ingress = self.ingress(family);
        if let Some(client) = self.from {
            return network.contains(&client.address);
        }
        match config.sources.of(family) {
            Allowed::None => false,
            Allowed::All => ingress.is_some_and(|ingress| ingress.interface.index == link),
            Allowed::Ranges(ranges) => {
                let same_link = ingress.is_some_and(|ingress| ingress.interface.index == link);
                let is_here = |range: &IpNet| {
                    network.contains(range) || same_link && range.contains(&network)
                };
                ranges.iter().any(is_here)
            }
        }
    }
}

/// The option of ip(8) for a family, where the arguments do not say it.
fn option(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "",
        Family::Ipv6 => "-6 ",
    }
}
