//! What packets are looked at for: each function gives the expressions that load a part of a
//! packet, or that go on only for some packets.

use super::expression::{self, Expression, REG_1, REG_2, register_after};
use crate::config::{Balance, Family};
use crate::ruleset::{Choice, SOURCE_HASH_SEED};
use nftnl::nftnl_sys::libc;

/// Goes on only for packets of this family.
pub fn is_family(family: Family) -> [Expression; 2] {
    [
        expression::meta(libc::NFT_META_NFPROTO, REG_1),
        expression::equal(&[nfproto(family)]),
    ]
}

/// Loads the source address (RFC 791, RFC 8200).
pub fn source(family: Family, register: u32) -> Expression {
    let (offset, length) = match family {
        Family::Ipv4 => (12, 4),
        Family::Ipv6 => (8, 16),
    };
    expression::payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, register)
}

/// Loads the destination address (RFC 791, RFC 8200).
pub fn destination(family: Family) -> Expression {
    let (offset, length) = match family {
        Family::Ipv4 => (16, 4),
        Family::Ipv6 => (24, 16),
    };
    expression::payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, REG_1)
}

/// Loads the destination port, the second field of every header that has ports.
pub fn destination_port(register: u32) -> Expression {
    expression::payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register)
}

/// Loads protocol and port, from `offset` bytes behind [`REG_1`] on.
pub fn service(offset: usize) -> [Expression; 2] {
    [
        expression::meta(libc::NFT_META_L4PROTO, register_after(offset)),
        destination_port(register_after(offset + 4)),
    ]
}

/// Loads the number of a chain in the map of choices.
pub fn choose(choice: &Choice) -> Vec<Expression> {
    let Choice {
        family,
        balance,
        first,
        count,
        ..
    } = *choice;
    match balance {
        Balance::Random => vec![expression::number(libc::NFT_NG_RANDOM, count, first)],
        Balance::RoundRobin => vec![expression::number(libc::NFT_NG_INCREMENTAL, count, first)],
        Balance::Source => {
            let length = address_length(family) as u32;
            let mut expressions = Vec::from(is_family(family));
            expressions.push(source(family, REG_2));
            expressions.push(expression::hash(length, count, SOURCE_HASH_SEED, first));
            expressions
        }
    }
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
