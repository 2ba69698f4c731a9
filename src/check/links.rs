//! The links to destinations: a bridge that does not send a packet back where it has come from, and a way out
//! that is narrower than the way in.

use super::paths::Paths;
use super::{Finding, Level};
use crate::config::{Config, Family, Protocol, first_few};
use crate::rtnetlink::{Interface, Routes, RtnetlinkError};
use crate::text::shell_word;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

/// How many hosts on bridges are looked up.
const MAX_HOSTS: usize = 256;

/// Destinations whose packets a bridge would have to send back out of the port that they come in on. With
/// br_netfilter, a frame whose destination is translated to a host on the same bridge goes there without being
/// routed (br_nf_pre_routing_finish in net/bridge/br_netfilter_hooks.c).
pub fn hairpin(paths: &Paths, config: &Config) -> Vec<Finding> {
    let mut bridged = BTreeMap::new();
    for (address, _, bridge) in paths.others() {
        if is_filtered(bridge, Family::of(address)) && bridged.len() < MAX_HOSTS {
            bridged.insert(address, bridge);
        }
    }
    let mut ports: BTreeMap<String, (&Interface, Kind, Vec<IpAddr>)> = BTreeMap::new();
    for (address, bridge) in bridged {
        let clients = clients(paths, bridge, Family::of(address));
        if !config.hairpin && clients.is_none() {
            continue;
        }
        let (name, kind) = match port(&paths.routes, bridge, address) {
            Ok(Some(port)) if port.sends_back() => continue,
            Ok(Some(port)) if clients == Some(port.index) => (port.name, Kind::Clients),
            Ok(Some(port)) if config.hairpin => (port.name, Kind::Itself),
            Ok(Some(_)) => continue,
            _ => (bridge.name.clone(), Kind::Unknown),
        };
        let (_, _, addresses) = ports.entry(name).or_insert((bridge, kind, Vec::new()));
        addresses.push(address);
    }
    let mut findings = Vec::new();
    for (port, (bridge, kind, addresses)) in &ports {
        findings.push(kind.finding(port, bridge, addresses));
    }
    findings
}

/// Whose packets a bridge does not send back.
enum Kind {
    /// Those of all clients.
    Clients,
    /// Those of the destination itself.
    Itself,
    /// It is not known which port the destination is behind.
    Unknown,
}

impl Kind {
    fn finding(&self, port: &str, bridge: &Interface, addresses: &[IpAddr]) -> Finding {
        const SUBJECT: &str = "hairpin";
        let (bridge, shown) = (&bridge.name, first_few(addresses.iter()));
        match self {
            Kind::Clients => {
                let text = format!(
                    "packets of clients to {shown} are dropped: both are behind port {port} of bridge {bridge}, which sends no frame back there; have this host route them"
                );
                let sysctl = addresses
                    .first()
                    .map(|address| sysctl(Family::of(*address)));
                let command = sysctl.map(|sysctl| format!("sysctl -w {sysctl}=0"));
                Finding::new(Level::Failure, SUBJECT, text).mended(" with", command)
            }
            Kind::Itself => {
                let text = format!(
                    "connections of {shown} to itself are lost: bridge {bridge} sends no frame back to port {port}, where they come in; have it do so"
                );
                let port = shell_word(port);
                let command = port.map(|port| format!("bridge link set dev {port} hairpin on"));
                Finding::new(Level::Warning, SUBJECT, text).mended(" with", command)
            }
            Kind::Unknown => {
                let text = format!(
                    "not looked at: which port of bridge {bridge} {shown} is behind: the kernel learns that when this host sends it a packet"
                );
                Finding::new(Level::Unseen, SUBJECT, text)
            }
        }
    }
}

/// The port of a bridge that clients come in on, if they come in on the bridge.
fn clients(paths: &Paths, bridge: &Interface, family: Family) -> Option<u32> {
    let ingress = paths.ingress(family)?;
    if ingress.interface.index != bridge.index {
        return None;
    }
    Some(port(&paths.routes, bridge, ingress.client).ok()??.index)
}

/// The port of a bridge that packets to an address leave on.
fn port(
    routes: &Routes,
    bridge: &Interface,
    to: IpAddr,
) -> Result<Option<Interface>, RtnetlinkError> {
    let host = routes.next_hop(to)?;
    Ok(match routes.bridge_port(bridge.index, host)? {
        Some(port) => routes.interface(port)?,
        None => None,
    })
}

/// Whether netfilter sees the frames of a family on a bridge.
fn is_filtered(interface: &Interface, family: Family) -> bool {
    let file = format!("/proc/sys/{}", sysctl(family).replace('.', "/"));
    interface.bridge.as_ref().is_some_and(|families| {
        families.contains(&family)
            || fs::read_to_string(file).is_ok_and(|value| value.trim() != "0")
    })
}

fn sysctl(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "net.bridge.bridge-nf-call-iptables",
        Family::Ipv6 => "net.bridge.bridge-nf-call-ip6tables",
    }
}

/// Ways to TCP destinations that are narrower than the way from the clients.
pub fn narrow(paths: &Paths, config: &Config) -> Option<Finding> {
    if config.clamp_mss {
        return None;
    }
    let mut narrow = Vec::new();
    let mut first = None;
    for (address, protocol, output) in paths.others() {
        let ingress = paths.ingress(Family::of(address));
        let of_route = paths.routes.route_mtu(address).ok().flatten();
        let mtu = of_route.unwrap_or(u32::MAX).min(output.mtu);
        if let Some(ingress) = ingress.filter(|ingress| mtu < ingress.interface.mtu) {
            if protocol == Protocol::Tcp && !narrow.contains(&address) {
                narrow.push(address);
                first.get_or_insert((&ingress.interface, output, mtu));
            }
        }
    }
    let (input, output, mtu) = first?;
    let text = format!(
        "packets to {} leave on {} with at most {mtu} bytes, and come in on {} with up to {}: where ICMP is dropped on the way to clients, large ones are lost; set NODEFWD_CLAMP_MSS=true (--clamp-mss)",
        first_few(narrow.iter()),
        output.name,
        input.name,
        input.mtu
    );
    Some(Finding::new(Level::Doubt, "MTU", text))
}
