//! Which conntrack entries are an instance's, and which must be deleted.
//!
//! The kernel decides at a connection's first packet whether it is forwarded, and keeps to that as long
//! as packets come. So a client that sent before the rules were installed, or while others were, is not
//! forwarded as it should be until its old conntrack entry is deleted.

use crate::config::{Allowed, Config, Forward, Listen, Protocol, Service};
use crate::conntrack::{Flow, Wanted};
use crate::rtnetlink::Addresses;
use crate::siblings::Claims;

/// Tells an instance's flows from others.
pub struct FlowMatcher<'a> {
    config: &'a Config,
    addresses: &'a Addresses,
}

impl<'a> FlowMatcher<'a> {
    /// For an instance on a host with these addresses.
    pub fn new(config: &'a Config, addresses: &'a Addresses) -> Self {
        FlowMatcher { config, addresses }
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
            Some(backend) => !forward.leads_to(flow.port, backend) || self.lacks_masquerade(flow),
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
            Listen::Local | Listen::Any => forward.leads_to(flow.port, backend),
            Listen::Addresses(_) => false,
        };
        (self.listens(flow) || has_listened()) && !self.is_exempt(forward, flow)
    }

    fn listens(&self, flow: &Flow) -> bool {
        match &self.config.listen {
            Listen::Any => !self.addresses.is_group(flow.destination),
            Listen::Local => self.addresses.is_own(flow.destination),
            Listen::Addresses(addresses) => addresses.contains(&flow.destination),
        }
    }

    fn forward(&self, flow: &Flow) -> Option<&'a Forward> {
        let forwards = &self.config.forwards;
        let service = |forward: &Forward| forward.service;
        let index = Service::position(forwards, service, (flow.family, flow.protocol, flow.port))?;
        forwards.get(index)
    }

    fn is_allowed(&self, flow: &Flow) -> bool {
        match self.config.sources.of(flow.family) {
            Allowed::All => true,
            Allowed::None => false,
            Allowed::Ranges(ranges) => ranges.iter().any(|range| range.contains(&flow.source)),
        }
    }

    /// Whether the rules leave it alone: a destination's own connection, or one of this host's own.
    fn is_exempt(&self, forward: &Forward, flow: &Flow) -> bool {
        let mut destinations = forward.destinations.iter();
        let from_destination = destinations.any(|to| to.address == flow.source);
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

/// Whether a flow was made to a service that an instance claims.
pub fn matches(claims: &Claims, flow: &Flow) -> bool {
    let listens = claims.addresses.is_empty() || claims.addresses.contains(&flow.destination);
    let mut services = claims.services.iter();
    listens && services.any(|service| service.contains(flow.family, flow.protocol, flow.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Family, Options};
    use std::net::IpAddr;

    const NODE: &str = "10.1.0.1";
    const CLIENT: &str = "10.1.0.2";

    fn config(forward: &str, change: impl FnOnce(&mut Options)) -> Config {
        let mut options = Options {
            forwards: vec![forward.into()],
            ..Options::default()
        };
        change(&mut options);
        Config::new(&options).unwrap()
    }

    fn flow(source: &str, service: &str, backend: Option<&str>) -> Flow {
        let (protocol, port) = service.split_once('/').unwrap();
        let backend: Option<std::net::SocketAddr> = backend.map(|backend| backend.parse().unwrap());
        let source: IpAddr = source.parse().unwrap();
        Flow {
            family: Family::of(source),
            protocol: protocol.parse().unwrap(),
            source,
            destination: NODE.parse().unwrap(),
            port: port.parse().unwrap(),
            backend: backend.map(|backend| (backend.ip(), backend.port())),
            masqueraded: backend.is_some(),
        }
    }

    /// Whether the flow is stale, and whether it is forwarded.
    fn matched(config: &Config, flow: Flow) -> (bool, bool) {
        let addresses = [
            (nix::libc::RTN_LOCAL, NODE),
            (nix::libc::RTN_LOCAL, "192.0.2.0/24"),
            (nix::libc::RTN_BROADCAST, "10.1.0.255"),
        ];
        let network = |text: &str| {
            text.parse()
                .unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
        };
        let addresses = addresses.map(|(kind, text)| (kind, network(text)));
        let addresses = addresses.into_iter().collect();
        let matcher = FlowMatcher::new(config, &addresses);
        (matcher.is_stale(&flow), matcher.is_forwarded(&flow))
    }

    #[test]
    fn flows_that_bypassed_the_rules_are_stale() {
        let config = config("udp/53=10.2.0.11:5353", |_| ());
        assert_eq!(
            matched(&config, flow(CLIENT, "udp/53", None)),
            (true, false)
        );
        assert_eq!(
            matched(&config, flow(CLIENT, "udp/53", Some("10.2.0.11:5353"))),
            (false, true)
        );
        assert_eq!(
            matched(&config, flow(CLIENT, "udp/53", Some("10.2.0.12:5353"))),
            (true, true)
        );
        assert_eq!(
            matched(&config, flow(CLIENT, "udp/53", Some("10.2.0.11:53"))),
            (true, true)
        );
    }

    #[test]
    fn flows_of_other_services_and_programs_are_neither() {
        let config = config("udp/53=10.2.0.11:5353", |_| ());
        assert_eq!(
            matched(&config, flow(CLIENT, "udp/54", None)),
            (false, false)
        );
        assert_eq!(
            matched(&config, flow(CLIENT, "tcp/53", None)),
            (false, false)
        );
        assert_eq!(matched(&config, flow(NODE, "udp/53", None)), (false, false));
        assert_eq!(
            matched(&config, flow("10.2.0.11", "udp/53", None)),
            (false, false)
        );
        let mut passing = flow(CLIENT, "udp/53", None);
        passing.destination = "10.9.0.1".parse().unwrap();
        assert_eq!(matched(&config, passing), (false, false));
    }

    #[test]
    fn a_flow_from_a_source_that_is_no_longer_allowed_is_stale() {
        let config = config("tcp/80=10.2.0.11", |options| {
            options.src_ranges = Some("10.3.0.0/16".into())
        });
        assert_eq!(
            matched(&config, flow(CLIENT, "tcp/80", Some("10.2.0.11:80"))),
            (true, true)
        );
        assert_eq!(
            matched(&config, flow(CLIENT, "tcp/80", None)),
            (false, false)
        );
        assert_eq!(
            matched(&config, flow("10.3.0.9", "tcp/80", Some("10.2.0.11:80"))),
            (false, true)
        );
    }

    #[test]
    fn ranges_are_forwarded_port_by_port() {
        let config = config("udp/100-110=10.2.0.11:200-210", |_| ());
        assert_eq!(
            matched(&config, flow(CLIENT, "udp/105", Some("10.2.0.11:205"))),
            (false, true)
        );
        assert_eq!(
            matched(&config, flow(CLIENT, "udp/105", Some("10.2.0.11:204"))),
            (true, true)
        );
        assert_eq!(
            matched(&config, flow(CLIENT, "udp/111", None)),
            (false, false)
        );
    }

    #[test]
    fn with_hairpin_and_output_more_flows_are_stale() {
        let config = config("udp/53=10.2.0.11:5353", |options| {
            options.hairpin = Some("true".into());
            options.output = Some("true".into());
        });
        assert_eq!(
            matched(&config, flow("10.2.0.11", "udp/53", None)),
            (true, false)
        );
        assert_eq!(matched(&config, flow(NODE, "udp/53", None)), (true, false));
    }

    fn made_to(destination: &str, flow: Flow) -> Flow {
        Flow {
            destination: destination.parse().unwrap(),
            ..flow
        }
    }

    #[test]
    fn own_addresses_are_those_of_the_local_table() {
        let config = config("udp/53=10.2.0.11:5353", |_| ());
        let bypassing = |destination| made_to(destination, flow(CLIENT, "udp/53", None));
        // A whole network is this host's own.
        assert_eq!(matched(&config, bypassing("192.0.2.5")), (true, false));
        assert_eq!(matched(&config, bypassing("192.0.3.5")), (false, false));
        // It was this host's when the connection was made.
        let forwarded = |backend| made_to("192.0.3.5", flow(CLIENT, "udp/53", Some(backend)));
        assert_eq!(matched(&config, forwarded("10.2.0.11:5353")), (false, true));
        assert_eq!(
            matched(&config, forwarded("10.2.0.12:5353")),
            (false, false)
        );
    }

    #[test]
    fn broadcasts_and_multicasts_are_not_forwarded_by_listen_any() {
        let config = config("udp/53=10.2.0.11:5353", |options| {
            options.listen = Some("any".into())
        });
        let bypassing = |destination| made_to(destination, flow(CLIENT, "udp/53", None));
        assert_eq!(matched(&config, bypassing("10.9.0.1")), (true, false));
        for group in ["10.1.0.255", "255.255.255.255", "224.0.0.251"] {
            assert_eq!(matched(&config, bypassing(group)), (false, false));
        }
    }

    #[test]
    fn connections_of_this_host_to_other_hosts_are_left_alone() {
        for (output, listen) in [("true", "any"), ("true", "10.9.0.1"), ("false", "any")] {
            let config = config("udp/53=10.2.0.11:5353", |options| {
                options.output = Some(output.into());
                options.listen = Some(listen.into());
            });
            let foreign = made_to("10.9.0.1", flow(NODE, "udp/53", None));
            assert_eq!(matched(&config, foreign), (false, false));
            let others = made_to("10.9.0.1", flow(NODE, "udp/53", Some("10.2.0.11:5353")));
            assert_eq!(matched(&config, others), (false, false));
        }
    }

    #[test]
    fn a_flow_that_lacks_masquerading_is_stale() {
        let matched_with = |masquerade: &str, flow| {
            let config = config("udp/53=10.2.0.11:5353,192.0.2.5:5353", |options| {
                options.masquerade = Some(masquerade.into());
                options.output = Some("true".into());
            });
            matched(&config, flow)
        };
        let plain = |source, backend| Flow {
            masqueraded: false,
            ..flow(source, "udp/53", Some(backend))
        };
        assert_eq!(
            matched_with("true", plain(CLIENT, "10.2.0.11:5353")),
            (true, true)
        );
        assert_eq!(
            matched_with("false", plain(CLIENT, "10.2.0.11:5353")),
            (false, true)
        );
        // Another program may masquerade it.
        assert_eq!(
            matched_with("false", flow(CLIENT, "udp/53", Some("10.2.0.11:5353"))),
            (false, true)
        );
        // Within this host, it makes no difference.
        assert_eq!(
            matched_with("true", plain(CLIENT, "192.0.2.5:5353")),
            (false, true)
        );
        assert_eq!(
            matched_with("true", plain(NODE, "10.2.0.11:5353")),
            (false, true)
        );
    }
}
