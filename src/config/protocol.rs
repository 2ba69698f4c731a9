//! Protocols and address families.

use nix::libc;
use serde::Serialize;
use std::{fmt, net::IpAddr, str::FromStr};
use thiserror::Error;

/// A transport protocol whose header starts with source and destination port, so that `th dport`
/// finds the port in each of them (RFC 9293, RFC 768, RFC 9260).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Every one.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The number in the IP header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The protocol with this number in the IP header; `None` if it is none of these.
    pub fn from_number(number: u8) -> Option<Self> {
        Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.number() == number)
    }
}

impl Protocol {
    /// In lower case.
    fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no protocol.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is no protocol: use tcp, udp or sctp")]
pub struct ProtocolError;

impl FromStr for Protocol {
    type Err = ProtocolError;

    /// Accepts `tcp`, `udp` or `sctp` in any case: Kubernetes writes them upper-case.
    fn from_str(word: &str) -> Result<Self, ProtocolError> {
        Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(word))
            .ok_or(ProtocolError)
    }
}

/// The two families that are forwarded, in the order of every list: IPv4 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// Both, in the order of every list.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// The kernel's number of it: `AF_INET` or `AF_INET6`, which netfilter has as `NFPROTO_*` too.
    pub fn number(self) -> i32 {
        match self {
            Family::Ipv4 => libc::AF_INET,
            Family::Ipv6 => libc::AF_INET6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_in_any_case() {
        assert_eq!("TCP".parse(), Ok(Protocol::Tcp));
        assert_eq!("uDp".parse(), Ok(Protocol::Udp));
        assert_eq!("sctp".parse(), Ok(Protocol::Sctp));
        assert_eq!("icmp".parse::<Protocol>(), Err(ProtocolError));
        assert_eq!("".parse::<Protocol>(), Err(ProtocolError));
    }
}
