//! Ports and ranges of ports.

use super::{Protocol, port_name};
use crate::text::split_at;
use serde::Serialize;
use std::{fmt, str::FromStr};
use thiserror::Error;

/// One port or a range of ports, first and last included; never 0, never reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a word is no port or range of ports.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PortError {
    /// Something other than digits and one hyphen.
    #[error(
        "is no port: use a number from 1 to 65535, a range such as 8000-8100, or a name that /etc/services has for the protocol"
    )]
    NotAPort,
    /// 0, or more than 65535.
    #[error("is out of range: ports go from 1 to 65535")]
    OutOfRange,
    /// The end before the start.
    #[error("is reversed: write the lower port first, as in {last}-{first}")]
    Reversed { first: u16, last: u16 },
}

impl PortRange {
    /// Takes `80`, `8000-8100`, or the name of a service with these protocols.
    pub fn read(word: &str, protocols: &[Protocol]) -> Result<Self, PortError> {
        word.parse().or_else(|error| {
            let is_name = error == PortError::NotAPort;
            let port = is_name.then(|| port_name::look_up(word, protocols));
            port.flatten()
                .map_or(Err(error), |port| (port, port).try_into())
        })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports: 1 to 65535.
    pub fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// Whether it is just one port.
    pub fn is_single(self) -> bool {
        self.first == self.last
    }

    /// The fewest ranges that hold the same ports, in order.
    pub fn merge(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
        ranges.sort();
        let mut merged: Vec<PortRange> = Vec::new();
        for range in ranges {
            let last = merged.last_mut();
            if !last.is_some_and(|before| before.takes_in(range)) {
                merged.push(range);
            }
        }
        merged
    }

    /// Adds the ports of `next`, which begins no earlier, if there are none in between; says whether it did.
    pub fn takes_in(&mut self, next: PortRange) -> bool {
        let touches = next.first <= self.last.saturating_add(1);
        if touches {
            self.last = self.last.max(next.last);
        }
        touches
    }

    /// Whether this port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Both together, if `next` starts right after the last port.
    pub fn continued_by(self, next: PortRange) -> Option<PortRange> {
        (self.last.checked_add(1)? == next.first).then_some(PortRange {
            first: self.first,
            last: next.last,
        })
    }

    /// Each of the ports by itself.
    pub fn singles(self) -> impl Iterator<Item = PortRange> {
        (self.first..=self.last).map(|port| PortRange {
            first: port,
            last: port,
        })
    }

    /// Whether the two share a port.
    pub fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl TryFrom<(u16, u16)> for PortRange {
    type Error = PortError;

    /// The ports from the first to the second, as the kernel has them.
    fn try_from((first, last): (u16, u16)) -> Result<Self, PortError> {
        match (first, last) {
            (0, _) => Err(PortError::OutOfRange),
            _ if first > last => Err(PortError::Reversed { first, last }),
            _ => Ok(PortRange { first, last }),
        }
    }
}

#[cfg(test)]
impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        PortRange {
            first: port,
            last: port,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    /// Takes `80` or `8000-8100`.
    fn from_str(word: &str) -> Result<Self, PortError> {
        let (first, last) = match split_at(word, b'-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => {
                let port = port(word)?;
                (port, port)
            }
        };
        (first, last).try_into()
    }
}

/// A range that cannot be forwarded to another.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "has {destination} ports, but {source_ports} are forwarded: use one port, or a range of the same length"
)]
pub struct LengthError {
    pub source_ports: u16,
    pub destination: u16,
}

/// Gives `to` if `ports` can be forwarded there: to one port, or port by port.
pub fn fits(ports: PortRange, to: PortRange) -> Result<PortRange, LengthError> {
    if to.is_single() || to.count() == ports.count() {
        return Ok(to);
    }
    Err(LengthError {
        source_ports: ports.count(),
        destination: to.count(),
    })
}

fn port(digits: &str) -> Result<u16, PortError> {
    // u16's own parser would take a sign.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PortError::NotAPort);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(PortError::OutOfRange),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_port() {
        for word in ["", "80a", "-", "80-", "-80", "+80", "1-2-3", " 80", "٣"] {
            assert_eq!(
                word.parse::<PortRange>(),
                Err(PortError::NotAPort),
                "{word}"
            );
        }
        for word in ["0", "65536", "0-5", "1-65536", "99999999999999999999"] {
            assert_eq!(
                word.parse::<PortRange>(),
                Err(PortError::OutOfRange),
                "{word}"
            );
        }
        assert_eq!(
            "90-80".parse::<PortRange>(),
            Err(PortError::Reversed {
                first: 90,
                last: 80
            })
        );
    }

    #[test]
    fn merging_keeps_the_ports() {
        let ranges = ["90", "80-85", "86-88", "82", "65535", "100-200", "150-160"];
        let merged = PortRange::merge(ranges.map(|range| range.parse().unwrap()).to_vec());
        let printed: Vec<String> = merged.iter().map(PortRange::to_string).collect();
        assert_eq!(printed, ["80-88", "90", "100-200", "65535"]);
    }

    #[test]
    fn counts_and_overlaps() {
        let all: PortRange = "1-65535".parse().unwrap();
        assert_eq!(all.count(), 65535);
        let range: PortRange = "80-90".parse().unwrap();
        assert!(range.overlaps(90.into()) && range.overlaps("90-95".parse().unwrap()));
        assert!(!range.overlaps(91.into()) && !range.overlaps(79.into()));
        assert_eq!("80-80".parse(), Ok(PortRange::from(80)));
    }
}
