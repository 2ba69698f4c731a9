//! The expressions by which a rule goes on for some packets only.

use super::expr::{self, Expression, REG_1, SetReference, destination, is_family};
use crate::config::{Family, Protocol};
use crate::ruleset::AddressType;
use crate::uapi::{
    IP_CT_DIR_ORIGINAL, IPS_DST_NAT, NF_CT_STATE_ESTABLISHED_BIT, NF_CT_STATE_INVALID_BIT,
};
use nftnl::nftnl_sys::libc;
use std::net::Ipv6Addr;

/// Goes on only for packets to addresses of this type.
pub fn is_type(kind: AddressType, of_interface: bool) -> [Expression; 2] {
    let number = match kind {
        AddressType::Local => libc::RTN_LOCAL,
        AddressType::Broadcast => libc::RTN_BROADCAST,
        AddressType::Multicast => libc::RTN_MULTICAST,
    };
    [
        expr::destination_type(of_interface),
        expr::equal(&u32::from(number).to_ne_bytes()),
    ]
}

/// Goes on only for packets that are not for this host itself.
pub fn is_to_others() -> [Expression; 2] {
    [
        expr::destination_type(false),
        expr::not_equal(&u32::from(libc::RTN_LOCAL).to_ne_bytes()),
    ]
}

/// Goes on only for packets of which an interface, `NFT_META_IIFKIND` or `_OIFKIND`, is a bridge.
pub fn is_bridge(interface: i32) -> [Expression; 2] {
    let mut kind = [0; libc::IFNAMSIZ];
    kind[..6].copy_from_slice(b"bridge");
    [expr::meta(interface, REG_1), expr::equal(&kind)]
}

/// Goes on only if the route to one of the packet's addresses, `NFTA_FIB_F_SADDR` or `_DADDR`, leads, or does
/// not, out of the interface that it comes in on. Not with `NFTA_FIB_F_PRESENT`: the releases of nft do not
/// agree on how long that flag makes the result.
pub fn leads_to_input(address: u32, leads: bool) -> [Expression; 2] {
    let none = [0; 4];
    let compare = if leads {
        expr::not_equal(&none)
    } else {
        expr::equal(&none)
    };
    [expr::route_to_input(address), compare]
}

/// Goes on only for packets to loopback addresses; for those of this family only.
pub fn loopback_destination(family: Family) -> [Expression; 2] {
    match family {
        Family::Ipv4 => [
            // The first byte of the address.
            expr::payload(
                libc::NFT_PAYLOAD_NETWORK_HEADER,
                expr::IPV4_DESTINATION,
                1,
                REG_1,
            ),
            expr::equal(&[127]),
        ],
        Family::Ipv6 => [
            destination(family, REG_1),
            expr::equal(&Ipv6Addr::LOCALHOST.octets()),
        ],
    }
}

/// Goes on only for packets of this family whose key is in the set.
pub fn is_in(
    family: Family,
    key: impl IntoIterator<Item = Expression>,
    set: &SetReference,
) -> Vec<Expression> {
    let mut expressions = Vec::from(is_family(family));
    expressions.extend(key);
    expressions.push(expr::lookup(set));
    expressions
}

/// Goes on only for packets to fe80::/10; for those of IPv6 only.
pub fn link_local_destination() -> [Expression; 3] {
    let network = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    let mask = Ipv6Addr::new(0xffc0, 0, 0, 0, 0, 0, 0, 0);
    [
        destination(Family::Ipv6, REG_1),
        expr::mask(&mask.octets()),
        expr::equal(&network.octets()),
    ]
}

/// Goes on only if the connection's destination was translated.
pub fn is_translated() -> [Expression; 3] {
    has_any_bit(
        expr::conntrack(libc::NFT_CT_STATUS),
        &IPS_DST_NAT.to_ne_bytes(),
    )
}

/// Goes on only for packets from the side that began the connection.
pub fn is_original() -> [Expression; 2] {
    [
        expr::conntrack(libc::NFT_CT_DIRECTION),
        expr::equal(&[IP_CT_DIR_ORIGINAL]),
    ]
}

/// Goes on only for packets of connections that both sides have sent packets of.
pub fn is_established() -> [Expression; 3] {
    has_any_bit(
        expr::conntrack(libc::NFT_CT_STATE),
        &NF_CT_STATE_ESTABLISHED_BIT.to_ne_bytes(),
    )
}

/// Goes on only if conntrack finds the packet invalid.
pub fn is_invalid() -> [Expression; 3] {
    has_any_bit(
        expr::conntrack(libc::NFT_CT_STATE),
        &NF_CT_STATE_INVALID_BIT.to_ne_bytes(),
    )
}

/// Among the flags of a TCP header (RFC 9293, section 3.1).
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Goes on only for TCP segments with SYN.
pub fn has_syn() -> Vec<Expression> {
    has_tcp_flag(SYN)
}

/// Goes on only for TCP segments with one of these.
pub fn has_syn_or_rst() -> Vec<Expression> {
    has_tcp_flag(SYN | RST)
}

fn has_tcp_flag(flags: u8) -> Vec<Expression> {
    let mut expressions = vec![
        expr::meta(libc::NFT_META_L4PROTO, REG_1),
        expr::equal(&[Protocol::Tcp.number()]),
    ];
    expressions.extend(has_any_bit(expr::tcp_flags(REG_1), &[flags]));
    expressions
}

/// Goes on only if what this loads into the first register has one of these bits.
fn has_any_bit(load: Expression, bits: &[u8]) -> [Expression; 3] {
    let none = vec![0; bits.len()];
    [load, expr::mask(bits), expr::not_equal(&none)]
}
