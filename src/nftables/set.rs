//! Sets, maps and their elements → messages.
//!
//! nftnl's own type has keys of one address only; ranges, concatenations and maps are missing.

use super::list::message_type;
use crate::netlink::Request;
use crate::ruleset::{Element, Field, FieldType, Set, Value, ValueType};
use crate::uapi::*;
use ipnet::IpNet;
use nix::libc;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// nft's numbers of its data types (enum datatypes in nftables' datatype.h): the kernel keeps them
/// for nft, which shows elements by them.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_IFNAME: u32 = 41;
/// The type of a concatenation has six bits for each field.
const TYPE_BITS: u32 = 6;

/// Length of a verdict in bytes, which the kernel ignores.
const VERDICT_LENGTH: u32 = 16;

/// User data of a set, which tells nft that its keys are in host byte order, as names are: the attribute
/// (type, length, value) NFTNL_UDATA_SET_KEYBYTEORDER of libnftnl's udata.h.
const HOST_BYTE_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

/// The most elements that go into one message. The list of elements is one netlink attribute and its
/// length a u16; the largest element here (IPv6 address, protocol and port as a range, or a chain's name)
/// takes less than 200 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// The message that adds a set, without its elements. Rules of the same transaction know it by `id`.
pub fn add_set(table: &str, set: &Set, id: u32) -> Request {
    let (key_type, fields) = concatenation(&set.key);
    let mut request = message(libc::NFT_MSG_NEWSET)
        .text(NFTA_SET_TABLE, table)
        .text(NFTA_SET_NAME, &set.name)
        .u32(NFTA_SET_FLAGS, flags(set))
        .u32(NFTA_SET_KEY_TYPE, key_type)
        .u32(NFTA_SET_KEY_LEN, length(&fields))
        .u32(NFTA_SET_ID, id);
    request = describe(request, set, &fields);
    if let Some(values) = set.values {
        let (data_type, length) = data_type(values);
        request = request
            .u32(NFTA_SET_DATA_TYPE, data_type)
            .u32(NFTA_SET_DATA_LEN, length);
    }
    if set.counter {
        request = request.nest(NFTA_SET_EXPR, |expression| {
            expression
                .text(NFTA_EXPR_NAME, "counter")
                .nest(NFTA_EXPR_DATA, |data| data)
        });
    }
    match set.key[..] {
        [FieldType::Ifname] => request.attribute(NFTA_SET_USERDATA, &HOST_BYTE_ORDER),
        _ => request,
    }
}

/// Adds a set's size, or the lengths of a range's fields, which the kernel takes for ranges only
/// (nf_tables_newset: EINVAL otherwise).
fn describe(request: Request, set: &Set, fields: &[u32]) -> Request {
    if let Some(size) = set.size() {
        return request.nest(NFTA_SET_DESC, |nest| nest.u32(NFTA_SET_DESC_SIZE, size));
    }
    if fields.len() == 1 {
        return request;
    }
    request.nest(NFTA_SET_DESC, |nest| {
        nest.nest(NFTA_SET_DESC_CONCAT, |list| {
            fields.iter().fold(list, |list, length| {
                list.nest(NFTA_LIST_ELEM, |field| {
                    field.u32(NFTA_SET_FIELD_LEN, *length)
                })
            })
        })
    })
}

/// nft's number for the type of a map's values, and their length in bytes.
fn data_type(values: ValueType) -> (u32, u32) {
    let types = match values {
        ValueType::Verdict => return (libc::NFT_DATA_VERDICT, VERDICT_LENGTH),
        ValueType::Backend(family) => [FieldType::address(family), FieldType::InetService],
    };
    let (data_type, fields) = concatenation(&types);
    (data_type, length(&fields))
}

/// The messages that add the elements of a set.
pub fn add_elements(table: &str, set: &Set, id: u32) -> impl Iterator<Item = Request> {
    set.elements.chunks(ELEMENTS_PER_MESSAGE).map(move |chunk| {
        message(libc::NFT_MSG_NEWSETELEM)
            .text(NFTA_SET_ELEM_LIST_TABLE, table)
            .text(NFTA_SET_ELEM_LIST_SET, &set.name)
            .u32(NFTA_SET_ELEM_LIST_SET_ID, id)
            .nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                let add = |list, element| add_element(list, set.interval, element);
                chunk.iter().fold(list, add)
            })
    })
}

fn message(message: i32) -> Request {
    let flags = libc::NLM_F_CREATE as u16;
    Request::new(message_type(message), flags, libc::NFPROTO_INET as u8, 0)
}

/// `NFT_SET_*`
fn flags(set: &Set) -> u32 {
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

fn add_element(list: Request, interval: bool, element: &Element) -> Request {
    // A range of single fields is two elements: its first key, and the first key after it.
    if let [field @ Field::Network(network)] = element.key[..] {
        let list = list.nest(NFTA_LIST_ELEM, |nest| {
            add_key(nest, NFTA_SET_ELEM_KEY, &[field], End::First)
        });
        return match after(network) {
            Some(end) => list.nest(NFTA_LIST_ELEM, |nest| {
                let end = Field::Address(end);
                add_key(nest, NFTA_SET_ELEM_KEY, &[end], End::First)
                    .u32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)
            }),
            None => list,
        };
    }
    list.nest(NFTA_LIST_ELEM, |nest| {
        let mut nest = add_key(nest, NFTA_SET_ELEM_KEY, &element.key, End::First);
        if interval {
            nest = add_key(nest, NFTA_SET_ELEM_KEY_END, &element.key, End::Last);
        }
        match &element.value {
            Some(value) => nest.nest(NFTA_SET_ELEM_DATA, |data| add_value(data, value)),
            None => nest,
        }
    })
}

fn add_key(element: Request, kind: u16, key: &[Field], end: End) -> Request {
    element.nest(kind, |nest| {
        nest.payload(NFTA_DATA_VALUE, |bytes| {
            key.iter().for_each(|field| push_field(bytes, field, end));
        })
    })
}

fn add_value(data: Request, value: &Value) -> Request {
    match value {
        Value::Goto(chain) => data.nest(NFTA_DATA_VERDICT, |verdict| {
            verdict
                .u32(NFTA_VERDICT_CODE, libc::NFT_GOTO as u32)
                .text(NFTA_VERDICT_CHAIN, chain)
        }),
        Value::Backend(address, port) => data.payload(NFTA_DATA_VALUE, |bytes| {
            push_address(bytes, *address);
            push_port(bytes, *port);
        }),
    }
}

/// The first address after a network; `None` after the last one.
fn after(network: IpNet) -> Option<IpAddr> {
    match network.broadcast() {
        IpAddr::V4(last) => Some(Ipv4Addr::from(u32::from(last).checked_add(1)?).into()),
        IpAddr::V6(last) => Some(Ipv6Addr::from(u128::from(last).checked_add(1)?).into()),
    }
}

/// The end of a range that a key is of.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// Adds a field of a key. A field fills registers of 4 bytes, and an attribute starts at such a place.
fn push_field(bytes: &mut Vec<u8>, field: &Field, end: End) {
    match (field, end) {
        (Field::Network(network), End::First) => push_address(bytes, network.network()),
        (Field::Network(network), End::Last) => push_address(bytes, network.broadcast()),
        (Field::Address(address), _) => push_address(bytes, *address),
        (Field::Protocol(protocol), _) => bytes.extend_from_slice(&[protocol.number(), 0, 0, 0]),
        (Field::Ports(ports), End::First) => push_port(bytes, ports.first()),
        (Field::Ports(ports), End::Last) => push_port(bytes, ports.last()),
        (Field::Interface(name), _) => bytes.extend_from_slice(name.bytes()),
    }
}

fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}

fn push_port(bytes: &mut Vec<u8>, port: u16) {
    let [high, low] = port.to_be_bytes();
    bytes.extend_from_slice(&[high, low, 0, 0]);
}

/// nft's number for fields of these types after each other, and the length of each in bytes.
fn concatenation(types: &[FieldType]) -> (u32, Vec<u32>) {
    let field = |field: &FieldType| match field {
        FieldType::Ipv4Addr => (TYPE_IPV4_ADDR, 4),
        FieldType::Ipv6Addr => (TYPE_IPV6_ADDR, 16),
        FieldType::InetProto => (TYPE_INET_PROTO, 1),
        FieldType::InetService => (TYPE_INET_SERVICE, 2),
        FieldType::Ifname => (TYPE_IFNAME, 16),
    };
    let (numbers, lengths): (Vec<u32>, Vec<u32>) = types.iter().map(field).unzip();
    let concatenate = |all, number: u32| (all << TYPE_BITS) | number;
    (numbers.into_iter().fold(0, concatenate), lengths)
}

/// Length in bytes of fields, each padded to 4 unless it is the only one.
fn length(fields: &[u32]) -> u32 {
    match fields {
        [only] => *only,
        _ => fields.iter().map(|length| length.next_multiple_of(4)).sum(),
    }
}
