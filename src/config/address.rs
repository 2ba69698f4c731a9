//! Addresses that packets can be sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Why a word is no address to forward to or to listen on.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// `example.org`, `10.0.0`
    #[error("is no IP address: use one such as 10.0.0.5 or fd00::5")]
    NotAnAddress,
    /// `home$`
    #[error(
        "is no IP address, and no name of a host: use one such as 10.0.0.5, fd00::5 or home.example.org"
    )]
    NotAHost,
    /// `home.example.org`
    #[error(
        "is the name of a host, but this build of nodefwd has no resolver (the container image has none): use an IP address, or a build with the feature names"
    )]
    NoResolver,
    /// `10.0.0.0/8`
    #[error("is a CIDR range: give each address by itself, without a prefix length")]
    Cidr,
    /// `fe80::1%eth0`
    #[error(
        "has a scope: packets can only be forwarded to addresses without one, so use a global or unique local address"
    )]
    Scoped,
    /// `[fd00::5]`
    #[error("has brackets: write the address without them")]
    Brackets,
    /// `::ffff:10.0.0.5`
    #[error("is an IPv4-mapped IPv6 address: use {0}")]
    Mapped(Ipv4Addr),
    /// `0.0.0.0`, `::`
    #[error("is the unspecified address: use the address of one host")]
    Unspecified,
    /// 224.0.0.0/4, ff00::/8
    #[error("is a multicast address: connections go to one host, so use a unicast address")]
    Multicast,
    /// 255.255.255.255
    #[error("is the broadcast address: connections go to one host, so use a unicast address")]
    Broadcast,
    /// fe80::/10
    #[error(
        "is a link-local address: packets to or from it stay on their link and cannot be forwarded, so use a global or unique local address"
    )]
    LinkLocal,
    /// 127.0.0.0/8, ::1
    #[error(
        "is a loopback address: the kernel forwards nothing to or from it, so use an address of a network interface"
    )]
    Loopback,
}

/// Reads the address of one host.
///
/// Refuses, with the reason, all that is no unicast address of a host reached over the network.
pub fn unicast(word: &str) -> Result<IpAddr, AddressError> {
    let address = word.parse().map_err(|_| malformed(word))?;
    check_unicast(address).map(|()| address)
}

/// Refuses, with the reason, what is no unicast address of a host reached over the network.
pub fn check_unicast(address: IpAddr) -> Result<(), AddressError> {
    let mapped = match address {
        IpAddr::V6(address) => address.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    if let Some(mapped) = mapped {
        return Err(AddressError::Mapped(mapped));
    }
    match address {
        _ if address.is_unspecified() => Err(AddressError::Unspecified),
        _ if address.is_multicast() => Err(AddressError::Multicast),
        _ if address.is_loopback() => Err(AddressError::Loopback),
        _ if is_link_local(address) => Err(AddressError::LinkLocal),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Err(AddressError::Broadcast),
        _ => Ok(()),
    }
}

/// Whether no router forwards packets to or from this address (RFC 4291, section 2.5.6). IPv4's 169.254.0.0/16
/// is another matter: Linux routes it, and metadata services of clouds have such addresses.
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn malformed(word: &str) -> AddressError {
    if word.contains('/') {
        AddressError::Cidr
    } else if word.contains('%') {
        AddressError::Scoped
    } else if word.starts_with('[') && word.ends_with(']') && is_ipv6(&word[1..word.len() - 1]) {
        AddressError::Brackets
    } else {
        AddressError::NotAnAddress
    }
}

fn is_ipv6(word: &str) -> bool {
    word.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_wrong_address_has_its_reason() {
        let table = [
            ("", AddressError::NotAnAddress),
            ("example.org", AddressError::NotAnAddress),
            ("10.0.0", AddressError::NotAnAddress),
            ("10.0.0.5:80", AddressError::NotAnAddress),
            ("010.0.0.1", AddressError::NotAnAddress),
            ("10.0.0.0/8", AddressError::Cidr),
            ("fe80::1%eth0", AddressError::Scoped),
            ("[fd00::5]", AddressError::Brackets),
            (
                "::ffff:10.0.0.5",
                AddressError::Mapped(Ipv4Addr::new(10, 0, 0, 5)),
            ),
            ("0.0.0.0", AddressError::Unspecified),
            ("::", AddressError::Unspecified),
            ("224.0.0.1", AddressError::Multicast),
            ("ff02::1", AddressError::Multicast),
            ("255.255.255.255", AddressError::Broadcast),
            ("fe80::1", AddressError::LinkLocal),
            ("febf::1", AddressError::LinkLocal),
            ("127.0.0.53", AddressError::Loopback),
            ("::1", AddressError::Loopback),
        ];
        for (word, reason) in table {
            assert_eq!(unicast(word), Err(reason), "{word}");
        }
        for word in ["10.0.0.5", "169.254.169.254", "fd00::5", "fec0::1"] {
            assert!(unicast(word).is_ok(), "{word}");
        }
    }
}
