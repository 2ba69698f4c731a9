//! Other programs' sets and maps, and whether a key is in them.

use super::{Tristate, packet::Bytes};
use crate::nftables::list::{self, Data, Element, ElementKind, Table};
use crate::nftables::{Nftables, NftablesError};

/// A set or map of a table.
pub struct Set {
    table: Table,
    name: String,
    /// Length of a key in bytes, each field padded to 4. 0 if the set is gone.
    pub key_length: usize,
    /// Whether its keys are ranges.
    interval: bool,
    /// All elements, once they were needed.
    elements: Vec<Element>,
}

/// What a set or map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whether it has the key.
    pub is_there: Tristate,
    /// Of a map: what it has for the key; several if it is not known which.
    pub values: Vec<Data>,
}

impl Set {
    /// Reads what a set is, without its elements.
    pub fn read(nftables: &Nftables, table: &Table, name: &str) -> Result<Self, NftablesError> {
        let info = nftables.list(|socket| list::set(socket, table, name))?;
        Ok(Set {
            table: table.clone(),
            name: name.to_owned(),
            key_length: info.map_or(0, |info| info.key_length),
            interval: info.is_some_and(|info| info.interval),
            elements: Vec::new(),
        })
    }

    /// What it has for this key: the kernel's own answer if all of the key is known, else what it may
    /// have.
    pub fn find(&mut self, nftables: &Nftables, key: &Bytes) -> Result<Found, NftablesError> {
        let (table, name) = (&self.table, &self.name);
        let Some(exact) = key.iter().copied().collect::<Option<Vec<u8>>>() else {
            if self.elements.is_empty() {
                self.elements = nftables.list(|socket| list::elements(socket, table, name))?;
            }
            return Ok(self.candidates(key));
        };
        let found = nftables.list(|socket| list::element(socket, table, name, &exact))?;
        Ok(Found {
            is_there: found.is_some().into(),
            values: found.and_then(|element| element.data).into_iter().collect(),
        })
    }

    /// All elements that may hold a key of which not everything is known.
    fn candidates(&self, key: &Bytes) -> Found {
        let mut found = Found {
            is_there: Tristate::No,
            values: Vec::new(),
        };
        for element in &self.elements {
            if self.may_hold(element, key) {
                found.is_there = Tristate::Maybe;
                found.values.extend(element.data.clone());
            }
        }
        found
    }

    fn may_hold(&self, element: &Element, key: &Bytes) -> bool {
        match (element.kind, &element.key_end) {
            (ElementKind::IntervalEnd, _) => false,
            (ElementKind::CatchAll, _) => true,
            // Ranges of addresses are prefixes here, which can be compared in parts of 4 bytes.
            (ElementKind::Key, Some(end)) => {
                let fields = element.key.chunks(4).zip(end.chunks(4));
                let mut fields = key.chunks(4).zip(fields);
                fields.all(|(key, (first, last))| within(key, first, last) != Tristate::No)
            }
            // Where its range ends, another element says.
            (ElementKind::Key, None) if self.interval => true,
            (ElementKind::Key, None) => within(key, &element.key, &element.key) != Tristate::No,
        }
    }
}

/// Whether bytes lie between two others, both included, compared from left to right.
pub fn within(bytes: &[Option<u8>], first: &[u8], last: &[u8]) -> Tristate {
    if let Some(bytes) = bytes.iter().copied().collect::<Option<Vec<u8>>>() {
        return Tristate::from(first <= &bytes[..] && &bytes[..] <= last);
    }
    // The bytes in which the two agree must be the same.
    let common = first.iter().zip(last);
    let common = common.take_while(|(first, last)| first == last);
    let differ = common
        .zip(bytes)
        .any(|((wanted, _), byte)| byte.is_some_and(|byte| byte != *wanted));
    if differ {
        Tristate::No
    } else {
        Tristate::Maybe
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{known, unknown};
    use super::*;

    /// Kind, key, and last value of each field.
    type Entry<'a> = (ElementKind, &'a [u8], Option<&'a [u8]>);

    fn set(interval: bool, elements: &[Entry<'_>]) -> Set {
        let element = |(kind, key, key_end): &Entry<'_>| Element {
            kind: *kind,
            key: key.to_vec(),
            key_end: key_end.map(<[u8]>::to_vec),
            data: Some(Data::Value(key.to_vec())),
            packets: None,
        };
        Set {
            table: Table::inet("table"),
            name: "set".into(),
            key_length: 8,
            interval,
            elements: elements.iter().map(element).collect(),
        }
    }

    #[test]
    fn a_key_known_in_part_leaves_fewer_elements() {
        let all = set(
            true,
            &[
                (
                    ElementKind::Key,
                    &[10, 0, 0, 0, 0, 80, 0, 0],
                    Some(&[10, 0, 0, 255, 0, 90, 0, 0]),
                ),
                (
                    ElementKind::Key,
                    &[10, 0, 1, 0, 0, 70, 0, 0],
                    Some(&[10, 0, 1, 255, 0, 79, 0, 0]),
                ),
                (ElementKind::CatchAll, &[], None),
            ],
        );
        let find = |key: Bytes| all.candidates(&key).values.len();
        assert_eq!(find(unknown(8)), 3);
        let mut port = unknown(8);
        port[4..].clone_from_slice(&known(&[0, 85, 0, 0]));
        assert_eq!(find(port), 2);
        let mut address = unknown(8);
        address[..4].clone_from_slice(&known(&[10, 0, 2, 7]));
        assert_eq!(find(address), 1);
        assert_eq!(all.candidates(&unknown(8)).is_there, Tristate::Maybe);

        let single = set(
            false,
            &[
                (ElementKind::Key, &[0, 80], None),
                (ElementKind::IntervalEnd, &[0, 81], None),
            ],
        );
        assert_eq!(single.candidates(&vec![Some(0), None]).values.len(), 1);
        let outside = single.candidates(&vec![Some(1), None]);
        assert_eq!(outside.is_there, Tristate::No);
        // Of a range, only the first key is known.
        let range = set(
            true,
            &[
                (ElementKind::Key, &[9, 0], None),
                (ElementKind::IntervalEnd, &[11, 0], None),
            ],
        );
        assert_eq!(range.candidates(&vec![Some(10), None]).values.len(), 1);
    }
}
