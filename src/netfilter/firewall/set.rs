//! Sets and maps of others, and whether a key is in them.

use super::super::message::{Attributes, Message, Request};
use super::super::socket::{Failure, Socket};
use super::chains::{Table, ask, list, single};
use super::effect::{Verdict, verdict};
use super::{Truth, packet::Bytes};
use nftnl::nftnl_sys::libc;

/// A set or map of a table.
pub struct Set {
    table: Table,
    name: String,
    /// How many bytes a key has, each field padded to 4. 0 if there is no such set any more.
    pub key_length: usize,
    /// Whether its keys are ranges.
    interval: bool,
    /// All that is in it, once that was needed.
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
            table: table.clone(),
            name: set.to_owned(),
            key_length: key_length as usize,
            interval: flags & libc::NFT_SET_INTERVAL as u32 != 0,
            elements: Vec::new(),
        })
    }

    /// Whether it is the set of this name.
    pub fn is(&self, table: &Table, name: &str) -> bool {
        self.table == *table && self.name == name
    }

    /// What it has for this key: the kernel's own answer, if all of the key is known; if not, what it may have.
    pub fn find(&mut self, socket: &Socket, key: &Bytes) -> Result<Found, Failure> {
        let Some(exact) = key.iter().copied().collect::<Option<Vec<u8>>>() else {
            if self.elements.is_empty() {
                self.elements = self.list(socket)?;
            }
            return Ok(self.candidates(key));
        };
        let this = |element: Request| element.nest(KEY, |key| key.attribute(VALUE, &exact));
        let others = |element: Request| element.attribute(FLAGS, &CATCH_ALL.to_be_bytes());
        let found = match self.ask(socket, this)? {
            None => self.ask(socket, others)?,
            found => found,
        };
        Ok(Found {
            is_there: found.is_some().into(),
            values: found
                .and_then(|element| element.value)
                .into_iter()
                .collect(),
        })
    }

    /// All elements that may be meant by a key of which not everything is known.
    fn candidates(&self, key: &Bytes) -> Found {
        let mut found = Found {
            is_there: Truth::No,
            values: Vec::new(),
        };
        for element in &self.elements {
            let may_be = match (element.kind, &element.fields_end) {
                (Kind::End, _) => false,
                (Kind::Others, _) => true,
                // Ranges of addresses are prefixes here, which can be compared in parts of 4 bytes.
                (Kind::Key, Some(end)) => {
                    let fields = element.key.chunks(4).zip(end.chunks(4));
                    let mut fields = key.chunks(4).zip(fields);
                    fields.all(|(key, (first, last))| within(key, first, last) != Truth::No)
                }
                (Kind::Key, None) if self.interval => true,
                (Kind::Key, None) => within(key, &element.key, &element.key) != Truth::No,
            };
            if may_be {
                found.is_there = Truth::Maybe;
                found.values.extend(element.value.clone());
            }
        }
        found
    }

    /// The element that the kernel finds for this description.
    fn ask(
        &self,
        socket: &Socket,
        description: impl FnOnce(Request) -> Request,
    ) -> Result<Option<Element>, Failure> {
        let request = single(libc::NFT_MSG_GETSETELEM, self.table.family)
            .text(TABLE, &self.table.name)
            .text(SET, &self.name)
            .nest(ELEMENTS, |list| list.nest(ELEMENT, description));
        let mut found = None;
        let answer = socket.dump(&request, |message| {
            found = message.and_then(|message| elements(&message).next());
        });
        match answer {
            // There is none, or this kernel does not know such ones.
            Err(Failure::Refused(_)) => Ok(None),
            answer => answer.map(|()| found),
        }
    }

    fn list(&self, socket: &Socket) -> Result<Vec<Element>, Failure> {
        let request = list(libc::NFT_MSG_GETSETELEM, self.table.family)
            .text(TABLE, &self.table.name)
            .text(SET, &self.name);
        let mut all = Vec::new();
        socket.dump(&request, |message| match message {
            None => all.clear(),
            Some(message) => all.extend(elements(&message)),
        })?;
        Ok(all)
    }
}

// linux/netfilter/nf_tables.h: NFTA_SET_ELEM_LIST_*, NFTA_LIST_ELEM, NFTA_SET_ELEM_*,
// NFTA_DATA_VALUE, NFT_SET_ELEM_*
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;
const INTERVAL_END: u32 = 1;
const CATCH_ALL: u32 = 2;

fn elements<'a>(message: &Message<'a>) -> impl Iterator<Item = Element> + use<'a> {
    let list = message.attributes().nested(ELEMENTS);
    list.iter()
        .filter_map(|(_, bytes)| element(Attributes(bytes)))
}

fn element(attributes: Attributes<'_>) -> Option<Element> {
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

#[cfg(test)]
mod tests {
    use super::super::TableFamily;
    use super::super::packet::{known, unknown};
    use super::*;
    use proptest::prelude::*;

    /// Kind, key, and last value of each field.
    type Entry<'a> = (Kind, &'a [u8], Option<&'a [u8]>);

    fn set(interval: bool, elements: &[Entry<'_>]) -> Set {
        let element = |(kind, key, fields_end): &Entry<'_>| Element {
            kind: *kind,
            key: key.to_vec(),
            fields_end: fields_end.map(<[u8]>::to_vec),
            value: Some(Value::Bytes(key.to_vec())),
        };
        let table = Table {
            family: TableFamily::Inet,
            name: "table".into(),
        };
        Set {
            table,
            name: "set".into(),
            key_length: 8,
            interval,
            elements: elements.iter().map(element).collect(),
        }
    }

    #[test]
    fn what_is_known_of_a_key_leaves_fewer_elements() {
        let all = set(
            true,
            &[
                (
                    Kind::Key,
                    &[10, 0, 0, 0, 0, 80, 0, 0],
                    Some(&[10, 0, 0, 255, 0, 90, 0, 0]),
                ),
                (
                    Kind::Key,
                    &[10, 0, 1, 0, 0, 70, 0, 0],
                    Some(&[10, 0, 1, 255, 0, 79, 0, 0]),
                ),
                (Kind::Others, &[], None),
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
        assert_eq!(all.candidates(&unknown(8)).is_there, Truth::Maybe);

        let single = set(
            false,
            &[(Kind::Key, &[0, 80], None), (Kind::End, &[0, 81], None)],
        );
        assert_eq!(single.candidates(&vec![Some(0), None]).values.len(), 1);
        assert_eq!(single.candidates(&vec![Some(1), None]).is_there, Truth::No);
        // Of a range, only the first key is known.
        let range = set(
            true,
            &[(Kind::Key, &[9, 0], None), (Kind::End, &[11, 0], None)],
        );
        assert_eq!(range.candidates(&vec![Some(10), None]).values.len(), 1);
    }

    proptest! {
        #[test]
        fn no_element_panics(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            element(Attributes(&bytes));
        }
    }
}
