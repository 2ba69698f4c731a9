//! An address and a port in one word: IPv6 addresses have brackets.

use super::{PortRange, shown};
use crate::text::split_at;
use std::net::Ipv6Addr;
use thiserror::Error;

/// An IPv6 address with a port, but without brackets.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BracketsError {
    /// `fd00::5:8080`
    #[error(
        "'{word}', which can be read in two ways: write [{address}]:{port}, or [{word}] for the address alone"
    )]
    Ambiguous {
        word: String,
        address: Ipv6Addr,
        port: PortRange,
    },
    /// `fd00::5:30080`
    #[error("'{word}', which has no brackets around the address: write [{address}]:{port}")]
    Missing {
        word: String,
        address: Ipv6Addr,
        port: PortRange,
    },
}

/// Splits `IP:PORT` and `[IP6]:PORT` (RFC 3986, section 3.2.2); a bare IPv6 address has no port.
/// Refuses one with what looks like a port.
pub fn split_port(word: &str) -> Result<(&str, Option<&str>), BracketsError> {
    // All but IPv6 addresses have at most one colon.
    let parts = split_at(word, b':').filter(|(_, ports)| !ports.as_bytes().contains(&b':'));
    if let Some((address, ports)) = parts.filter(|_| !word.starts_with('[')) {
        return Ok((address, Some(ports)));
    }
    check_brackets(word)?;
    if let Some((address, rest)) = word.strip_prefix('[').and_then(|word| word.split_once(']')) {
        match rest.strip_prefix(':') {
            Some(ports) => return Ok((address, Some(ports))),
            None if rest.is_empty() => return Ok((address, None)),
            None => return Ok((word, None)),
        }
    }
    Ok(parts.map_or((word, None), |(address, ports)| (address, Some(ports))))
}

fn check_brackets(word: &str) -> Result<(), BracketsError> {
    let Some((address, port)) = word.rsplit_once(':') else {
        return Ok(());
    };
    let (Ok(address), Ok(port)) = (address.parse(), port.parse()) else {
        return Ok(());
    };
    let is_address = word.parse::<Ipv6Addr>().is_ok();
    let word = shown(word);
    Err(if is_address {
        BracketsError::Ambiguous {
            word,
            address,
            port,
        }
    } else {
        BracketsError::Missing {
            word,
            address,
            port,
        }
    })
}
