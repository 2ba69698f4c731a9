//! Which of the kernel's connections are stale, and which are ours.
//!
//! The kernel decides at a connection's first packet whether it is forwarded, and keeps to that as
//! long as packets come. So a client that sent before the rules were there, or while others were, is
//! not forwarded right until its old connection is forgotten.

use crate::config::{Allowed, Config, Destination, Family, Forward, Listen, PortRange, Protocol};
use crate::netfilter::Addresses;
use std::net::IpAddr;

/// A connection as the kernel tracks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Its family.
    pub family: Family,
    /// Its protocol.
    pub protocol: Protocol,
    /// Who made it.
    pub source: IpAddr,
    /// The address that it was made to.
    pub destination: IpAddr,
    /// The port that it was made to.
    pub port: u16,
    /// Where it was sent instead, if it was.
    pub target: Option<(IpAddr, u16)>,
    /// Whether it seems to come from elsewhere there.
    pub masqueraded: bool,
}

/// What tells an instance's flows from others.
pub struct Judge<'a> {
    config: &'a Config,
    addresses: &'a Addresses,
}

impl<'a> Judge<'a> {
    /// A judge for an instance on a host with these addresses.
    pub fn new(config: &'a Config, addresses: &'a Addresses) -> Self {
        Judge { config, addresses }
    }

    /// Whether a flow from before the rules were there stands in their way: it was made past them
    /// or goes where they do not lead any more, its answers would not find back, or its source may
    /// not connect any more. TCP flows end by themselves, except those that should not be.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let Some(forward) = self.forward(flow).filter(|_| self.is_in_scope(flow)) else {
            return false;
        };
        if flow.target.is_some() && !self.is_allowed(flow) {
            return true;
        }
        if flow.protocol == Protocol::Tcp || !self.is_allowed(flow) || self.is_exempt(forward, flow)
        {
            return false;
        }
        match flow.target {
            Some(target) => !leads_to(forward, flow.port, target) || self.lacks_masquerade(flow),
            None => true,
        }
    }

    /// Whether the rules have made this flow what it is, or those of an instance before with other
    /// destinations.
    pub fn is_forwarded(&self, flow: &Flow) -> bool {
        let (Some(forward), Some(target)) = (self.forward(flow), flow.target) else {
            return false;
        };
        // What only the rules lead there was made to an address that has been this host's.
        let was_in_scope = || match self.config.listen {
            Listen::Local | Listen::Any => leads_to(forward, flow.port, target),
            Listen::Addresses(_) => false,
        };
        (self.is_in_scope(flow) || was_in_scope()) && !self.is_exempt(forward, flow)
    }

    fn is_in_scope(&self, flow: &Flow) -> bool {
        match &self.config.listen {
            Listen::Any => !self.addresses.is_group(flow.destination),
            Listen::Local => self.addresses.is_own(flow.destination),
            Listen::Addresses(addresses) => addresses.contains(&flow.destination),
        }
    }

    fn forward(&self, flow: &Flow) -> Option<&'a Forward> {
        // The forwards are sorted and do not overlap.
        let forwards = &self.config.forwards;
        let place = forwards.partition_point(|forward| {
            (forward.family, forward.protocol, forward.ports.last())
                < (flow.family, flow.protocol, flow.port)
        });
        forwards.get(place).filter(|forward| {
            forward.family == flow.family
                && forward.protocol == flow.protocol
                && forward.ports.first() <= flow.port
        })
    }

    fn is_allowed(&self, flow: &Flow) -> bool {
        match self.config.sources.of(flow.family) {
            Allowed::Everyone => true,
            Allowed::Nobody => false,
            Allowed::Ranges(ranges) => ranges.iter().any(|range| range.contains(&flow.source)),
        }
    }

    /// Whether the rules leave it alone: a destination's own, or one of this host's own.
    fn is_exempt(&self, forward: &Forward, flow: &Flow) -> bool {
        let from_destination = || {
            forward
                .destinations
                .iter()
                .any(|to| to.address == flow.source)
        };
        let to_own_address =
            || self.addresses.is_own(flow.destination) && !flow.destination.is_loopback();
        !self.config.hairpin && from_destination()
            || self.addresses.is_own(flow.source) && !(self.config.output && to_own_address())
    }

    /// Whether the destination sees the client, and is not to: it was forwarded without masquerading.
    /// This host's own connections, and those to itself, are masqueraded or not without a difference.
    fn lacks_masquerade(&self, flow: &Flow) -> bool {
        let is_own = |address| self.addresses.is_own(address);
        self.config.masquerade
            && !flow.masqueraded
            && !is_own(flow.source)
            && !flow.target.is_some_and(|(address, _)| is_own(address))
    }
}

/// Whether any flow can be stale for this instance at all. If not, the kernel's table, which may be
/// large, need not be read.
pub fn can_be_stale(config: &Config) -> bool {
    config.forwards.iter().any(|forward| {
        forward.protocol != Protocol::Tcp || *config.sources.of(forward.family) != Allowed::Everyone
    })
}

fn leads_to(forward: &Forward, port: u16, target: (IpAddr, u16)) -> bool {
    forward
        .destinations
        .iter()
        .any(|to| target == self::target(to, forward.ports, port))
}

/// Where a destination has connections go that are made to `port`, one of the forwarded ports.
pub fn target(to: &Destination, forwarded: PortRange, port: u16) -> (IpAddr, u16) {
    let offset = match to.ports.is_single() {
        true => 0,
        false => port.saturating_sub(forwarded.first()),
    };
    (to.address, to.ports.first().saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Options;

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

    fn flow(source: &str, service: &str, target: Option<&str>) -> Flow {
        let (protocol, port) = service.split_once('/').unwrap();
        let target: Option<std::net::SocketAddr> = target.map(|target| target.parse().unwrap());
        let source: IpAddr = source.parse().unwrap();
        Flow {
            family: Family::of(source),
            protocol: protocol.parse().unwrap(),
            source,
            destination: NODE.parse().unwrap(),
            port: port.parse().unwrap(),
            target: target.map(|target| (target.ip(), target.port())),
            masqueraded: target.is_some(),
        }
    }

    /// Stale and forwarded.
    fn judged(config: &Config, flow: Flow) -> (bool, bool) {
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
        let judge = Judge::new(config, &addresses);
        (judge.is_stale(&flow), judge.is_forwarded(&flow))
    }

    #[test]
    fn flows_made_past_the_rules_are_stale() {
        let config = config("udp/53=10.2.0.11:5353", |_| ());
        assert_eq!(judged(&config, flow(CLIENT, "udp/53", None)), (true, false));
        assert_eq!(
            judged(&config, flow(CLIENT, "udp/53", Some("10.2.0.11:5353"))),
            (false, true)
        );
        assert_eq!(
            judged(&config, flow(CLIENT, "udp/53", Some("10.2.0.12:5353"))),
            (true, true)
        );
        assert_eq!(
            judged(&config, flow(CLIENT, "udp/53", Some("10.2.0.11:53"))),
            (true, true)
        );
    }

    #[test]
    fn flows_of_others_are_never_touched() {
        let config = config("udp/53=10.2.0.11:5353", |_| ());
        assert_eq!(
            judged(&config, flow(CLIENT, "udp/54", None)),
            (false, false)
        );
        assert_eq!(
            judged(&config, flow(CLIENT, "tcp/53", None)),
            (false, false)
        );
        assert_eq!(judged(&config, flow(NODE, "udp/53", None)), (false, false));
        assert_eq!(
            judged(&config, flow("10.2.0.11", "udp/53", None)),
            (false, false)
        );
        let mut passing = flow(CLIENT, "udp/53", None);
        passing.destination = "10.9.0.1".parse().unwrap();
        assert_eq!(judged(&config, passing), (false, false));
    }

    #[test]
    fn a_source_that_may_not_connect_any_more_is_cut_off() {
        let config = config("tcp/80=10.2.0.11", |options| {
            options.src_ranges = Some("10.3.0.0/16".into())
        });
        assert_eq!(
            judged(&config, flow(CLIENT, "tcp/80", Some("10.2.0.11:80"))),
            (true, true)
        );
        assert_eq!(
            judged(&config, flow(CLIENT, "tcp/80", None)),
            (false, false)
        );
        assert_eq!(
            judged(&config, flow("10.3.0.9", "tcp/80", Some("10.2.0.11:80"))),
            (false, true)
        );
    }

    #[test]
    fn ranges_lead_port_by_port() {
        let config = config("udp/100-110=10.2.0.11:200-210", |_| ());
        assert_eq!(
            judged(&config, flow(CLIENT, "udp/105", Some("10.2.0.11:205"))),
            (false, true)
        );
        assert_eq!(
            judged(&config, flow(CLIENT, "udp/105", Some("10.2.0.11:204"))),
            (true, true)
        );
        assert_eq!(
            judged(&config, flow(CLIENT, "udp/111", None)),
            (false, false)
        );
    }

    #[test]
    fn hairpin_and_output_widen_what_is_ours() {
        let config = config("udp/53=10.2.0.11:5353", |options| {
            options.hairpin = Some("true".into());
            options.output = Some("true".into());
        });
        assert_eq!(
            judged(&config, flow("10.2.0.11", "udp/53", None)),
            (true, false)
        );
        assert_eq!(judged(&config, flow(NODE, "udp/53", None)), (true, false));
    }

    fn made_to(destination: &str, flow: Flow) -> Flow {
        Flow {
            destination: destination.parse().unwrap(),
            ..flow
        }
    }

    #[test]
    fn an_address_counts_as_the_kernel_counts_it() {
        let config = config("udp/53=10.2.0.11:5353", |_| ());
        let past = |destination| made_to(destination, flow(CLIENT, "udp/53", None));
        // Of a whole network that is this host's own.
        assert_eq!(judged(&config, past("192.0.2.5")), (true, false));
        assert_eq!(judged(&config, past("192.0.3.5")), (false, false));
        // It was this host's when the connection was made.
        let forwarded = |target| made_to("192.0.3.5", flow(CLIENT, "udp/53", Some(target)));
        assert_eq!(judged(&config, forwarded("10.2.0.11:5353")), (false, true));
        assert_eq!(judged(&config, forwarded("10.2.0.12:5353")), (false, false));
    }

    #[test]
    fn groups_of_hosts_are_no_destination_in_passing() {
        let config = config("udp/53=10.2.0.11:5353", |options| {
            options.listen = Some("any".into())
        });
        let past = |destination| made_to(destination, flow(CLIENT, "udp/53", None));
        assert_eq!(judged(&config, past("10.9.0.1")), (true, false));
        for group in ["10.1.0.255", "255.255.255.255", "224.0.0.251"] {
            assert_eq!(judged(&config, past(group)), (false, false));
        }
    }

    #[test]
    fn what_this_host_asks_others_is_its_own() {
        for (output, listen) in [("true", "any"), ("true", "10.9.0.1"), ("false", "any")] {
            let config = config("udp/53=10.2.0.11:5353", |options| {
                options.output = Some(output.into());
                options.listen = Some(listen.into());
            });
            let foreign = made_to("10.9.0.1", flow(NODE, "udp/53", None));
            assert_eq!(judged(&config, foreign), (false, false));
            let others = made_to("10.9.0.1", flow(NODE, "udp/53", Some("10.2.0.11:5353")));
            assert_eq!(judged(&config, others), (false, false));
        }
    }

    #[test]
    fn flows_whose_answers_go_astray_are_stale() {
        let judge = |masquerade: &str, flow| {
            let config = config("udp/53=10.2.0.11:5353,192.0.2.5:5353", |options| {
                options.masquerade = Some(masquerade.into());
                options.output = Some("true".into());
            });
            judged(&config, flow)
        };
        let plain = |source, target| Flow {
            masqueraded: false,
            ..flow(source, "udp/53", Some(target))
        };
        assert_eq!(judge("true", plain(CLIENT, "10.2.0.11:5353")), (true, true));
        assert_eq!(
            judge("false", plain(CLIENT, "10.2.0.11:5353")),
            (false, true)
        );
        // Somebody else may masquerade it.
        assert_eq!(
            judge("false", flow(CLIENT, "udp/53", Some("10.2.0.11:5353"))),
            (false, true)
        );
        // Within this host, nobody does.
        assert_eq!(
            judge("true", plain(CLIENT, "192.0.2.5:5353")),
            (false, true)
        );
        assert_eq!(judge("true", plain(NODE, "10.2.0.11:5353")), (false, true));
    }
}
