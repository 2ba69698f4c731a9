//! The ways to destinations and back, as the kernel would route them.

use super::entrance::{Entrance, forwards_from, switch};
use super::sockets::{Bound, listens};
use super::{CLIENT_PORT, Finding, Level, families, list};
use crate::config::{Config, Destination, Family, Forward, Protocol};
use crate::netfilter::{Arrival, Interface, NetfilterError, Ports, Route, Routes};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The ways of all that is to be forwarded.
pub struct Ways {
    routes: Routes,
    entrances: Vec<Entrance>,
    ways: BTreeMap<Target, Way>,
}

/// Address, protocol and first port of a destination.
type Target = (IpAddr, Protocol, u16);

/// The way to a destination.
enum Way {
    /// There is none.
    None,
    /// It is this host itself.
    Here,
    /// Through an interface.
    Through(Interface),
}

impl Ways {
    /// Asks the kernel about every destination.
    pub fn find(config: &Config) -> Result<Self, NetfilterError> {
        let mut ways = Ways {
            routes: Routes::open()?,
            entrances: Vec::new(),
            ways: BTreeMap::new(),
        };
        for family in families(config) {
            let entrance = Entrance::find(&ways.routes, config, family)?;
            ways.entrances.extend(entrance);
        }
        for forward in taken(config) {
            for to in &forward.destinations {
                let target = target(forward.protocol, to);
                if !ways.ways.contains_key(&target) {
                    let way = ways.way_to(target)?;
                    ways.ways.insert(target, way);
                }
            }
        }
        Ok(ways)
    }

    /// The way of a client's packet; of this host's own, if it is not known where clients come in.
    fn way_to(&self, (address, protocol, port): Target) -> Result<Way, NetfilterError> {
        let entrance = self.entrance(Family::of(address));
        let entrance = entrance.filter(|entrance| entrance.open);
        let ports = Ports {
            protocol,
            source: CLIENT_PORT,
            destination: port,
        };
        let route = self
            .routes
            .find(address, entrance.map(Entrance::arrival), Some(ports))?;
        let interface = match route {
            None => return Ok(Way::None),
            Some(Route::Local) => return Ok(Way::Here),
            Some(Route::Through(index)) => self.routes.interface(index)?,
        };
        Ok(interface.map_or(Way::None, Way::Through))
    }

    fn entrance(&self, family: Family) -> Option<&Entrance> {
        let mut entrances = self.entrances.iter();
        entrances.find(|entrance| Family::of(entrance.client) == family)
    }

    /// The interface that all clients of a family come in on, if there is such a one.
    pub fn input(&self, family: Family) -> Option<&Interface> {
        Some(&self.entrance(family)?.interface)
    }

    /// The interface that leads to a destination; nothing if none does.
    pub fn output(&self, protocol: Protocol, to: &Destination) -> Option<&Interface> {
        match self.ways.get(&target(protocol, to))? {
            Way::Through(interface) => Some(interface),
            Way::None | Way::Here => None,
        }
    }

    pub fn findings(&self, config: &Config, sockets: &[Bound]) -> Vec<Finding> {
        let mut findings = self.closed_interfaces();
        findings.push(self.missing());
        findings.extend(self.ends_here(config, sockets));
        findings.push(self.lost_answers());
        findings
    }

    /// Interfaces that let in clients or answers, but from which this host forwards nothing.
    fn closed_interfaces(&self) -> Vec<Finding> {
        let entrances = self.entrances.iter();
        let inputs = entrances.map(|entrance| (entrance.client, &entrance.interface));
        let outputs = self
            .ways
            .iter()
            .filter_map(|((address, ..), way)| match way {
                Way::Through(interface) => Some((*address, interface)),
                Way::None | Way::Here => None,
            });
        let mut seen = Vec::new();
        let mut findings = Vec::new();
        for (address, interface) in inputs.chain(outputs) {
            let name = &interface.name;
            if seen.contains(&(Family::of(address), name)) {
                continue;
            }
            seen.push((Family::of(address), name));
            if !forwards_from(address, interface) {
                let text = format!(
                    "off for packets that come in on {name}: turn it on with: sysctl -w net.ipv4.conf.{name}.forwarding=1"
                );
                findings.push(Finding::new(Level::Failure, "forwarding", text));
            }
        }
        findings
    }

    /// Destinations that packets cannot be sent to.
    fn missing(&self) -> Finding {
        const SUBJECT: &str = "routes";
        let missing =
            |((address, ..), way): (&Target, &Way)| matches!(way, Way::None).then_some(*address);
        let mut missing: Vec<IpAddr> = self.ways.iter().filter_map(missing).collect();
        missing.dedup();
        let Some(first) = missing.first() else {
            return Finding::new(Level::Ok, SUBJECT, "every destination has one");
        };
        let shown = list(missing.iter());
        let text = match self.entrance(Family::of(*first)) {
            // The host's own packets find a way.
            Some(Entrance {
                client, interface, ..
            }) if self.leads_to(*first) => format!(
                "none to {shown} for what comes in on {}: {}",
                interface.name,
                refusal(*first, *client, interface)
            ),
            _ => format!("none to {shown}: add one with: ip route add {first} via ROUTER"),
        };
        Finding::new(Level::Failure, SUBJECT, text)
    }

    fn leads_to(&self, address: IpAddr) -> bool {
        matches!(self.routes.find(address, None, None), Ok(Some(_)))
    }

    /// Destinations that are this host itself: the kernel gives their connections to its own sockets.
    fn ends_here(&self, config: &Config, sockets: &[Bound]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for forward in taken(config) {
            for to in &forward.destinations {
                let way = self.ways.get(&target(forward.protocol, to));
                if !matches!(way, Some(Way::Here)) {
                    continue;
                }
                let (level, what) = match listens(sockets, forward.protocol, to) {
                    Some(true) => (Level::Ok, "goes to the socket that listens there"),
                    Some(false) => (
                        Level::Doubt,
                        "is refused as long as nothing listens there; start a server, or forward to another host",
                    ),
                    None => (
                        Level::Doubt,
                        "goes to a socket of this host, if one listens there",
                    ),
                };
                let text = format!("{to} is this host itself: {} {what}", forward.service());
                findings.push(Finding::new(level, "routes", text));
            }
        }
        findings
    }

    /// Destinations whose answers the kernel would not pass on. They are meant for a client when it
    /// looks at them: masquerading is undone before.
    fn lost_answers(&self) -> Finding {
        const SUBJECT: &str = "answers";
        for ((address, protocol, port), way) in &self.ways {
            let (Way::Through(interface), Some(Entrance { client, .. })) =
                (way, self.entrance(Family::of(*address)))
            else {
                continue;
            };
            let arrival = Arrival {
                from: *address,
                interface: interface.index,
            };
            let ports = Ports {
                protocol: *protocol,
                source: *port,
                destination: CLIENT_PORT,
            };
            let back = self.routes.find(*client, Some(arrival), Some(ports));
            if matches!(back, Ok(None)) && forwards_from(*address, interface) {
                let text = format!(
                    "those of {address}, which come in on {}, are dropped: {}",
                    interface.name,
                    refusal(*client, *address, interface)
                );
                return Finding::new(Level::Failure, SUBJECT, text);
            }
        }
        Finding::new(
            Level::Ok,
            SUBJECT,
            "those of every destination have a way back",
        )
    }
}

fn target(protocol: Protocol, to: &Destination) -> Target {
    (to.address, protocol, to.ports.first())
}

/// What is forwarded, of the families of which anything is taken.
pub fn taken(config: &Config) -> impl Iterator<Item = &Forward> {
    config
        .forwards
        .iter()
        .filter(|forward| config.takes(forward.family))
}

/// Why packets to one address from another are dropped as they come in on an interface. The
/// reverse-path filter (Documentation/networking/ip-sysctl.rst) is strict where the higher one of two
/// switches is 1; IPv6 has none.
fn refusal(to: IpAddr, from: IpAddr, Interface { name, .. }: &Interface) -> String {
    let value = |of| switch(of, "rp_filter");
    match to.is_ipv4() && value("all").max(value(name)) == Some(1) {
        true => format!(
            "the reverse-path filter takes them for forged, since packets to {from} would leave elsewhere; loosen it with: sysctl -w net.ipv4.conf.{name}.rp_filter=2"
        ),
        false => format!("ip route get {to} from {from} iif {name} says why"),
    }
}
