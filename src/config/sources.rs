//! `SRC_RANGES`: the sources that may connect.

use super::{ConfigError, Family, OptionName, Options, Setting};
use ipnet::IpNet;
use log::warn;
use std::net::IpAddr;
use thiserror::Error;

/// The sources of one family that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Every address: no range was given at all, or 0.0.0.0/0 or ::/0 is among them.
    All,
    /// No address: ranges were given, but none of this family.
    None,
    /// These ranges: sorted, disjoint, at least one.
    Ranges(Vec<IpNet>),
}

impl Allowed {
    /// Whether a source of this family may connect.
    pub fn contains(&self, source: IpAddr) -> bool {
        match self {
            Allowed::All => true,
            Allowed::None => false,
            Allowed::Ranges(ranges) => {
                let after = ranges.partition_point(|range| range.network() <= source);
                let before = after.checked_sub(1);
                before.is_some_and(|index| ranges[index].contains(&source))
            }
        }
    }
}

/// The sources that may connect, family by family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    ipv4: Allowed,
    ipv6: Allowed,
}

impl Sources {
    /// Reads the option. An empty one is as good as none: Kubernetes' controller sets it for a Service
    /// without loadBalancerSourceRanges. Refuses one of nothing but separators, which a script makes of
    /// empty parts, and which would let every client in. Logs a warning for host bits, which are ignored.
    pub fn read(options: &Options) -> Result<Self, ConfigError> {
        let ranges = match Setting::read(OptionName::SRC_RANGES, &options.src_ranges)? {
            Some(setting) if !setting.text.is_empty() => setting.list(range)?,
            _ => Vec::new(),
        };
        for range in ranges.iter().filter(|range| range.trunc() != **range) {
            warn!(
                "{}: {range} has host bits set: read as {}",
                OptionName::SRC_RANGES,
                range.trunc()
            );
        }
        Ok(Sources::new(&ranges))
    }

    /// Without ranges, every source may connect; otherwise those in a range, and of a family without a
    /// range none. Overlapping, adjoining and duplicate ranges are merged.
    pub fn new(ranges: &[IpNet]) -> Self {
        if ranges.is_empty() {
            return Sources {
                ipv4: Allowed::All,
                ipv6: Allowed::All,
            };
        }
        let allowed = |family| {
            let ranges: Vec<IpNet> = IpNet::aggregate(&ranges.to_vec())
                .into_iter()
                .filter(|range| Family::of(range.addr()) == family)
                .collect();
            if ranges.is_empty() {
                Allowed::None
            } else if ranges.iter().any(|range| range.prefix_len() == 0) {
                Allowed::All
            } else {
                Allowed::Ranges(ranges)
            }
        };
        Sources {
            ipv4: allowed(Family::Ipv4),
            ipv6: allowed(Family::Ipv6),
        }
    }

    /// The sources of this family that may connect.
    pub fn of(&self, family: Family) -> &Allowed {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }
}

/// Why a word is no range of sources.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SourceError {
    /// Neither a CIDR nor an address.
    #[error("is no range of addresses: use a CIDR such as 10.0.0.0/8 or fd00::/8, or one address")]
    NotARange,
    /// `10.0.0.0/33`
    #[error("has no valid prefix length: use 0 to 32 for IPv4, 0 to 128 for IPv6")]
    PrefixLength,
    /// `fe80::1%eth0`
    #[error(
        "has a scope: a source is matched by its address alone, so leave the part from % on out"
    )]
    Scoped,
    /// `::ffff:10.0.0.0/104`
    #[error("is an IPv4-mapped IPv6 range: write it as an IPv4 range")]
    Mapped,
}

/// Reads a CIDR, or an address as the range that holds just it. Keeps host bits, so that the caller can
/// warn about them.
fn range(word: &str) -> Result<IpNet, SourceError> {
    let (address, prefix_length) = match word.split_once('/') {
        Some((address, prefix_length)) => (address, Some(prefix_length)),
        None => (word, None),
    };
    let address: IpAddr = address.parse().map_err(|_| {
        if address.contains('%') {
            SourceError::Scoped
        } else {
            SourceError::NotARange
        }
    })?;
    if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(SourceError::Mapped);
    }
    match prefix_length {
        None => Ok(IpNet::from(address)),
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|length| IpNet::new(address, length).ok())
            .ok_or(SourceError::PrefixLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn sources(words: &[&str]) -> Sources {
        Sources::new(
            &words
                .iter()
                .map(|word| range(word).unwrap())
                .collect::<Vec<_>>(),
        )
    }

    fn ranges(words: &[&str]) -> Allowed {
        Allowed::Ranges(words.iter().map(|word| word.parse().unwrap()).collect())
    }

    fn any_ipv4(prefix_length: u8) -> impl Strategy<Value = IpNet> {
        let in_few = (0..=3u8, 0..=3u8, any::<u8>());
        in_few.prop_map(move |(second, third, fourth)| {
            let address = IpAddr::from([10, second, third, fourth]);
            IpNet::new(address, prefix_length).unwrap()
        })
    }

    proptest! {
        #[test]
        fn a_source_is_found_as_by_looking_at_every_range(
            ranges in vec((8..=32u8).prop_flat_map(any_ipv4), 1..20),
            sources in vec(any_ipv4(32), 1..50),
        ) {
            let allowed = Sources::new(&ranges).of(Family::Ipv4).clone();
            for source in sources.iter().map(IpNet::addr) {
                let of_any = ranges.iter().any(|range| range.contains(&source));
                prop_assert_eq!(allowed.contains(source), of_any);
            }
        }
    }

    /// Would take minutes if every source were compared with every range.
    #[test]
    fn many_sources_are_looked_up_in_many_ranges() {
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let ranges: Vec<IpNet> = (0..100_000)
            .map(|number| address(number * 4).into())
            .collect();
        let allowed = Sources::new(&ranges).of(Family::Ipv4).clone();
        let found = (0..4_000_000).filter(|number| allowed.contains(address(*number)));
        assert_eq!(found.count(), 100_000);
    }

    #[test]
    fn no_range_allows_all() {
        let sources = sources(&[]);
        for family in Family::ALL {
            assert_eq!(sources.of(family), &Allowed::All);
        }
    }

    #[test]
    fn overlaps_duplicates_and_host_bits_are_merged() {
        let sources = sources(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.0.0.0/8",
            "192.0.2.1",
            "fd00::1/8",
        ]);
        assert_eq!(
            sources.of(Family::Ipv4),
            &ranges(&["10.0.0.0/8", "192.0.2.1/32"])
        );
        assert_eq!(sources.of(Family::Ipv6), &ranges(&["fd00::/8"]));
    }

    #[test]
    fn a_family_without_a_range_allows_none_and_slash_0_allows_all() {
        let sources = sources(&["0.0.0.0/0", "10.0.0.0/8"]);
        assert_eq!(sources.of(Family::Ipv4), &Allowed::All);
        assert_eq!(sources.of(Family::Ipv6), &Allowed::None);
    }

    #[test]
    fn both_halves_of_all_addresses_allow_all() {
        let sources = sources(&["0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(sources.of(Family::Ipv4), &Allowed::All);
    }

    #[test]
    fn each_kind_of_wrong_range_has_its_reason() {
        for word in ["", "all", "10.0.0/8", "/8", "[::]/0"] {
            assert_eq!(range(word), Err(SourceError::NotARange), "{word}");
        }
        for word in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(range(word), Err(SourceError::PrefixLength), "{word}");
        }
        assert_eq!(range("fe80::1%eth0/64"), Err(SourceError::Scoped));
        assert_eq!(range("::ffff:10.0.0.0/104"), Err(SourceError::Mapped));
    }
}
