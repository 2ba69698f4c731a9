//! Which conntrack entries are an instance's, and which must be deleted.
//!
//! The kernel decides at a connection's first packet whether it is forwarded, and keeps to that as long
//! as packets come. So a client that sent before the rules were installed, or while others were, is not
//! forwarded as it should be until its old conntrack entry is deleted.

#[cfg(test)]
mod tests;

use crate::config::{Allowed, Config, Destination, Forward, Listen, Protocol, Service, ServiceSet};
use crate::conntrack::{Flow, Wanted};
use crate::rtnetlink::Addresses;
use crate::siblings::Claims;
use std::collections::HashSet;
use std::net::IpAddr;

/// Tells an instance's flows from others. What it takes for a flow does not grow with the forwards,
/// their destinations, or the ranges of sources.
pub struct FlowMatcher<'a> {
    config: &'a Config,
    addresses: &'a Addresses,
    /// The destinations, each with the index of its forward.
    destinations: HashSet<(usize, Destination)>,
    /// The same without their ports.
    hosts: HashSet<(usize, IpAddr)>,
    /// The addresses to listen on, if only some are.
    listen: HashSet<IpAddr>,
}

impl<'a> FlowMatcher<'a> {
    /// For an instance on a host with these addresses.
    pub fn new(config: &'a Config, addresses: &'a Addresses) -> Self {
        let forwards = config.forwards.iter().enumerate();
        let destinations: HashSet<(usize, Destination)> = forwards
            .flat_map(|(index, forward)| forward.destinations.iter().map(move |to| (index, *to)))
            .collect();
        FlowMatcher {
            config,
            addresses,
            hosts: destinations
                .iter()
                .map(|(index, to)| (*index, to.address))
                .collect(),
            destinations,
            listen: match &config.listen {
                Listen::Addresses(addresses) => addresses.iter().copied().collect(),
                Listen::Any | Listen::Local => HashSet::new(),
            },
        }
    }

    /// Whether a conntrack entry must be deleted: it bypassed the rules, leads to a destination that is
    /// gone, lacks masquerading, or its source is no longer allowed. Of TCP, only the last: other TCP
    /// connections end by themselves.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let Some(forward) = self.forward(flow).filter(|_| self.listens(flow)) else {
            return false;
        };
        if !self.is_allowed(flow) {
            return flow.backend.is_some();
        }
        if flow.protocol == Protocol::Tcp || self.is_exempt(forward, flow) {
            return false;
        }
        match flow.backend {
            Some(backend) => {
                !self.leads_to(forward, flow.port, backend) || self.lacks_masquerade(flow)
            }
            None => true,
        }
    }

    /// Whether these rules have forwarded the flow, or those of an earlier instance with other
    /// destinations.
    pub fn is_forwarded(&self, flow: &Flow) -> bool {
        let (Some(forward), Some(backend)) = (self.forward(flow), flow.backend) else {
            return false;
        };
        // Only the rules lead there, so the destination was an address of this host when it began.
        let has_listened = || match self.config.listen {
            Listen::Local | Listen::Any => self.leads_to(forward, flow.port, backend),
            Listen::Addresses(_) => false,
        };
        (self.listens(flow) || has_listened()) && !self.is_exempt(forward, flow)
    }

    fn listens(&self, flow: &Flow) -> bool {
        match &self.config.listen {
            Listen::Any => !self.addresses.is_group(flow.destination),
            Listen::Local => self.addresses.is_own(flow.destination),
            Listen::Addresses(_) => self.listen.contains(&flow.destination),
        }
    }

    /// The index of the forward that the flow was made to.
    fn forward(&self, flow: &Flow) -> Option<usize> {
        let service = |forward: &Forward| forward.service;
        let made_to = (flow.family, flow.protocol, flow.port);
        Service::position(&self.config.forwards, service, made_to)
    }

    /// Whether a forward sends connections to `port`, one of its ports, to this backend.
    fn leads_to(&self, forward: usize, port: u16, backend: (IpAddr, u16)) -> bool {
        let ports = self.config.forwards[forward].service.ports;
        let mut destinations = Destination::leading_to(backend, ports, port);
        destinations.any(|to| self.destinations.contains(&(forward, to)))
    }

    fn is_allowed(&self, flow: &Flow) -> bool {
        let allowed = self.config.sources.of(flow.family);
        allowed.contains(flow.source)
    }

    /// Whether the rules leave it alone: a destination's own connection, or one of this host's own.
    fn is_exempt(&self, forward: usize, flow: &Flow) -> bool {
        let from_destination = self.hosts.contains(&(forward, flow.source));
        let to_own_address =
            || self.addresses.is_own(flow.destination) && !flow.destination.is_loopback();
        !self.config.hairpin && from_destination
            || self.addresses.is_own(flow.source) && !(self.config.output && to_own_address())
    }

    /// Whether the destination sees the client though it should not. For this host's own connections, and
    /// those to this host itself, masquerading makes no difference.
    fn lacks_masquerade(&self, flow: &Flow) -> bool {
        let is_own = |address| self.addresses.is_own(address);
        self.config.masquerade
            && !flow.masqueraded
            && !is_own(flow.source)
            && !flow.backend.is_some_and(|(address, _)| is_own(address))
    }
}

/// The flows that can be stale for this instance.
pub fn can_be_stale(config: &Config) -> Vec<Wanted> {
    let services = config.forwards.iter().map(|forward| forward.service);
    let wanted = services.filter_map(|service| {
        let is_restricted = *config.sources.of(service.family) != Allowed::All;
        match service.protocol {
            Protocol::Tcp => is_restricted.then(|| Wanted::translated(service)),
            _ => Some(Wanted::all(service)),
        }
    });
    wanted.collect()
}

/// The flows that this instance can have forwarded.
pub fn can_be_forwarded(config: &Config) -> Vec<Wanted> {
    let services = config.forwards.iter().map(|forward| forward.service);
    services.map(Wanted::translated).collect()
}

/// Tells the flows that were made to what an instance claims.
pub struct ClaimMatcher {
    services: ServiceSet,
    /// None stands for all.
    addresses: HashSet<IpAddr>,
}

impl From<Claims> for ClaimMatcher {
    fn from(claims: Claims) -> Self {
        ClaimMatcher {
            services: claims.services.into_iter().collect(),
            addresses: claims.addresses.into_iter().collect(),
        }
    }
}

impl ClaimMatcher {
    /// Whether a flow was made to a service that the instance claims.
    pub fn matches(&self, flow: &Flow) -> bool {
        let listens = self.addresses.is_empty() || self.addresses.contains(&flow.destination);
        listens
            && self
                .services
                .contains(flow.family, flow.protocol, flow.port)
    }
}
