//! The kernel's expressions, of which the statements of a rule are made.
//!
//! nftnl has types for some of them, all tied to the first register; fib, numgen, hash, look-ups
//! with a destination register and flags of NAT are missing. So all are made here, in one way.

use super::list::Count;
use crate::config::Family;
use crate::uapi::*;
use nftnl::nftnl_sys::{self as sys, libc};
use std::ffi::{CStr, CString};

/// The first register of 16 bytes (linux/netfilter/nf_tables.h: `NFT_REG_1`).
pub const REG_1: u32 = libc::NFT_REG_1 as u32;
/// The second register of 16 bytes.
pub const REG_2: u32 = libc::NFT_REG_2 as u32;
/// The register that holds a verdict.
pub const VERDICT: u32 = libc::NFT_REG_VERDICT as u32;

/// The register that starts `bytes` (a multiple of 4, below 64) after the start of [`REG_1`]: registers
/// of 4 bytes overlay those of 16.
pub const fn register_after(bytes: usize) -> u32 {
    libc::NFT_REG32_00 as u32 + (bytes / 4) as u32
}

/// The value of an attribute, by the setter that libnftnl has for it.
pub enum Value {
    U32(u32),
    Bytes(Vec<u8>),
    Text(CString),
}

/// An expression with its attributes, by libnftnl's names.
pub struct Expression {
    name: &'static CStr,
    attributes: Vec<(u32, Value)>,
}

impl Expression {
    /// Its name, and its attributes, each with a value of the kind that libnftnl has a setter for. Only
    /// the functions below put them together.
    pub fn parts(&self) -> (&CStr, &[(u32, Value)]) {
        (self.name, &self.attributes)
    }

    fn new(name: &'static CStr) -> Self {
        Expression {
            name,
            attributes: Vec::new(),
        }
    }

    fn u32(mut self, attribute: u32, value: u32) -> Self {
        self.attributes.push((attribute, Value::U32(value)));
        self
    }

    fn bytes(mut self, attribute: u32, value: &[u8]) -> Self {
        self.attributes
            .push((attribute, Value::Bytes(value.to_vec())));
        self
    }

    fn text(mut self, attribute: u32, value: &CStr) -> Self {
        self.attributes
            .push((attribute, Value::Text(value.to_owned())));
        self
    }
}

/// Loads a property of the packet, one of `NFT_META_*`.
pub fn meta(key: i32, register: u32) -> Expression {
    Expression::new(c"meta")
        .u32(sys::NFTNL_EXPR_META_KEY, key as u32)
        .u32(sys::NFTNL_EXPR_META_DREG, register)
}

/// Loads bytes of a header, one of `NFT_PAYLOAD_*_HEADER`.
pub fn payload(header: i32, offset: u32, length: u32, register: u32) -> Expression {
    Expression::new(c"payload")
        .u32(sys::NFTNL_EXPR_PAYLOAD_DREG, register)
        .u32(sys::NFTNL_EXPR_PAYLOAD_BASE, header as u32)
        .u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, offset)
        .u32(sys::NFTNL_EXPR_PAYLOAD_LEN, length)
}

/// Goes on only if the first register holds these bytes.
pub fn equal(data: &[u8]) -> Expression {
    compare(libc::NFT_CMP_EQ, data)
}

/// Goes on only if the first register holds other bytes.
pub fn not_equal(data: &[u8]) -> Expression {
    compare(libc::NFT_CMP_NEQ, data)
}

/// Goes on only if the first register holds fewer than these bytes, compared from the first one on.
pub fn less(data: &[u8]) -> Expression {
    compare(libc::NFT_CMP_LT, data)
}

fn compare(operation: i32, data: &[u8]) -> Expression {
    Expression::new(c"cmp")
        .u32(sys::NFTNL_EXPR_CMP_SREG, REG_1)
        .u32(sys::NFTNL_EXPR_CMP_OP, operation as u32)
        .bytes(sys::NFTNL_EXPR_CMP_DATA, data)
}

/// Keeps the bits of `mask` in the first register.
pub fn mask(mask: &[u8]) -> Expression {
    Expression::new(c"bitwise")
        .u32(sys::NFTNL_EXPR_BITWISE_SREG, REG_1)
        .u32(sys::NFTNL_EXPR_BITWISE_DREG, REG_1)
        .u32(sys::NFTNL_EXPR_BITWISE_LEN, mask.len() as u32)
        .bytes(sys::NFTNL_EXPR_BITWISE_MASK, mask)
        .bytes(sys::NFTNL_EXPR_BITWISE_XOR, &vec![0; mask.len()])
}

/// Turns a number of `length` bytes in the first register from host to network byte order.
pub fn to_network_order(length: u32) -> Expression {
    Expression::new(c"byteorder")
        .u32(sys::NFTNL_EXPR_BYTEORDER_SREG, REG_1)
        .u32(sys::NFTNL_EXPR_BYTEORDER_DREG, REG_1)
        .u32(
            sys::NFTNL_EXPR_BYTEORDER_OP,
            libc::NFT_BYTEORDER_HTON as u32,
        )
        .u32(sys::NFTNL_EXPR_BYTEORDER_LEN, length)
        .u32(sys::NFTNL_EXPR_BYTEORDER_SIZE, length)
}

/// Loads a property of the packet's connection, one of `NFT_CT_*`.
pub fn conntrack(key: i32) -> Expression {
    Expression::new(c"ct")
        .u32(sys::NFTNL_EXPR_CT_KEY, key as u32)
        .u32(sys::NFTNL_EXPR_CT_DREG, REG_1)
}

/// Loads the type of the packet's destination address, `RTN_*` of linux/rtnetlink.h: of any
/// address, or only of those of the interface that the packet comes in on.
pub fn destination_type(of_interface: bool) -> Expression {
    let flags = if of_interface { NFTA_FIB_F_IIF } else { 0 };
    Expression::new(c"fib")
        .u32(sys::NFTNL_EXPR_FIB_DREG, REG_1)
        .u32(sys::NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
        .u32(sys::NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR | flags)
}

/// Loads the index of the interface that a packet comes in on into the first register, if the route to an
/// address of the packet leads out of it; 0 if not.
pub fn route_to_input(address: u32) -> Expression {
    Expression::new(c"fib")
        .u32(sys::NFTNL_EXPR_FIB_DREG, REG_1)
        .u32(sys::NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_OIF)
        .u32(sys::NFTNL_EXPR_FIB_FLAGS, address | NFTA_FIB_F_IIF)
}

/// Loads a number below `modulus` into the first register. `generator` is one of `NFT_NG_*`.
pub fn number(generator: i32, modulus: u32) -> Expression {
    Expression::new(c"numgen")
        .u32(sys::NFTNL_EXPR_NG_DREG, REG_1)
        .u32(sys::NFTNL_EXPR_NG_TYPE, generator as u32)
        .u32(sys::NFTNL_EXPR_NG_MODULUS, modulus)
}

/// Loads a number below `modulus` into the first register, by a hash of the first `length` bytes at
/// [`REG_2`].
pub fn hash(length: u32, modulus: u32, seed: u32) -> Expression {
    Expression::new(c"hash")
        .u32(sys::NFTNL_EXPR_HASH_SREG, REG_2)
        .u32(sys::NFTNL_EXPR_HASH_DREG, REG_1)
        .u32(sys::NFTNL_EXPR_HASH_LEN, length)
        .u32(sys::NFTNL_EXPR_HASH_MODULUS, modulus)
        .u32(sys::NFTNL_EXPR_HASH_SEED, seed)
        .u32(sys::NFTNL_EXPR_HASH_TYPE, NFT_HASH_JENKINS)
}

/// A set that a rule looks into: its name, and its number in the transaction.
pub struct SetReference {
    pub name: CString,
    pub id: u32,
}

/// Goes on only if the key at [`REG_1`] is in the set.
pub fn lookup(set: &SetReference) -> Expression {
    Expression::new(c"lookup")
        .u32(sys::NFTNL_EXPR_LOOKUP_SREG, REG_1)
        .text(sys::NFTNL_EXPR_LOOKUP_SET, &set.name)
        .u32(sys::NFTNL_EXPR_LOOKUP_SET_ID, set.id)
}

/// Goes on only if the key at [`REG_1`] is not in the set.
pub fn lookup_not(set: &SetReference) -> Expression {
    lookup(set).u32(sys::NFTNL_EXPR_LOOKUP_FLAGS, libc::NFT_LOOKUP_F_INV as u32)
}

/// Loads what the map has for the key at [`REG_1`]; goes on only if it has something.
pub fn lookup_map(map: &SetReference, register: u32) -> Expression {
    lookup(map).u32(sys::NFTNL_EXPR_LOOKUP_DREG, register)
}

/// Loads these bytes.
pub fn immediate(data: &[u8], register: u32) -> Expression {
    Expression::new(c"immediate")
        .u32(sys::NFTNL_EXPR_IMM_DREG, register)
        .bytes(sys::NFTNL_EXPR_IMM_DATA, data)
}

/// Ends the rule with a verdict, `NF_*` or `NFT_*`.
pub fn verdict(code: i32) -> Expression {
    Expression::new(c"immediate")
        .u32(sys::NFTNL_EXPR_IMM_DREG, VERDICT)
        .u32(sys::NFTNL_EXPR_IMM_VERDICT, code as u32)
}

/// Goes on in another chain: `NFT_JUMP` comes back, `NFT_GOTO` does not.
pub fn to_chain(code: i32, chain: &CStr) -> Expression {
    verdict(code).text(sys::NFTNL_EXPR_IMM_CHAIN, chain)
}

/// Counts packets and bytes, from there on.
pub fn counter(from: Count) -> Expression {
    let counter = Expression::new(c"counter");
    if from == Count::default() {
        return counter;
    }
    counter
        .bytes(sys::NFTNL_EXPR_CTR_PACKETS, &from.packets.to_ne_bytes())
        .bytes(sys::NFTNL_EXPR_CTR_BYTES, &from.bytes.to_ne_bytes())
}

/// Translates the destination to the address at [`REG_1`] and the port in `port_register`.
/// `family` is one of `NFPROTO_*`.
pub fn destination_nat(family: u8, port_register: Option<u32>) -> Expression {
    let nat = Expression::new(c"nat")
        .u32(sys::NFTNL_EXPR_NAT_TYPE, libc::NFT_NAT_DNAT as u32)
        .u32(sys::NFTNL_EXPR_NAT_FAMILY, u32::from(family))
        .u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, REG_1);
    match port_register {
        Some(register) => nat.u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, register),
        None => nat,
    }
}

/// Gives the packet this host's address. `flags` say how its source port is chosen, `NF_NAT_RANGE_*`.
pub fn masquerade(flags: u32) -> Expression {
    let masquerade = Expression::new(c"masq");
    match flags {
        0 => masquerade,
        flags => masquerade.u32(sys::NFTNL_EXPR_MASQ_FLAGS, flags),
    }
}

/// Puts the packet's connection into a flowtable.
pub fn flow_add(flowtable: &CStr) -> Expression {
    Expression::new(c"flow_offload").text(sys::NFTNL_EXPR_FLOW_TABLE_NAME, flowtable)
}

/// Loads the MSS that fits the path MTU of both directions.
pub fn path_mss(register: u32) -> Expression {
    Expression::new(c"rt")
        .u32(sys::NFTNL_EXPR_RT_KEY, NFT_RT_TCPMSS)
        .u32(sys::NFTNL_EXPR_RT_DREG, register)
}

/// Lowers the MSS in the options of a TCP header (kind 2, of which the value starts at the third byte:
/// RFC 9293, section 3.2) to that in the first register.
pub fn set_mss() -> Expression {
    Expression::new(c"exthdr")
        .u32(sys::NFTNL_EXPR_EXTHDR_SREG, REG_1)
        .bytes(sys::NFTNL_EXPR_EXTHDR_TYPE, &[2])
        .u32(sys::NFTNL_EXPR_EXTHDR_OFFSET, 2)
        .u32(sys::NFTNL_EXPR_EXTHDR_LEN, 2)
        .u32(sys::NFTNL_EXPR_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT)
}

/// Goes on only for packets of this family.
pub fn is_family(family: Family) -> [Expression; 2] {
    [
        meta(libc::NFT_META_NFPROTO, REG_1),
        equal(&[nfproto(family)]),
    ]
}

/// Where an IPv4 header has its destination address (RFC 791, section 3.1).
pub const IPV4_DESTINATION: u32 = 16;

/// Loads the source address (RFC 791, RFC 8200).
pub fn source(family: Family, register: u32) -> Expression {
    let (offset, length) = match family {
        Family::Ipv4 => (12, 4),
        Family::Ipv6 => (8, 16),
    };
    payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, register)
}

/// Loads the destination address (RFC 791, RFC 8200).
pub fn destination(family: Family, register: u32) -> Expression {
    let (offset, length) = match family {
        Family::Ipv4 => (IPV4_DESTINATION, 4),
        Family::Ipv6 => (24, 16),
    };
    payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, register)
}

/// Loads the destination port, the second field of every header that has ports.
pub fn destination_port(register: u32) -> Expression {
    payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register)
}

/// Loads the source port, the first field of these headers.
pub fn source_port(register: u32) -> Expression {
    payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, register)
}

/// Loads the flags of a TCP header (RFC 9293, section 3.1).
pub fn tcp_flags(register: u32) -> Expression {
    payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, register)
}

/// Loads the protocol into the register after that of a port at [`REG_1`].
pub fn protocol_after_port() -> Expression {
    meta(libc::NFT_META_L4PROTO, register_after(4))
}

/// The register after the key that [`service`] loads.
pub const AFTER_SERVICE: u32 = register_after(8);

/// Loads port and protocol: a key of 8 bytes at [`REG_1`].
pub fn service() -> [Expression; 2] {
    [destination_port(REG_1), protocol_after_port()]
}

/// Length of an address in bytes.
pub fn address_length(family: Family) -> usize {
    match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 16,
    }
}

/// The family's number, `NFPROTO_*` of linux/netfilter.h.
pub fn nfproto(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::NFPROTO_IPV4 as u8,
        Family::Ipv6 => libc::NFPROTO_IPV6 as u8,
    }
}
