//! Whether this host forwards what an instance has rules for.

use super::ForwardStatus;
use crate::config::{Allowed, Family, Listen, Sources};
use crate::logging::with_causes;
use crate::netlink::or_missing;
use crate::nftables::list::{self, Element, ElementKind, Table};
use crate::nftables::{Nftables, NftablesError};
use crate::ruleset::allowed_set_name;
use crate::siblings;
use crate::sysctl::Needs;
use ipnet::{IpNet, Ipv4Net};
use log::warn;
use serde::Serialize;

/// Whether this host forwards a family that an instance has rules for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FamilyStatus {
    pub family: Family,
    /// Whether its packets are forwarded, from all interfaces that are needed.
    pub on: bool,
    /// Why not, and what to do.
    pub reason: Option<String>,
}

/// Those of an instance with this table and these forwards.
pub fn families(
    nftables: &Nftables,
    table: &Table,
    forwards: &[ForwardStatus],
) -> Result<Vec<FamilyStatus>, NftablesError> {
    let has = |family: &Family| {
        let mut forwards = forwards.iter();
        forwards.any(|forward| forward.service.family == *family)
    };
    let families: Vec<Family> = Family::ALL.into_iter().filter(has).collect();
    let destinations = forwards.iter().flat_map(|forward| &forward.destinations);
    let needs = Needs {
        listen: listen(nftables, &table.name)?,
        sources: sources(nftables, table)?,
        destinations: Needs::some(destinations.map(|destination| destination.to.address)),
        families,
    };
    let unmet = needs.unmet().unwrap_or_else(|error| {
        warn!(
            "whether packets are forwarded is not shown: {}",
            with_causes(&error)
        );
        Vec::new()
    });
    let status = |family: &Family| {
        let reasons = unmet.iter().filter(|error| error.family() == *family);
        let reasons: Vec<String> = reasons.map(ToString::to_string).collect();
        FamilyStatus {
            family: *family,
            on: reasons.is_empty(),
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        }
    };
    Ok(needs.families.iter().map(status).collect())
}

/// What it listens on, as far as that decides where clients come in.
fn listen(nftables: &Nftables, table: &str) -> Result<Listen, NftablesError> {
    let addresses = siblings::listen_addresses(nftables, table)?;
    let interfaces = siblings::listen_interfaces(nftables, table)?;
    Ok(if addresses.is_empty() && interfaces.is_empty() {
        Listen::Local
    } else {
        Listen::Only {
            addresses,
            interfaces,
        }
    })
}

/// The IPv4 sources that may connect.
fn sources(nftables: &Nftables, table: &Table) -> Result<Allowed, NftablesError> {
    let set = allowed_set_name(Family::Ipv4);
    let elements = nftables.list(|socket| or_missing(list::elements(socket, table, &set)))?;
    Ok(Sources::new(&ranges(&elements)).of(Family::Ipv4).clone())
}

/// The IPv4 ranges in a set of intervals, which has the first address of each, and the one after its last.
fn ranges(elements: &[Element]) -> Vec<IpNet> {
    let bound = |element: &Element| {
        let address = u32::from_be_bytes(*element.key.first_chunk()?);
        Some((address, element.kind == ElementKind::Key))
    };
    let mut bounds: Vec<(u32, bool)> = elements.iter().filter_map(bound).collect();
    bounds.sort();
    let range = |pair: &[(u32, bool)]| {
        let ((first, true), (end, false)) = (pair[0], pair[1]) else {
            return None;
        };
        let size = (end - first).checked_ilog2()?;
        let network = Ipv4Net::new(first.into(), 32 - size as u8).ok()?;
        Some(IpNet::from(network))
    };
    bounds.windows(2).filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_back() {
        let element = |kind, key: [u8; 4]| Element {
            kind,
            key: key.to_vec(),
            key_end: None,
            data: None,
            packets: None,
        };
        use ElementKind::{IntervalEnd, Key};
        let elements = [
            (IntervalEnd, [0, 0, 0, 0]),
            (Key, [10, 1, 0, 0]),
            (IntervalEnd, [10, 1, 1, 0]),
            (Key, [10, 1, 1, 0]),
            (IntervalEnd, [10, 1, 1, 1]),
            (Key, [255, 0, 0, 0]),
        ];
        let elements = elements.map(|(kind, key)| element(kind, key));
        let ranges: Vec<String> = ranges(&elements).iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.1.0.0/24", "10.1.1.0/32"]);
    }
}
