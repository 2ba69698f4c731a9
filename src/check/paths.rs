//! The paths to destinations and back, as the kernel would route packets.

use super::sockets::{Sockets, listens};
use super::surroundings::CLIENT_PORT;
use super::{Finding, Level, kernel};
use crate::config::{Config, Destination, Family, Protocol, first_few};
use crate::rtnetlink::{
    Arrival, Ingress, Interface, Ports, Route, Routes, RtnetlinkError, forwards_from,
};
use crate::sysctl::ForwardingError;
use crate::text::{interface_sysctl, shell_word};
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

/// The paths of everything that is to be forwarded.
pub struct Paths {
    routes: Routes,
    ingresses: Vec<Ingress>,
    egresses: BTreeMap<EgressKey, Egress>,
}

/// What the route to a destination can depend on: its address, its protocol and its first port.
type EgressKey = (IpAddr, Protocol, u16);

/// Where packets to a destination go.
enum Egress {
    /// Nowhere: they are dropped.
    None,
    /// To this host itself.
    Local,
    /// Out of an interface.
    Through(Interface),
}

impl Paths {
    /// Asks the kernel about every destination.
    pub fn find(config: &Config) -> Result<Self, RtnetlinkError> {
        let mut paths = Paths {
            routes: Routes::open()?,
            ingresses: Vec::new(),
            egresses: BTreeMap::new(),
        };
        for family in config.families() {
            let ingress = Ingress::find(&paths.routes, config.sources.of(family), family)?;
            paths.ingresses.extend(ingress);
        }
        for forward in config.reachable_forwards() {
            for to in &forward.destinations {
                let key = egress_key(forward.service.protocol, to);
                if !paths.egresses.contains_key(&key) {
                    let egress = paths.find_egress(key)?;
                    paths.egresses.insert(key, egress);
                }
            }
        }
        Ok(paths)
    }

    /// For a client's packet; for this host's own, if it is not known where clients come in.
    fn find_egress(&self, (address, protocol, port): EgressKey) -> Result<Egress, RtnetlinkError> {
        let ingress = self.ingress(Family::of(address));
        let ingress = ingress.filter(|ingress| ingress.forwards);
        let ports = Ports {
            protocol: protocol.number(),
            source: CLIENT_PORT,
            destination: port,
        };
        let route = self
            .routes
            .find(address, ingress.map(Ingress::arrival), Some(ports))?;
        let interface = match route {
            None => return Ok(Egress::None),
            Some(Route::Local) => return Ok(Egress::Local),
            Some(Route::Through(index)) => self.routes.interface(index)?,
        };
        Ok(interface.map_or(Egress::None, Egress::Through))
    }

    fn ingress(&self, family: Family) -> Option<&Ingress> {
        let mut ingresses = self.ingresses.iter();
        ingresses.find(|ingress| Family::of(ingress.client) == family)
    }

    /// The interface that all clients of a family come in on, if there is one.
    pub fn input(&self, family: Family) -> Option<&Interface> {
        Some(&self.ingress(family)?.interface)
    }

    /// The interface that leads to a destination, if one does.
    pub fn output(&self, protocol: Protocol, to: &Destination) -> Option<&Interface> {
        match self.egresses.get(&egress_key(protocol, to))? {
            Egress::Through(interface) => Some(interface),
            Egress::None | Egress::Local => None,
        }
    }

    /// What is wrong with the paths of clients, connections and replies. `sockets` are those that listen on
    /// this host, for destinations that are its own addresses; `None` if they cannot be listed.
    pub fn findings(&self, config: &Config, sockets: Option<&Sockets>) -> Vec<Finding> {
        let mut findings = self.missing_interfaces(config);
        findings.extend(self.closed_interfaces());
        findings.push(self.missing());
        findings.extend(self.local(config, sockets));
        findings.push(self.lost_replies());
        findings
    }

    /// Interfaces to listen on that are not there yet.
    fn missing_interfaces(&self, config: &Config) -> Vec<Finding> {
        let mut names = config.listen.interfaces().to_vec();
        names.retain(|name| matches!(self.routes.has_interface(name), Ok(false)));
        let finding = |name| {
            let text =
                format!("there is no interface {name}: until there is, nothing comes in on it");
            Finding::new(Level::Warning, "listen", text)
        };
        names.into_iter().map(finding).collect()
    }

    /// Interfaces that clients or replies come in on, but from which this host forwards nothing.
    fn closed_interfaces(&self) -> Vec<Finding> {
        let ingresses = self.ingresses.iter();
        let inputs = ingresses.map(|ingress| (ingress.client, &ingress.interface));
        let outputs = self.egresses.iter();
        let outputs = outputs.filter_map(|((address, ..), egress)| match egress {
            Egress::Through(interface) => Some((*address, interface)),
            Egress::None | Egress::Local => None,
        });
        let mut seen = Vec::new();
        let mut findings = Vec::new();
        for (address, interface) in inputs.chain(outputs) {
            let name = &interface.name;
            if seen.contains(&(Family::of(address), name)) {
                continue;
            }
            seen.push((Family::of(address), name));
            if !forwards_from(Family::of(address), interface) {
                let interface = name.clone();
                findings.push(kernel::forwarding_off(
                    Level::Failure,
                    &ForwardingError::Interface { interface },
                ));
            }
        }
        findings
    }

    /// Destinations that packets cannot be sent to.
    fn missing(&self) -> Finding {
        const SUBJECT: &str = "routes";
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
                Some(format!("ip route add {first} via ROUTER")),
            ),
        }
    }

    fn has_route(&self, address: IpAddr) -> bool {
        matches!(self.routes.find(address, None, None), Ok(Some(_)))
    }

    /// Destinations that are this host itself: their connections go to its own sockets.
    fn local(&self, config: &Config, sockets: Option<&Sockets>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for forward in config.reachable_forwards() {
            for to in &forward.destinations {
                let protocol = forward.service.protocol;
                let egress = self.egresses.get(&egress_key(protocol, to));
                if !matches!(egress, Some(Egress::Local)) {
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
                findings.push(Finding::new(level, "routes", text));
            }
        }
        findings
    }

    /// Destinations whose replies the kernel would not forward. It routes them to the client, since it
    /// undoes masquerading before.
    fn lost_replies(&self) -> Finding {
        const SUBJECT: &str = "replies";
        for ((address, protocol, port), egress) in &self.egresses {
            let (Egress::Through(interface), Some(Ingress { client, .. })) =
                (egress, self.ingress(Family::of(*address)))
            else {
                continue;
            };
            let arrival = Arrival {
                from: *address,
                interface: interface.index,
            };
            let ports = Ports {
                protocol: protocol.number(),
                source: *port,
                destination: CLIENT_PORT,
            };
            let back = self.routes.find(*client, Some(arrival), Some(ports));
            if matches!(back, Ok(None)) && forwards_from(Family::of(*address), interface) {
                let name = &interface.name;
                let text = format!("those of {address}, which come in on {name}, are dropped: ");
                return reason(*client, *address, interface).failure(SUBJECT, text);
            }
        }
        Finding::new(
            Level::Ok,
            SUBJECT,
            "those of every destination have a route back",
        )
    }
}

fn egress_key(protocol: Protocol, to: &Destination) -> EgressKey {
    (to.address, protocol, to.ports.first())
}

/// Why packets are dropped, and the command that mends it.
struct Reason(String, Option<String>);

impl Reason {
    fn failure(self, subject: &'static str, text: String) -> Finding {
        let finding = Finding::new(Level::Failure, subject, text + &self.0);
        finding.mended("; set it to loose with", self.1)
    }
}

/// Why packets to one address from another are dropped as they come in on an interface. The
/// reverse-path filter (Documentation/networking/ip-sysctl.rst) is strict where the higher one of two
/// sysctls is 1; IPv6 has none.
fn reason(to: IpAddr, from: IpAddr, Interface { name, .. }: &Interface) -> Reason {
    let value = |of| {
        let file = format!("/proc/sys/net/ipv4/conf/{of}/rp_filter");
        fs::read_to_string(file).ok()?.trim().parse::<u8>().ok()
    };
    if to.is_ipv4() && value("all").max(value(name)) == Some(1) {
        let why = format!(
            "the reverse-path filter drops them: the route to {from} is through another interface"
        );
        let setting = interface_sysctl(name, "rp_filter=2");
        return Reason(why, setting.map(|setting| format!("sysctl -w {setting}")));
    }
    let why = match shell_word(name) {
        Some(name) => format!("ip route get {to} from {from} iif {name} says why"),
        None => "the routing rules have none".into(),
    };
    Reason(why, None)
}
