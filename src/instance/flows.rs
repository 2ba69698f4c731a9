//! Which conntrack entries are an instance's, and which must be deleted.
//!
//! The kernel decides at a connection's first packet whether it is forwarded, and keeps to that as long
//! as packets come. So a client that sent before the rules were installed, or while others were, is not
//! forwarded as it should be until its old conntrack entry is deleted.

#[cfg(test)]
mod tests;

use crate::config::{
    Allowed, Config, Destination, Forward, Listen, Protocol, Service, ServiceSet, is_link_local,
};
use crate::conntrack::{Flow, Wanted, Which};
use crate::logging::with_causes;
use crate::rtnetlink::Addresses;
use crate::siblings::Claims;
use crate::sock_diag::{self, Bound};
use log::warn;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

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
    /// The UDP sockets of this host, once one matters; `None` if the kernel does not list them.
    sockets: OnceCell<Option<Vec<Bound>>>,
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
            listen: config.listen.addresses().iter().copied().collect(),
            sockets: OnceCell::new(),
        }
    }

    /// Whether a conntrack entry must be deleted: it bypassed the rules, leads to a destination that is
    /// gone, lacks masquerading, or its source is no longer allowed. Of TCP connections that have had a
    /// reply, only the last: others end by themselves.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        self.is_stale_as_made(flow)
            || self
                .reversed(flow)
                .is_some_and(|peers| self.is_stale_as_made(&peers))
    }

    fn is_stale_as_made(&self, flow: &Flow) -> bool {
        let Some(forward) = self.forward(flow).filter(|_| self.listens(flow)) else {
            return false;
        };
        if !self.is_allowed(flow) {
            return flow.backend.is_some();
        }
        let is_established = flow.protocol == Protocol::Tcp && flow.replied;
        if is_established || self.is_exempt(forward, flow) {
            return false;
        }
        match flow.backend {
            Some(backend) => {
                !self.leads_to(forward, flow.port, backend) || self.lacks_masquerade(flow)
            }
            None => true,
        }
    }

    /// A UDP flow that this host itself began, as its peer would have begun it. `None` if it is no such
    /// flow, or a socket of this host still receives what the peer sends.
    fn reversed(&self, flow: &Flow) -> Option<Flow> {
        let (destination, port) = flow.replies_to;
        let (peer, peer_port) = flow.backend.unwrap_or((flow.destination, flow.port));
        let reversed = Flow {
            source: peer,
            source_port: peer_port,
            destination,
            port,
            backend: None,
            ..*flow
        };
        let is_own = flow.protocol == Protocol::Udp && self.addresses.is_own(flow.source);
        let can_be = is_own && self.forward(&reversed).is_some();
        (can_be && !self.has_socket(flow)).then_some(reversed)
    }

    /// Whether a socket of this host receives the replies to a flow that this host began. If that is not
    /// known, it is taken for granted.
    fn has_socket(&self, flow: &Flow) -> bool {
        let local = SocketAddr::new(flow.source, flow.source_port);
        let peer = SocketAddr::new(flow.destination, flow.port);
        let list = || {
            let warn = |error| {
                let causes = with_causes(&error);
                warn!(
                    "UDP flows that this host began from forwarded ports go on: its sockets are {causes}"
                );
            };
            sock_diag::udp().map_err(warn).ok()
        };
        let sockets = self.sockets.get_or_init(list).as_ref();
        sockets.is_none_or(|sockets| sockets.iter().any(|socket| socket.receives(peer, local)))
    }

    /// Whether these rules have forwarded the flow, or those of an earlier instance with other
    /// destinations.
    pub fn is_forwarded(&self, flow: &Flow) -> bool {
        let (Some(forward), Some(backend)) = (self.forward(flow), flow.backend) else {
            return false;
        };
        // Only the rules lead there, so the destination was an address of this host when it began.
        let has_listened = || match &self.config.listen {
            Listen::Local | Listen::Any => self.leads_to(forward, flow.port, backend),
            Listen::Only { interfaces, .. } => {
                !interfaces.is_empty()
                    && !self.addresses.is_elsewhere(flow.destination)
                    && self.leads_to(forward, flow.port, backend)
            }
        };
        (self.listens(flow) || has_listened()) && !self.is_exempt(forward, flow)
    }

    fn listens(&self, flow: &Flow) -> bool {
        !is_link_local(flow.destination) && self.listens_at(flow)
    }

    fn listens_at(&self, flow: &Flow) -> bool {
        match &self.config.listen {
            Listen::Any => !self.addresses.is_group(flow.destination),
            Listen::Local => self.addresses.is_own(flow.destination),
            Listen::Only { interfaces, .. } => {
                let to = flow.destination;
                let over_interfaces = || self.addresses.is_reached_over_interfaces(to);
                self.listen.contains(&to) || !interfaces.is_empty() && over_interfaces()
            }
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

/// The flows that can be stale for this instance, and that hinder clients which send just once.
pub fn can_be_stale(config: &Config) -> Vec<Wanted> {
    wanted(config, |service| {
        let is_restricted = *config.sources.of(service.family) != Allowed::All;
        match service.protocol {
            Protocol::Tcp if is_restricted => &[Which::Translated],
            Protocol::Tcp => &[],
            Protocol::Udp => &[Which::All, Which::Reversed],
            Protocol::Sctp => &[Which::All],
        }
    })
}

/// The TCP connections that can be stale since they have had no reply. Their clients try again, so
/// they may be looked for after the others.
pub fn can_be_half_open(config: &Config) -> Vec<Wanted> {
    wanted(config, |service| match service.protocol {
        Protocol::Tcp => &[Which::Unreplied],
        _ => &[],
    })
}

/// The flows that this instance can have forwarded.
pub fn can_be_forwarded(config: &Config) -> Vec<Wanted> {
    wanted(config, |_| &[Which::Translated])
}

/// The flows of each service that matter.
fn wanted(config: &Config, which: impl Fn(Service) -> &'static [Which]) -> Vec<Wanted> {
    let services = config.forwards.iter().map(|forward| forward.service);
    let wanted = services.flat_map(|service| {
        let all = which(service).iter().copied();
        all.map(move |which| Wanted { service, which })
    });
    wanted.collect()
}

/// Tells the flows that were made to what an instance claims.
pub struct ClaimMatcher {
    services: ServiceSet,
    /// None stands for all: also if it listens on interfaces, as a flow does not tell where it came in.
    addresses: HashSet<IpAddr>,
}

impl From<Claims> for ClaimMatcher {
    fn from(claims: Claims) -> Self {
        ClaimMatcher {
            services: claims.services.into_iter().collect(),
            addresses: if claims.interfaces.is_empty() {
                claims.addresses.into_iter().collect()
            } else {
                HashSet::new()
            },
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
