//! What must be forwarded for an instance's packets to get through while it runs.

use super::{ForwardingError, forwarding};
use crate::config::{Allowed, Config, Family, Listen};
use crate::rtnetlink::{Ingress, Interface, Route, Routes, RtnetlinkError, forwards_from};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How many destinations are looked up: those of more are likely to be reached the same way.
const MAX_DESTINATIONS: usize = 256;

/// The families whose forwards are in the kernel, and where their packets come from.
pub struct Needs {
    pub families: Vec<Family>,
    pub listen: Listen,
    /// The IPv4 sources that may connect.
    pub sources: Allowed,
    /// Replies come from there.
    pub destinations: BTreeSet<IpAddr>,
}

impl Needs {
    /// Those of an instance with this config.
    pub fn of(config: &Config) -> Self {
        let forwards = config.reachable_forwards();
        let destinations = forwards.flat_map(|forward| &forward.destinations);
        let destinations = destinations.map(|to| to.address);
        Needs {
            families: config.families().collect(),
            listen: config.listen.clone(),
            sources: config.sources.of(Family::Ipv4).clone(),
            destinations: Needs::some(destinations),
        }
    }

    /// As many of these addresses as are worth a look.
    pub fn some(addresses: impl Iterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
        let mut some = BTreeSet::new();
        for address in addresses {
            some.insert(address);
            if some.len() == MAX_DESTINATIONS {
                break;
            }
        }
        some
    }

    /// Why some of it is not forwarded now, or why that cannot be told. Asks over netlink; what /proc does not
    /// show to this process is said too, as a start would.
    pub fn unmet(&self) -> Result<Vec<ForwardingError>, RtnetlinkError> {
        let routes = Routes::of(&self.listen)?;
        // The kernel replies to this when a change of all interfaces is complete (rtnl_lock).
        let closed = self.closed_interfaces(&routes)?;
        let mut unmet = Vec::new();
        for family in &self.families {
            if routes.forwards(*family)? == Some(false) {
                unmet.push(ForwardingError::off(*family));
            } else if let Err(error) = forwarding(*family) {
                unmet.push(error);
            } else if *family == Family::Ipv4 {
                let error = |interface: &Interface| ForwardingError::Interface {
                    interface: interface.name.clone(),
                };
                unmet.extend(closed.iter().map(error));
            }
        }
        Ok(unmet)
    }

    /// Interfaces that clients or replies come in on, but from which no IPv4 packet is forwarded. Of IPv6
    /// only the switch for all interfaces matters (ip6_forward in net/ipv6/ip6_output.c).
    fn closed_interfaces(&self, routes: &Routes) -> Result<Vec<Interface>, RtnetlinkError> {
        let mut closed: Vec<Interface> = Vec::new();
        if !self.families.contains(&Family::Ipv4) {
            return Ok(closed);
        }
        let mut used = Vec::new();
        for name in self.listen.interfaces() {
            used.extend(routes.interface_named(name)?);
        }
        if self.listen.interfaces().is_empty() {
            let ingress = Ingress::find(routes, &self.sources, Family::Ipv4)?;
            used.extend(ingress.map(|found| found.interface));
        }
        for destination in self.destinations.iter().filter(|to| to.is_ipv4()) {
            if let Some(Route::Through(index)) = routes.find(*destination, None, None)? {
                used.extend(routes.interface(index)?);
            }
        }
        for interface in used {
            if !forwards_from(Family::Ipv4, &interface) && !closed.contains(&interface) {
                closed.push(interface);
            }
        }
        Ok(closed)
    }
}
