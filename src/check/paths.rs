//! The paths to destinations and back, as the kernel would route packets.

mod clients;
mod destinations;
mod listen;
mod replies;

use super::client::Client;
use super::sockets::Sockets;
use super::surroundings::CLIENT_PORT;
use super::{Finding, Level, kernel};
use crate::config::{Config, Destination, Family, Listen, Protocol, first_few};
use crate::nftables::list::BaseChain;
use crate::rtnetlink::{
    Addresses, Ingress, Interface, OwnAddress, Ports, Route, Routes, RtnetlinkError, forwards_from,
};
use crate::sysctl::{ForwardingError, is_on};
use crate::text::{interface_sysctl, shell_word};
use crate::xfrm::Policy;
use clients::Uplink;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;

pub use listen::unused;

/// The paths of everything that is to be forwarded.
pub struct Paths {
    pub routes: Routes,
    /// This host's addresses: all, and those on interfaces.
    addresses: Addresses,
    own: Vec<OwnAddress>,
    /// The only client that is followed.
    from: Option<Client>,
    ingresses: Vec<Ingress>,
    /// Whether clients of a family come in on several interfaces.
    several: [bool; 2],
    /// Sources that may connect, of each family, to which there is no route.
    unreachable: [Vec<IpNet>; 2],
    /// Where clients come in, but their replies do not leave.
    other_uplinks: Vec<Uplink>,
    egresses: BTreeMap<EgressKey, Egress>,
    /// The interfaces under those that packets come in and go out on.
    lower: Vec<Interface>,
}

/// What the route to a destination can depend on: its address, its protocol and its first port.
type EgressKey = (IpAddr, Protocol, u16);

/// Where packets to a destination go.
enum Egress {
    /// Nowhere: they are dropped.
    None,
    /// To this host itself.
    Local,
    /// To all hosts of a network.
    Broadcast,
    /// Out of an interface.
    Through(Interface),
}

impl Paths {
    /// Asks for this host's addresses only.
    pub fn open(from: Option<Client>, listen: &Listen) -> Result<Self, RtnetlinkError> {
        let routes = Routes::of(listen)?;
        Ok(Paths {
            own: routes.own_addresses()?,
            addresses: Addresses::read()?,
            routes,
            from,
            ingresses: Vec::new(),
            several: [false; 2],
            unreachable: [Vec::new(), Vec::new()],
            other_uplinks: Vec::new(),
            egresses: BTreeMap::new(),
            lower: Vec::new(),
        })
    }

    /// Asks the kernel about clients and every destination.
    pub fn follow(&mut self, config: &Config) -> Result<(), RtnetlinkError> {
        for family in config.families() {
            self.find_clients(config, family)?;
        }
        for forward in config.reachable_forwards() {
            for to in &forward.destinations {
                let key = egress_key(forward.service.protocol, to);
                if !self.egresses.contains_key(&key) {
                    let egress = self.find_egress(key)?;
                    self.egresses.insert(key, egress);
                }
            }
        }
        self.lower = self.find_lower()?;
        Ok(())
    }

    fn find_lower(&self) -> Result<Vec<Interface>, RtnetlinkError> {
        let mut hosts: BTreeMap<u32, (&Interface, BTreeSet<IpAddr>)> = BTreeMap::new();
        for (host, interface) in self.passed() {
            let of_interface = hosts.entry(interface.index);
            of_interface
                .or_insert((interface, BTreeSet::new()))
                .1
                .insert(host);
        }
        let mut found: Vec<Interface> = Vec::new();
        for (interface, hosts) in hosts.into_values() {
            for lower in self.routes.lower(interface, &hosts)? {
                if !found.contains(&lower) {
                    found.push(lower);
                }
            }
        }
        Ok(found)
    }

    /// The interfaces that clients and replies come in on, with a host there.
    fn passed(&self) -> impl Iterator<Item = (IpAddr, &Interface)> {
        let ingresses = self.ingresses.iter();
        let inputs = ingresses.map(|ingress| (ingress.client, &ingress.interface));
        inputs.chain(self.others().map(|(to, _, interface)| (to, interface)))
    }

    /// Whether a chain that is for some interfaces sees packets on their way below those of this host's routes.
    pub fn sees_below(&self, chain: &BaseChain) -> bool {
        self.lower.iter().any(|lower| chain.has_device(&lower.name))
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
            None if self.addresses.is_group(address) => return Ok(Egress::Broadcast),
            None => return Ok(Egress::None),
            Some(Route::Local) => return Ok(Egress::Local),
            Some(Route::Through(index)) => self.routes.interface(index)?,
        };
        Ok(interface.map_or(Egress::None, Egress::Through))
    }

    /// Where clients of a family come in.
    pub fn ingress(&self, family: Family) -> Option<&Ingress> {
        let mut ingresses = self.ingresses.iter();
        ingresses.find(|ingress| Family::of(ingress.client) == family)
    }

    /// The interface that all clients of a family come in on, if there is one.
    pub fn input(&self, family: Family) -> Option<&Interface> {
        let ingress = self.ingress(family);
        let ingress = ingress.filter(|_| !self.several[family as usize]);
        Some(&ingress?.interface)
    }

    /// Whether the route back to clients of a family leads out of the interface that they come in on; `None`
    /// if that is not known.
    pub fn has_way_back(&self, family: Family) -> Option<bool> {
        let input = self.input(family)?;
        let back = self.routes.find(self.ingress(family)?.client, None, None);
        Some(back.ok()? == Some(Route::Through(input.index)))
    }

    /// The client's address, if only one is followed.
    pub fn client(&self) -> Option<IpAddr> {
        self.from.map(|client| client.address)
    }

    /// The interface that leads to a destination, if one does.
    pub fn output(&self, protocol: Protocol, to: &Destination) -> Option<&Interface> {
        match self.egresses.get(&egress_key(protocol, to))? {
            Egress::Through(interface) => Some(interface),
            Egress::None | Egress::Local | Egress::Broadcast => None,
        }
    }

    /// The destinations that are other hosts, each once for a protocol and port, and where packets to them
    /// leave.
    pub fn others(&self) -> impl Iterator<Item = (IpAddr, Protocol, &Interface)> {
        let egresses = self.egresses.iter();
        egresses.filter_map(|((address, protocol, _), egress)| match egress {
            Egress::Through(interface) => Some((*address, *protocol, interface)),
            Egress::None | Egress::Local | Egress::Broadcast => None,
        })
    }

    /// What a command of ip(8) ends with that is about the VRF of these routes.
    fn in_vrf(&self) -> String {
        let vrf = self.routes.vrf().map(|vrf| self.routes.interface(vrf));
        let vrf = vrf.and_then(|vrf| vrf.ok().flatten());
        let name = vrf.as_ref().and_then(|vrf| shell_word(&vrf.name));
        name.map_or(String::new(), |name| format!(" vrf {name}"))
    }

    /// Whether a destination is this host itself.
    pub fn is_local(&self, protocol: Protocol, to: &Destination) -> bool {
        let egress = self.egresses.get(&egress_key(protocol, to));
        matches!(egress, Some(Egress::Local))
    }

    /// Whether an address is this host's own.
    fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.is_own(address) || self.own.iter().any(|own| own.address == address)
    }

    /// What is wrong with the paths of clients, connections and replies. `sockets` are those that listen on
    /// this host, for destinations that are its own addresses; `None` if they cannot be listed.
    pub fn findings(
        &self,
        config: &Config,
        sockets: Option<&Sockets>,
    ) -> Result<Vec<Finding>, RtnetlinkError> {
        let mut findings = self.missing_listen(config)?;
        findings.extend(self.followed_client(config));
        findings.extend(self.closed_interfaces(config)?);
        findings.push(self.missing());
        findings.extend(self.local(config, sockets));
        findings.extend(self.broadcasts(config));
        findings.extend(self.silent_neighbours()?);
        findings.extend(self.replies(config)?);
        Ok(findings)
    }

    /// Interfaces on the way whose packets other programs than netfilter see, and may drop.
    pub fn filtered(&self) -> Result<Option<Finding>, RtnetlinkError> {
        let passed = self.passed().map(|(_, interface)| interface);
        let mut seen = BTreeSet::new();
        let mut names = Vec::new();
        for interface in passed.chain(&self.lower) {
            if seen.insert(interface.index) && self.routes.has_filters(interface.index)? {
                names.push(&interface.name);
            }
        }
        let text = format!(
            "not looked at: filters of tc, or a program of XDP, on {}: see tc filter show, ip link show",
            first_few(names.iter())
        );
        let finding = || Finding::new(Level::Doubt, "firewall", text);
        Ok((!names.is_empty()).then(finding))
    }

    /// Those of these policies that may be for what is forwarded. Where packets go through, the kernel compares what
    /// they were before they were translated (nf_nat_decode_session in net/netfilter/nf_nat_core.c): to this host's
    /// own addresses.
    pub fn subject_to(&self, policies: &[Policy]) -> Option<Finding> {
        let passed = self.passed().map(|(host, _)| host);
        let hosts: BTreeSet<IpAddr> = passed
            .chain(self.own.iter().map(|own| own.address))
            .collect();
        let concerns = |policy: &&Policy| hosts.iter().any(|host| policy.concerns(*host));
        let concerned: Vec<&Policy> = policies.iter().filter(concerns).collect();
        let text = format!(
            "not looked at: policies of IPsec, {}: see ip xfrm policy",
            first_few(concerned.iter())
        );
        let finding = || Finding::new(Level::Doubt, "firewall", text);
        (!concerned.is_empty()).then(finding)
    }

    /// Interfaces that clients or replies come in on, but from which this host forwards nothing.
    fn closed_interfaces(&self, config: &Config) -> Result<Vec<Finding>, RtnetlinkError> {
        let mut listed = Vec::new();
        if self.from.is_none() && config.forwards_family(Family::Ipv4) {
            for name in config.listen.interfaces() {
                listed.extend(self.routes.interface_named(name)?);
            }
        }
        let listed = listed.iter().map(|interface| (Family::Ipv4, interface));
        let passed = self.passed();
        let passed = passed.map(|(address, interface)| (Family::of(address), interface));
        let mut seen = Vec::new();
        let mut findings = Vec::new();
        for (family, interface) in passed.chain(listed) {
            let name = &interface.name;
            if seen.contains(&(family, name)) {
                continue;
            }
            seen.push((family, name));
            // Of a family that is off, another line says so.
            if !forwards_from(family, interface) && is_on(family) {
                let interface = name.clone();
                findings.push(kernel::forwarding_off(
                    Level::Failure,
                    &ForwardingError::Interface { interface },
                ));
            }
        }
        Ok(findings)
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

/// Why packets to one address from another are dropped as they come in on an interface.
fn reason(to: IpAddr, from: IpAddr, interface: &Interface) -> Reason {
    let name = &interface.name;
    if reverse_path_filter_is_strict(Family::of(to), interface) {
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

/// The reverse-path filter (Documentation/networking/ip-sysctl.rst) is strict where the higher one of two
/// sysctls is 1; IPv6 has none.
fn reverse_path_filter_is_strict(family: Family, Interface { name, .. }: &Interface) -> bool {
    let value = |of: &str| {
        let file = format!("/proc/sys/net/ipv4/conf/{of}/rp_filter");
        fs::read_to_string(file).ok()?.trim().parse::<u8>().ok()
    };
    family == Family::Ipv4 && value("all").max(value(name)) == Some(1)
}
