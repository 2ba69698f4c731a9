//! The interfaces that carry what is forwarded.

use super::ingress::MAX_RANGES;
use super::interface::{IFINFOMSG, Lower};
use super::{Ingress, Interface, Route, Routes, RtnetlinkError};
use crate::config::{Allowed, Config, Family, InterfaceName, is_link_local};
use crate::netlink::Request;
use nix::libc;
use std::collections::BTreeSet;

/// How many destinations of a family are looked up.
const MAX_DESTINATIONS: usize = 256;

impl Routes {
    /// All interfaces.
    pub fn interfaces(&self) -> Result<Vec<Interface>, RtnetlinkError> {
        let flags = libc::NLM_F_DUMP as u16;
        let request = Request::with_header(libc::RTM_GETLINK, flags, &[0; IFINFOMSG], 1);
        Ok(self.socket.list(&request, Interface::read)?)
    }

    /// Those that clients can come in on, those that the routes to destinations lead out of, and those below them:
    /// what a VLAN is on, and the ports of a bridge.
    pub fn carriers(&self, config: &Config) -> Result<Vec<Interface>, RtnetlinkError> {
        let mut interfaces = self.interfaces()?;
        let mut found = BTreeSet::new();
        for family in config.families() {
            found.extend(self.destination_interfaces(config, family)?);
            found.extend(self.client_interfaces(config, family, &interfaces)?);
        }
        add_lower(&mut found, &interfaces);
        interfaces.retain(|it| found.contains(&it.index) && !it.holds_addresses_only);
        Ok(interfaces)
    }

    /// For each interface that a route to a destination leads out of: that one, and those below it.
    pub fn destination_carriers(
        &self,
        config: &Config,
    ) -> Result<Vec<Vec<Interface>>, RtnetlinkError> {
        let interfaces = self.interfaces()?;
        let mut upper = BTreeSet::new();
        for family in config.families() {
            upper.extend(self.destination_interfaces(config, family)?);
        }
        let with_lower = |index| {
            let mut found = BTreeSet::from([index]);
            add_lower(&mut found, &interfaces);
            let found = interfaces.iter().filter(|it| found.contains(&it.index));
            found.cloned().collect()
        };
        Ok(upper.into_iter().map(with_lower).collect())
    }

    fn destination_interfaces(
        &self,
        config: &Config,
        family: Family,
    ) -> Result<BTreeSet<u32>, RtnetlinkError> {
        let forwards = config.reachable_forwards();
        let of_family = forwards.filter(|forward| forward.service.family == family);
        let destinations = of_family.flat_map(|forward| &forward.destinations);
        let addresses: BTreeSet<_> = destinations.map(|to| to.address).collect();
        let mut found = BTreeSet::new();
        for address in addresses.into_iter().take(MAX_DESTINATIONS) {
            if let Some(Route::Through(index)) = self.find(address, None, None)? {
                found.insert(index);
            }
        }
        Ok(found)
    }

    /// Any interface with an address that clients can connect to, and where the routes to ranges of sources lead: clients
    /// may come in there too. The ranges alone do not tell, since routes may lead to parts of them.
    fn client_interfaces(
        &self,
        config: &Config,
        family: Family,
        interfaces: &[Interface],
    ) -> Result<BTreeSet<u32>, RtnetlinkError> {
        let listen = &config.listen;
        let is_listed = |interface: &&Interface| {
            let name: Option<InterfaceName> = interface.name.parse().ok();
            name.is_some_and(|name| listen.interfaces().contains(&name))
        };
        let mut found: BTreeSet<u32> = interfaces
            .iter()
            .filter(is_listed)
            .map(|it| it.index)
            .collect();
        if !found.is_empty() && listen.addresses().is_empty() {
            return Ok(found);
        }
        if let Allowed::Ranges(ranges) = config.sources.of(family) {
            for range in ranges.iter().take(MAX_RANGES) {
                let ingress = Ingress::of_range(self, *range)?;
                found.extend(ingress.map(|ingress| ingress.interface.index));
            }
        }
        for own in self.own_addresses()? {
            let listed = listen.addresses().is_empty() || listen.addresses().contains(&own.address);
            let is_usable = !is_link_local(own.address) && !own.address.is_loopback();
            if listed && is_usable && Family::of(own.address) == family {
                found.insert(own.interface);
            }
        }
        Ok(found)
    }
}

/// Adds those below interfaces, and below these.
fn add_lower(found: &mut BTreeSet<u32>, interfaces: &[Interface]) {
    let mut next = Vec::from_iter(found.iter().copied());
    while let Some(index) = next.pop() {
        found.insert(index);
        if let Some(above) = interfaces.iter().find(|it| it.index == index) {
            let below = interfaces.iter().filter(|below| is_below(below, above));
            next.extend(below.map(|it| it.index).filter(|it| !found.contains(it)));
        }
    }
}

/// Whether an interface is directly below another one.
fn is_below(below: &Interface, above: &Interface) -> bool {
    let is_port = || {
        below
            .part_of
            .is_some_and(|whole| whole.index == above.index)
    };
    above.lower == Lower::One(below.index) || above.bridge.is_some() && is_port()
}
