//! The conntrack entries of an instance's connections, counted at the destinations that they go to.

use super::{DestinationStatus, ForwardStatus, Instance};
use crate::config::{Destination, PortRange, Service};
use crate::conntrack::Flow;
use crate::logging::with_causes;
use crate::rtnetlink::Addresses;
use log::warn;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// Counts each flow, and adds the destinations that flows go to though the rules no longer lead there.
pub fn count(instance: &mut Instance, flows: &[Flow]) {
    if flows.is_empty() {
        return count_on(instance, flows, None);
    }
    let addresses = Addresses::read_of(&instance.interfaces);
    let addresses = addresses.map_err(|error| {
        let causes = with_causes(&error);
        warn!("connections to destinations that are not listed are not shown: {causes}");
    });
    count_on(instance, flows, addresses.ok().as_ref());
}

/// The same on a host with these addresses, if they are known.
fn count_on(instance: &mut Instance, flows: &[Flow], addresses: Option<&Addresses>) {
    let matcher = Matcher::new(instance, addresses);
    let mut indices = HashMap::new();
    for (forward, status) in instance.forwards.iter_mut().enumerate() {
        for (destination, status) in status.destinations.iter_mut().enumerate() {
            (status.active, status.unanswered) = (Some(0), Some(0));
            indices.entry((forward, status.to)).or_insert(destination);
        }
    }
    let mut unlisted = Unlisted::new();
    for flow in flows {
        let service = |forward: &ForwardStatus| forward.service;
        let made_to = (flow.family, flow.protocol, flow.port);
        let found = Service::position(&instance.forwards, service, made_to);
        let Some((index, backend)) = found.zip(flow.backend) else {
            continue;
        };
        let ports = instance.forwards[index].service.ports;
        let mut leading = Destination::leading_to(backend, ports, flow.port);
        match leading.find_map(|to| indices.get(&(index, to))) {
            Some(destination) if matcher.may_be_forwarded(flow) => {
                instance.forwards[index].destinations[*destination].add(flow);
            }
            None if matcher.was_forwarded(flow) => {
                add_unlisted(&mut unlisted, (index, ports), backend, flow);
            }
            _ => {}
        }
    }
    for ((index, ..), destination) in unlisted {
        instance.forwards[index].destinations.push(destination);
    }
}

/// Destinations that are not listed, by their forward and their address, and, of a single port, by theirs.
type Unlisted = BTreeMap<(usize, IpAddr, Option<u16>), DestinationStatus>;

/// Of a range of ports, those at one address are one destination.
fn add_unlisted(
    unlisted: &mut Unlisted,
    (index, forwarded): (usize, PortRange),
    (address, port): (IpAddr, u16),
    flow: &Flow,
) {
    let Ok(ports) = PortRange::try_from((port, port)) else {
        return;
    };
    let key = (index, address, forwarded.is_single().then_some(port));
    let destination = unlisted.entry(key).or_insert_with(|| {
        let to = Destination { address, ports };
        DestinationStatus {
            listed: false,
            ..DestinationStatus::new(to, 0)
        }
    });
    let seen = destination.to.ports;
    let both = (seen.first().min(port), seen.last().max(port));
    destination.to.ports = PortRange::try_from(both).unwrap_or(seen);
    destination.add(flow);
}

impl DestinationStatus {
    fn add(&mut self, flow: &Flow) {
        *self.active.get_or_insert(0) += 1;
        *self.unanswered.get_or_insert(0) += u64::from(!flow.replied);
    }
}

/// Tells an instance's flows from those that other programs' rules have translated.
struct Matcher<'a> {
    addresses: Option<&'a Addresses>,
    listen: HashSet<IpAddr>,
    by_interface: bool,
    /// Whether it forwards packets to any address.
    any: bool,
    /// Whether it forwards this host's own connections.
    output: bool,
}

impl<'a> Matcher<'a> {
    fn new(instance: &Instance, addresses: Option<&'a Addresses>) -> Self {
        let options = instance.options.as_ref();
        Matcher {
            addresses,
            listen: instance.listen.iter().copied().collect(),
            by_interface: !instance.interfaces.is_empty(),
            any: options.is_some_and(|options| options.listen == "any"),
            output: options.is_some_and(|options| options.output),
        }
    }

    /// Of a flow to a listed destination. It may have been made to an address that this host has lost.
    fn may_be_forwarded(&self, flow: &Flow) -> bool {
        let is_elsewhere = |addresses: &Addresses| addresses.is_elsewhere(flow.destination);
        self.listen.contains(&flow.destination)
            || self.listen.is_empty() && !self.by_interface
            || self.by_interface && !self.addresses.is_some_and(is_elsewhere)
    }

    /// Of a flow to another destination: only where it was made to tells whose it is.
    fn was_forwarded(&self, flow: &Flow) -> bool {
        let Some(addresses) = self.addresses else {
            return false;
        };
        let to = flow.destination;
        let listens = if self.by_interface {
            self.listen.contains(&to) || addresses.is_reached_over_interfaces(to)
        } else if self.listen.is_empty() {
            self.any && !addresses.is_group(to) || addresses.is_own(to)
        } else {
            self.listen.contains(&to)
        };
        listens && (self.output || !addresses.is_own(flow.source))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::config::{Family, Protocol};
    use nix::libc;

    fn flow(port: u16, to: &str, to_port: u16) -> Flow {
        let (family, source, destination) = match to.contains(':') {
            false => (Family::Ipv4, "10.9.0.1", "10.1.0.1"),
            true => (Family::Ipv6, "fd00:9::1", "fd00::1"),
        };
        Flow {
            family,
            protocol: Protocol::Tcp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            port,
            backend: Some((to.parse().unwrap(), to_port)),
            masqueraded: true,
            source_port: 4000,
            replies_to: (source.parse().unwrap(), 4000),
            replied: true,
        }
    }

    /// An instance before anything is counted.
    fn instance() -> Instance {
        let mut instance = sample::instances().remove(0);
        for forward in &mut instance.forwards {
            forward
                .destinations
                .retain(|destination| destination.listed);
        }
        instance
    }

    fn counted(instance: &Instance) -> Vec<(String, bool, Option<u64>, Option<u64>)> {
        let destinations = instance.forwards.iter().flat_map(|it| &it.destinations);
        let counted =
            |it: &DestinationStatus| (it.to.to_string(), it.listed, it.active, it.unanswered);
        destinations.map(counted).collect()
    }

    #[test]
    fn a_flow_is_counted_at_its_destination() {
        let mut elsewhere = flow(80, "10.2.0.12", 8080);
        elsewhere.destination = "10.1.0.2".parse().unwrap();
        let mut unanswered = flow(80, "10.2.0.12", 8080);
        unanswered.replied = false;
        let flows = [
            flow(80, "10.2.0.12", 8080),
            unanswered,
            flow(81, "10.2.0.12", 8080),
            flow(8000, "fd00:2::11", 9),
            flow(8100, "fd00:2::11", 109),
            elsewhere,
        ];
        let mut instance = instance();
        count_on(&mut instance, &flows, None);
        assert_eq!(
            counted(&instance),
            [
                ("10.2.0.11:8080".to_owned(), true, Some(0), Some(0)),
                ("10.2.0.12:8080".to_owned(), true, Some(2), Some(1)),
                ("[fd00:2::11]:9-109".to_owned(), true, Some(2), Some(0)),
            ]
        );
    }

    #[test]
    fn flows_to_other_destinations_are_counted_unless_they_were_made_elsewhere() {
        let mut elsewhere = flow(80, "10.2.0.9", 8080);
        elsewhere.destination = "10.1.0.2".parse().unwrap();
        let mut own = flow(80, "10.2.0.9", 8080);
        own.source = "10.1.0.1".parse().unwrap();
        let mut unanswered = flow(8100, "fd00:2::12", 101);
        unanswered.replied = false;
        let flows = [
            flow(80, "10.2.0.9", 8080),
            flow(80, "10.2.0.9", 8081),
            flow(8000, "fd00:2::12", 1),
            unanswered,
            flow(81, "10.2.0.9", 8080),
            elsewhere,
            own,
        ];
        let own = |address: &str| (libc::RTN_LOCAL, address.parse().unwrap());
        let addresses: Addresses = [own("10.1.0.1/32"), own("fd00::1/128")]
            .into_iter()
            .collect();
        let mut instance = instance();
        count_on(&mut instance, &flows, Some(&addresses));
        let mut found = counted(&instance);
        found.retain(|(_, listed, ..)| !listed);
        assert_eq!(
            found,
            [
                ("10.2.0.9:8080".to_owned(), false, Some(1), Some(0)),
                ("10.2.0.9:8081".to_owned(), false, Some(1), Some(0)),
                ("[fd00:2::12]:1-101".to_owned(), false, Some(2), Some(1)),
            ]
        );
    }
}
