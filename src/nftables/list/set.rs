//! Sets and maps, and their elements.

use super::{Table, TableFamily, dump_request, get_request};
use crate::netlink::{Attributes, Failure, Message, Request, Socket, or_missing};
use crate::uapi::*;
use nix::libc;
use std::collections::HashSet;

/// What the kernel says of a set or map, apart from its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetInfo {
    /// Length of a key in bytes, each field padded to 4.
    pub key_length: usize,
    /// Whether its keys are ranges.
    pub interval: bool,
}

/// The set or map of this name; `None` if the table has none.
pub fn set(socket: &Socket, table: &Table, name: &str) -> Result<Option<SetInfo>, Failure> {
    let request = get_request(libc::NFT_MSG_GETSET, table.family)
        .text(NFTA_SET_TABLE, &table.name)
        .text(NFTA_SET_NAME, name);
    or_missing(socket.get(&request, |message| {
        let attributes = message.attributes();
        let flags = attributes.u32(NFTA_SET_FLAGS).unwrap_or(0);
        Some(SetInfo {
            key_length: attributes.u32(NFTA_SET_KEY_LEN)? as usize,
            interval: flags & libc::NFT_SET_INTERVAL as u32 != 0,
        })
    }))
}

/// The tables of family `inet` that have a set or map with one of these names.
pub fn tables_with_sets(socket: &Socket, names: &[String]) -> Result<HashSet<String>, Failure> {
    let request = dump_request(libc::NFT_MSG_GETSET, TableFamily::Inet);
    let tables = socket.list(&request, |message| {
        let attributes = message.attributes();
        let name = attributes.text(NFTA_SET_NAME)?;
        let table = attributes.name(NFTA_SET_TABLE);
        table.filter(|_| names.iter().any(|wanted| wanted == name))
    })?;
    Ok(tables.into_iter().collect())
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub kind: ElementKind,
    /// Its key, or the first one of its range, fields padded to 4 bytes. Empty for a catch-all.
    pub key: Vec<u8>,
    /// The last key of its range, in a set of concatenations.
    pub key_end: Option<Vec<u8>>,
    /// What a map has for it.
    pub data: Option<Data>,
    /// How many packets it has counted; `None` if it does not count.
    pub packets: Option<u64>,
}

/// What an element stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementKind {
    /// A key, or a range of keys.
    Key,
    /// The first key after a range, in a set of single fields.
    IntervalEnd,
    /// All keys that no other element has (`*` in nft).
    CatchAll,
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A value, fields padded to 4 bytes.
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// A verdict, `NF_*` or `NFT_*`, with the chain that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub code: i32,
    pub chain: Option<String>,
}

/// All elements of a set or map. Refused (ENOENT) if the table has no such set: see [`or_missing`].
pub fn elements(socket: &Socket, table: &Table, set: &str) -> Result<Vec<Element>, Failure> {
    let request = of_set(
        dump_request(libc::NFT_MSG_GETSETELEM, table.family),
        table,
        set,
    );
    let parts = socket.list(&request, |message| {
        Some(elements_of(message).collect::<Vec<_>>())
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// The same, none if there is no such set. `None` if there are more than `most`: then the socket must not be used
/// afterwards. The kernel goes through a set from its start for each part of the reply (nf_tables_dump_set in
/// net/netfilter/nf_tables_api.c), so that the last parts of a large one take the longest.
pub fn elements_up_to(
    socket: &Socket,
    most: usize,
    table: &Table,
    set: &str,
) -> Result<Option<Vec<Element>>, Failure> {
    let request = dump_request(libc::NFT_MSG_GETSETELEM, table.family);
    socket.list_up_to(most, &of_set(request, table, set), |message| {
        elements_of(message).collect()
    })
}

/// The element that the kernel finds for a key: the one that holds the key, or else a catch-all.
pub fn element(
    socket: &Socket,
    table: &Table,
    set: &str,
    key: &[u8],
) -> Result<Option<Element>, Failure> {
    let get = |element: &dyn Fn(Request) -> Request| {
        let request = get_request(libc::NFT_MSG_GETSETELEM, table.family);
        let request = of_set(request, table, set).nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            list.nest(NFTA_LIST_ELEM, element)
        });
        match socket.get(&request, |message| elements_of(message).next()) {
            // There is none, or the kernel does not know catch-all elements.
            Err(Failure::Refused(_)) => Ok(None),
            reply => reply,
        }
    };
    let of_key = get(&|element| {
        element.nest(NFTA_SET_ELEM_KEY, |nest| {
            nest.attribute(NFTA_DATA_VALUE, key)
        })
    })?;
    match of_key {
        None => get(&|element| {
            element.attribute(NFTA_SET_ELEM_FLAGS, &NFT_SET_ELEM_CATCHALL.to_be_bytes())
        }),
        found => Ok(found),
    }
}

fn of_set(request: Request, table: &Table, set: &str) -> Request {
    request
        .text(NFTA_SET_ELEM_LIST_TABLE, &table.name)
        .text(NFTA_SET_ELEM_LIST_SET, set)
}

fn elements_of<'a>(message: &Message<'a>) -> impl Iterator<Item = Element> + use<'a> {
    let list = message.attributes().nested(NFTA_SET_ELEM_LIST_ELEMENTS);
    list.iter()
        .filter_map(|(_, bytes)| decode_element(Attributes(bytes)))
}

/// Reads one element of a dump; `None` if it has no key and is no catch-all.
pub fn decode_element(attributes: Attributes<'_>) -> Option<Element> {
    let flags = attributes.u32(NFTA_SET_ELEM_FLAGS).unwrap_or(0);
    let kind = match flags & (NFT_SET_ELEM_INTERVAL_END | NFT_SET_ELEM_CATCHALL) {
        0 => ElementKind::Key,
        NFT_SET_ELEM_INTERVAL_END => ElementKind::IntervalEnd,
        _ => ElementKind::CatchAll,
    };
    let key = |kind| {
        attributes
            .nested(kind)
            .get(NFTA_DATA_VALUE)
            .map(<[u8]>::to_vec)
    };
    let without_key = (kind == ElementKind::CatchAll).then(Vec::new);
    let data = attributes.nested(NFTA_SET_ELEM_DATA);
    let value = data
        .get(NFTA_DATA_VALUE)
        .map(|value| Data::Value(value.to_vec()));
    let counter = attributes.nested(NFTA_SET_ELEM_EXPR).nested(NFTA_EXPR_DATA);
    Some(Element {
        kind,
        key: key(NFTA_SET_ELEM_KEY).or(without_key)?,
        key_end: key(NFTA_SET_ELEM_KEY_END),
        data: value.or_else(|| verdict(data).map(Data::Verdict)),
        packets: counter.u64(NFTA_COUNTER_PACKETS),
    })
}

/// The verdict in these attributes of data, if there is one.
pub fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.nested(NFTA_DATA_VERDICT);
    Some(Verdict {
        code: verdict.u32(NFTA_VERDICT_CODE)? as i32,
        chain: verdict.name(NFTA_VERDICT_CHAIN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_element_panics(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            decode_element(Attributes(&bytes));
        }
    }
}
