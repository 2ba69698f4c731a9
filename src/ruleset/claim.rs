//! Which packets a ruleset takes: two instances must not claim the same.

use super::{Field, Ruleset, SERVICES, Set};
use crate::config::{Family, PortRange, Protocol};
use crate::flow::Flow;
use std::{fmt, net::IpAddr};

/// A protocol and ports of a family that an instance forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The family.
    pub family: Family,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub ports: PortRange,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} over {}", self.protocol, self.ports, self.family)
    }
}

/// All that one instance claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// What it forwards.
    pub services: Vec<Claim>,
    /// The addresses that it listens on; none stands for all.
    pub addresses: Vec<IpAddr>,
}

impl Claims {
    /// What both claim, if they claim anything together: the first such part of `self`.
    pub fn conflict(&self, other: &Claims) -> Option<Claim> {
        let shares_address = |family| {
            let listens = |claims: &Claims| claims.addresses.is_empty();
            listens(self) || listens(other) || {
                let mut of_family = self
                    .addresses
                    .iter()
                    .filter(|ip| Family::of(**ip) == family);
                of_family.any(|address| other.addresses.contains(address))
            }
        };
        let claimed = |claim: &&Claim| {
            shares_address(claim.family)
                && other.services.iter().any(|theirs| {
                    theirs.family == claim.family
                        && theirs.protocol == claim.protocol
                        && theirs.ports.overlaps(claim.ports)
                })
        };
        self.services.iter().find(claimed).copied()
    }

    /// Whether a flow was made to something that is claimed.
    pub fn take(&self, flow: &Flow) -> bool {
        let listens = self.addresses.is_empty() || self.addresses.contains(&flow.destination);
        let claimed = |claim: &Claim| {
            (claim.family, claim.protocol) == (flow.family, flow.protocol)
                && claim.ports.contains(flow.port)
        };
        listens && self.services.iter().any(claimed)
    }
}

impl Ruleset {
    /// What this ruleset claims.
    pub fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        for (family, set) in Family::ALL
            .into_iter()
            .flat_map(|family| self.claiming_sets(family))
        {
            for element in &set.elements {
                match element.key[..] {
                    [Field::Protocol(protocol), Field::Ports(ports)] => {
                        claims.services.push(Claim {
                            family,
                            protocol,
                            ports,
                        });
                    }
                    [Field::Address(address)] => claims.addresses.push(address),
                    _ => {}
                }
            }
        }
        claims
    }

    fn claiming_sets(&self, family: Family) -> impl Iterator<Item = (Family, &Set)> {
        let names = claiming_set_names(family);
        self.sets
            .iter()
            .filter(move |set| names.contains(&set.name))
            .map(move |set| (family, set))
    }
}

/// The sets that hold an instance's claims.
pub fn claiming_set_names(family: Family) -> [String; 3] {
    [SERVICES.0, SERVICES.1, super::LISTEN].map(|name| super::set_name(name, family))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(ports: &str, addresses: &[&str]) -> Claims {
        Claims {
            services: vec![Claim {
                family: Family::Ipv4,
                protocol: Protocol::Tcp,
                ports: ports.parse().unwrap(),
            }],
            addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        }
    }

    #[test]
    fn only_what_both_take_is_a_conflict() {
        let all = claims("80", &[]);
        assert_eq!(all.conflict(&claims("79-81", &[])), Some(all.services[0]));
        assert_eq!(
            all.conflict(&claims("80", &["10.0.0.1"])),
            Some(all.services[0])
        );
        assert_eq!(all.conflict(&claims("81", &[])), None);
        let one = claims("80", &["10.0.0.1"]);
        assert_eq!(
            one.conflict(&claims("80", &["10.0.0.1", "10.0.0.2"])),
            Some(one.services[0])
        );
        assert_eq!(one.conflict(&claims("80", &["10.0.0.2"])), None);

        let mut other_family = claims("80", &[]);
        other_family.services[0].family = Family::Ipv6;
        let mut other_protocol = claims("80", &[]);
        other_protocol.services[0].protocol = Protocol::Udp;
        assert_eq!(all.conflict(&other_family), None);
        assert_eq!(all.conflict(&other_protocol), None);
    }
}
