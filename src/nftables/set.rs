//! Sets and their elements as the kernel takes them, and nft's numbers for their types.
//!
//! nftnl's own type has keys of one address only; ranges, concatenations and maps are missing.

use crate::netlink::octets;
use crate::ruleset::{Element, Field, FieldType, Set, Value, ValueType};
use crate::uapi::NFT_SET_CONCAT;
use ipnet::IpNet;
use nix::libc;
use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// nft's numbers of its data types (enum datatypes in nftables' datatype.h): the kernel keeps them
/// for nft, which shows elements by them.
const TYPE_INTEGER: u32 = 4;
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
/// The type of a concatenation has six bits for each field.
const TYPE_BITS: u32 = 6;

/// Length of a verdict in bytes, which the kernel ignores.
const VERDICT_LENGTH: u32 = 16;

/// User data of a map, which tells nft that its type is `typeof numgen inc mod 2 : verdict`, keys being in host byte
/// order: the attributes (type, length, value) NFTNL_UDATA_SET_KEYBYTEORDER, KEY_TYPEOF and DATA_TYPEOF of
/// libnftnl's udata.h. The latter two hold the number of an expression in nftables' expression.h, and
/// what src/numgen.c writes of it: kind, modulus, offset.
pub const NUMBER_TYPE: [u8; 44] = {
    let [a, b, c, d] = 1u32.to_ne_bytes();
    let [e, f, g, h] = 23u32.to_ne_bytes();
    let [i, j, k, l] = 2u32.to_ne_bytes();
    [
        0, 4, a, b, c, d, // host byte order
        3, 26, 0, 4, e, f, g, h, 1, 18, // typeof numgen
        0, 4, 0, 0, 0, 0, 1, 4, i, j, k, l, 2, 4, 0, 0, 0, 0, // inc, mod 2, offset 0
        4, 8, 0, 4, a, b, c, d, 1, 0, // verdict
    ]
};

/// What the kernel, and nft for its listings, must know of a set.
pub struct SetDescription<'a> {
    pub table: &'a CStr,
    pub name: &'a CStr,
    /// The number that rules of the same transaction know it by.
    pub id: u32,
    /// `NFT_SET_*` flags.
    pub flags: u32,
    /// nft's number of the key's type.
    pub key_type: u32,
    /// Length in bytes of each field of the key, without padding.
    pub key_fields: &'a [u8],
    /// nft's number and the length in bytes of what a map leads to.
    pub data: Option<(u32, u32)>,
    /// What nft reads for its listings (NFTNL_UDATA_SET_* in libnftnl's udata.h).
    pub user_data: Option<&'a [u8]>,
}

/// An element. Keys and data are padded to 4 bytes a field, in network byte order.
pub struct ElementData {
    /// The key, or the first key of a range.
    pub key: Vec<u8>,
    /// The last key of a range, in a set of concatenations.
    pub key_end: Option<Vec<u8>>,
    /// Whether the key is the first one after a range, in a set of single fields.
    pub interval_end: bool,
    /// What the key leads to.
    pub data: Option<Data>,
}

/// What an element of a map leads to.
pub enum Data {
    /// A value.
    Bytes(Vec<u8>),
    /// `goto` the chain of this name.
    Goto(CString),
}

/// `NFT_SET_*` flags.
pub fn set_flags(set: &Set) -> u32 {
    let mut flags = 0;
    if set.interval {
        flags |= libc::NFT_SET_INTERVAL as u32;
        if set.key.len() > 1 {
            flags |= NFT_SET_CONCAT;
        }
    }
    if set.values.is_some() {
        flags |= libc::NFT_SET_MAP as u32;
    }
    flags
}

/// nft's number and the length in bytes of a map's values.
pub fn value_type(values: ValueType) -> (u32, u32) {
    match values {
        ValueType::Verdict => (libc::NFT_DATA_VERDICT, VERDICT_LENGTH),
        ValueType::Backend(family) => {
            let (number, length) = field_type(FieldType::address(family));
            let types = [number, TYPE_INET_SERVICE].into_iter();
            (concatenated(types), u32::from(length) + 4)
        }
    }
}

/// A set's elements as the kernel takes them.
pub fn set_elements(set: &Set) -> Vec<ElementData> {
    let data = |element: &Element| {
        element.value.as_ref().map(|value| match value {
            Value::Goto(chain) => Data::Goto(c_string(chain)),
            Value::Backend(address, port) => {
                Data::Bytes([octets(*address), padded(&port.to_be_bytes())].concat())
            }
        })
    };
    let mut elements = Vec::with_capacity(set.elements.len());
    for element in &set.elements {
        if let [Field::Network(network)] = element.key[..] {
            elements.extend(interval(network));
            continue;
        }
        elements.push(ElementData {
            key: key(&element.key, first),
            key_end: set.interval.then(|| key(&element.key, last)),
            interval_end: false,
            data: data(element),
        });
    }
    elements
}

/// A range of addresses: its first one, and the first one after it, if there is one.
fn interval(network: IpNet) -> impl Iterator<Item = ElementData> {
    let after = match network.broadcast() {
        IpAddr::V4(last) => u32::from(last)
            .checked_add(1)
            .map(|next| IpAddr::V4(Ipv4Addr::from(next))),
        IpAddr::V6(last) => u128::from(last)
            .checked_add(1)
            .map(|next| IpAddr::V6(Ipv6Addr::from(next))),
    };
    let element = |address, interval_end| ElementData {
        key: octets(address),
        key_end: None,
        interval_end,
        data: None,
    };
    let start = element(network.network(), false);
    std::iter::once(start).chain(after.map(|address| element(address, true)))
}

fn key(fields: &[Field], side: fn(Field) -> Vec<u8>) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|field| padded(&side(*field)))
        .collect()
}

fn first(field: Field) -> Vec<u8> {
    match field {
        Field::Network(network) => octets(network.network()),
        Field::Address(address) => octets(address),
        Field::Protocol(protocol) => vec![protocol.number()],
        Field::Ports(ports) => ports.first().to_be_bytes().to_vec(),
        Field::Number(number) => number.to_ne_bytes().to_vec(),
    }
}

fn last(field: Field) -> Vec<u8> {
    match field {
        Field::Network(network) => octets(network.broadcast()),
        Field::Ports(ports) => ports.last().to_be_bytes().to_vec(),
        Field::Address(_) | Field::Protocol(_) | Field::Number(_) => first(field),
    }
}

/// A field fills registers of 4 bytes.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// nft's number and the length in bytes of a field.
pub fn field_type(field: FieldType) -> (u32, u8) {
    match field {
        FieldType::Ipv4Addr => (TYPE_IPV4_ADDR, 4),
        FieldType::Ipv6Addr => (TYPE_IPV6_ADDR, 16),
        FieldType::InetProto => (TYPE_INET_PROTO, 1),
        FieldType::InetService => (TYPE_INET_SERVICE, 2),
        FieldType::Number => (TYPE_INTEGER, 4),
    }
}

/// nft's number for fields of these types one after the other.
pub fn concatenated(types: impl Iterator<Item = u32>) -> u32 {
    types.fold(0, |all, number| (all << TYPE_BITS) | number)
}

/// Names in a ruleset are made of letters, digits, '.', '_' and '-', so there is no NUL in them.
pub fn c_string(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}
