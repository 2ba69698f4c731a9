//! Sets and maps of others, and whether a key is in them.

use super::super::message::Attributes;
use super::super::socket::{Failure, Socket};
use super::chains::{Table, ask, list, single};
use super::effect::{Verdict, verdict};
use super::{Truth, packet::Bytes};
use nftnl::nftnl_sys::libc;

/// A set or map with what is in it.
pub struct Set {
    /// How many bytes a key has, each field padded to 4. 0 if there is no such set any more.
    pub key_length: usize,
    /// Whether keys without a last value of each field are bounds of ranges.
    bounds: bool,
    elements: Vec<Element>,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    kind: Kind,
    key: Vec<u8>,
    /// The last value of each field, of a key that has several.
    fields_end: Option<Vec<u8>>,
    value: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Key,
    /// The first key behind a range.
    End,
    /// All keys that no other element has.
    Others,
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Bytes(Vec<u8>),
    Verdict(Verdict),
}

/// What a set or map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whether it has it.
    pub is_there: Truth,
    /// Of a map: what it has, if it is there; several, if that cannot be told.
    pub values: Vec<Value>,
}

impl Set {
    /// A set, before anything in it is read.
    pub fn describe(socket: &Socket, table: &Table, set: &str) -> Result<Self, Failure> {
        // linux/netfilter/nf_tables.h: enum nft_set_attributes
        const TABLE: u16 = 1;
        const NAME: u16 = 2;
        const FLAGS: u16 = 3;
        const KEY_LENGTH: u16 = 5;
        let request = single(libc::NFT_MSG_GETSET, table.family)
            .text(TABLE, &table.name)
            .text(NAME, set);
        let found = ask(socket, &request, |message| {
            let attributes = message.attributes();
            let flags = attributes.u32(FLAGS).unwrap_or(0);
            Some((attributes.u32(KEY_LENGTH)?, flags))
        })?;
        let (key_length, flags) = found.unwrap_or_default();
        Ok(Set {
            key_length: key_length as usize,
            bounds: flags & libc::NFT_SET_INTERVAL as u32 != 0,
            elements: Vec::new(),
        })
    }

    /// Reads the elements, unless that has been done. Says how many there are.
    pub fn read(&mut self, socket: &Socket, table: &Table, set: &str) -> Result<usize, Failure> {
        if self.elements.is_empty() {
            self.elements = elements(socket, table, set)?;
        }
        Ok(self.elements.len())
    }

    /// What it has for this key.
    pub fn find(&self, key: &Bytes) -> Found {
        let exact: Option<Vec<u8>> = key.iter().copied().collect();
        let bound = exact.as_ref().and_then(|key| self.bound_at(key));
        let holds = |element: &Element| match &element.fields_end {
            // Ranges of addresses are prefixes here, which can be compared in parts of 4 bytes.
            Some(end) => {
                let fields = element.key.chunks(4).zip(end.chunks(4));
                let fields = key.chunks(4).zip(fields);
                let fields = fields.map(|(key, (first, last))| within(key, first, last));
                fields.min().unwrap_or(Truth::No)
            }
            None if !self.bounds => within(key, &element.key, &element.key),
            None if exact.is_none() => Truth::Maybe,
            None => bound
                .is_some_and(|bound| std::ptr::eq(bound, element))
                .into(),
        };
        let mut found = Found {
            is_there: Truth::No,
            values: Vec::new(),
        };
        for element in self
            .elements
            .iter()
            .filter(|element| element.kind == Kind::Key)
        {
            match holds(element) {
                Truth::No => continue,
                Truth::Maybe => found.is_there = Truth::Maybe,
                Truth::Yes => {
                    let values = element.value.iter().cloned().collect();
                    let is_there = Truth::Yes;
                    return Found { is_there, values };
                }
            }
            found.values.extend(element.value.clone());
        }
        let mut others = self.elements.iter();
        if let Some(others) = others.find(|element| element.kind == Kind::Others) {
            found.is_there = Truth::Yes;
            found.values.extend(others.value.clone());
        }
        found
    }

    /// The last bound up to this key: the start of the range that it is in, or the end of the one
    /// before it.
    fn bound_at(&self, key: &[u8]) -> Option<&Element> {
        let before = self
            .elements
            .iter()
            .filter(|element| element.kind != Kind::Others && element.key.as_slice() <= key);
        // A range may begin where another one ends.
        before.max_by_key(|element| (&element.key, element.kind == Kind::Key))
    }
}

/// Whether bytes lie between two others, both included, in their order from left to right.
pub fn within(bytes: &[Option<u8>], first: &[u8], last: &[u8]) -> Truth {
    if let Some(bytes) = bytes.iter().copied().collect::<Option<Vec<u8>>>() {
        return Truth::from(first <= &bytes[..] && &bytes[..] <= last);
    }
    // Those bytes in which the two are alike must be the same.
    let alike = first
        .iter()
        .zip(last)
        .take_while(|(first, last)| first == last);
    let differ = alike
        .zip(bytes)
        .any(|((wanted, _), byte)| byte.is_some_and(|byte| byte != *wanted));
    if differ { Truth::No } else { Truth::Maybe }
}

fn elements(socket: &Socket, table: &Table, set: &str) -> Result<Vec<Element>, Failure> {
    // linux/netfilter/nf_tables.h: NFTA_SET_ELEM_LIST_*
    const TABLE: u16 = 1;
    const SET: u16 = 2;
    const ELEMENTS: u16 = 3;
    let request = list(libc::NFT_MSG_GETSETELEM, table.family)
        .text(TABLE, &table.name)
        .text(SET, set);
    let mut elements = Vec::new();
    socket.dump(&request, |message| match message {
        None => elements.clear(),
        Some(message) => {
            let list = message.attributes().nested(ELEMENTS);
            elements.extend(
                list.iter()
                    .filter_map(|(_, bytes)| element(Attributes(bytes))),
            );
        }
    })?;
    Ok(elements)
}

fn element(attributes: Attributes<'_>) -> Option<Element> {
    // linux/netfilter/nf_tables.h: NFTA_SET_ELEM_*, NFTA_DATA_VALUE, NFT_SET_ELEM_*
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_END: u16 = 10;
    const VALUE: u16 = 1;
    const INTERVAL_END: u32 = 1;
    const CATCH_ALL: u32 = 2;
    let flags = attributes.u32(FLAGS).unwrap_or(0);
    let key = |kind| attributes.nested(kind).get(VALUE).map(<[u8]>::to_vec);
    let data = attributes.nested(DATA);
    let bytes = data.get(VALUE).map(|bytes| Value::Bytes(bytes.to_vec()));
    Some(Element {
        kind: match flags & (INTERVAL_END | CATCH_ALL) {
            0 => Kind::Key,
            INTERVAL_END => Kind::End,
            _ => Kind::Others,
        },
        key: key(KEY).or_else(|| (flags & CATCH_ALL != 0).then(Vec::new))?,
        fields_end: key(KEY_END),
        value: bytes.or_else(|| verdict(data).map(Value::Verdict)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::packet::{known, unknown};
    use super::*;
    use proptest::prelude::*;

    /// Kind, key, and last value of each field.
    type Entry<'a> = (Kind, &'a [u8], Option<&'a [u8]>);

    fn set(bounds: bool, elements: &[Entry<'_>]) -> Set {
        let element = |(kind, key, fields_end): &Entry<'_>| Element {
            kind: *kind,
            key: key.to_vec(),
            fields_end: fields_end.map(<[u8]>::to_vec),
            value: Some(Value::Bytes(key.to_vec())),
        };
        Set {
            key_length: 2,
            bounds,
            elements: elements.iter().map(element).collect(),
        }
    }

    #[test]
    fn ranges_are_between_bounds_in_any_order() {
        // 10-19 and 20-29, and 200 to the end.
        let ranges = set(
            true,
            &[
                (Kind::Key, &[0, 200], None),
                (Kind::End, &[0, 20], None),
                (Kind::Key, &[0, 10], None),
                (Kind::End, &[0, 30], None),
                (Kind::Key, &[0, 20], None),
            ],
        );
        for (key, value) in [
            (9, None),
            (10, Some(10)),
            (19, Some(10)),
            (20, Some(20)),
            (30, None),
            (255, Some(200)),
        ] {
            let found = ranges.find(&known(&[0, key]));
            assert_eq!(found.is_there, Truth::from(value.is_some()), "{key}");
            let value = value.map(|value| Value::Bytes(vec![0, value]));
            assert_eq!(found.values, Vec::from_iter(value), "{key}");
        }
        assert_eq!(ranges.find(&known(&[255, 255])).is_there, Truth::Yes);
        assert_eq!(ranges.find(&unknown(2)).is_there, Truth::Maybe);
        assert_eq!(ranges.find(&unknown(2)).values.len(), 3);
    }

    #[test]
    fn fields_are_compared_one_by_one() {
        let fields = set(
            false,
            &[(
                Kind::Key,
                &[10, 0, 0, 0, 0, 80, 0, 0],
                Some(&[10, 0, 0, 255, 0, 90, 0, 0]),
            )],
        );
        let find = |key: &[u8]| fields.find(&known(key)).is_there;
        assert_eq!(find(&[10, 0, 0, 7, 0, 85, 0, 0]), Truth::Yes);
        assert_eq!(find(&[10, 0, 1, 7, 0, 85, 0, 0]), Truth::No);
        assert_eq!(find(&[10, 0, 0, 7, 0, 91, 0, 0]), Truth::No);
        let mut key = known(&[10, 0, 0, 7, 0, 85, 0, 0]);
        key[..4].fill(None);
        assert_eq!(fields.find(&key).is_there, Truth::Maybe);
        key[5] = Some(91);
        assert_eq!(fields.find(&key).is_there, Truth::No);
    }

    #[test]
    fn what_stands_for_all_others_comes_last() {
        let map = set(
            false,
            &[(Kind::Others, &[], None), (Kind::Key, &[0, 80], None)],
        );
        let values = |key: Bytes| map.find(&key).values.len();
        assert_eq!(
            map.find(&known(&[0, 80])).values,
            [Value::Bytes(vec![0, 80])]
        );
        assert_eq!(map.find(&known(&[0, 81])).values, [Value::Bytes(vec![])]);
        assert_eq!(values(unknown(2)), 2);
        assert_eq!(map.find(&unknown(2)).is_there, Truth::Yes);
    }

    proptest! {
        #[test]
        fn no_element_panics(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            element(Attributes(&bytes));
        }
    }
}
