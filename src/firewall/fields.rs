//! What expressions load: fields of a packet, of its connection, and of its route. `None` if a field is
//! not known.

use super::packet::{Bytes, Packet, known};
use super::registers::REGISTER_BYTES;
use crate::config::Family;
use crate::netlink::Attributes;
use crate::rtnetlink::Interface;
use crate::uapi::*;
use nix::libc;

/// The longest field: an interface's name (linux/if.h: IFNAMSIZ), an IPv6 address.
pub const LONGEST: usize = 16;

/// What `meta` loads: the protocols of a packet, and the interfaces that it comes in and goes out on.
pub fn meta(packet: &Packet, data: Attributes<'_>) -> Option<Bytes> {
    let index = |interface: &Option<Interface>| {
        let index = interface.as_ref()?.index;
        Some(known(&index.to_ne_bytes()))
    };
    let name = |interface: &Option<Interface>| {
        let mut name = interface.as_ref()?.name.clone().into_bytes();
        name.resize(LONGEST, 0);
        Some(known(&name))
    };
    let (family, ethernet) = match packet.family {
        Family::Ipv4 => (libc::NFPROTO_IPV4, libc::ETH_P_IP),
        Family::Ipv6 => (libc::NFPROTO_IPV6, libc::ETH_P_IPV6),
    };
    match data.u32(NFTA_META_KEY)? as i32 {
        libc::NFT_META_NFPROTO => Some(known(&[family as u8])),
        libc::NFT_META_PROTOCOL => Some(known(&(ethernet as u16).to_be_bytes())),
        libc::NFT_META_L4PROTO => Some(known(&[packet.protocol.number()])),
        libc::NFT_META_IIF => index(&packet.input),
        libc::NFT_META_OIF => index(&packet.output),
        libc::NFT_META_IIFNAME => name(&packet.input),
        libc::NFT_META_OIFNAME => name(&packet.output),
        _ => None,
    }
}

/// The bytes of a header that `payload` loads.
pub fn payload(packet: &Packet, data: Attributes<'_>) -> Option<Bytes> {
    let offset = data.u32(NFTA_PAYLOAD_OFFSET)? as usize;
    let length = data.u32(NFTA_PAYLOAD_LEN)?.min(REGISTER_BYTES as u32) as usize;
    Some(packet.header(data.u32(NFTA_PAYLOAD_BASE)?, offset, length))
}

/// Whether `payload` writes to an address or a port, which leads the packet elsewhere.
pub fn redirects(data: Attributes<'_>) -> bool {
    if data.get(NFTA_PAYLOAD_SREG).is_none() {
        return false;
    }
    let base = data.u32(NFTA_PAYLOAD_BASE).unwrap_or(0) as i32;
    let first = data.u32(NFTA_PAYLOAD_OFFSET).unwrap_or(0);
    let end = first.saturating_add(data.u32(NFTA_PAYLOAD_LEN).unwrap_or(0));
    match base {
        // Addresses are the last fields of the fixed headers: from byte 12 or 8 on (RFC 791, RFC 8200).
        libc::NFT_PAYLOAD_NETWORK_HEADER => end > 12,
        libc::NFT_PAYLOAD_TRANSPORT_HEADER => first < 4,
        _ => true,
    }
}

/// Whether `ct` puts the packet into another zone, in which conntrack does not know connections of this one.
pub fn changes_zone(data: Attributes<'_>) -> bool {
    let key = data.u32(NFTA_CT_KEY).map(|key| key as i32);
    data.get(NFTA_CT_SREG).is_some() && key == Some(libc::NFT_CT_ZONE)
}

/// What `ct` loads: the state, status, direction, protocol and original port of the connection.
pub fn conntrack(packet: &Packet, data: Attributes<'_>) -> Option<Bytes> {
    // What is loaded of a packet that conntrack has not seen matches little.
    packet.tracked.then_some(())?;
    match data.u32(NFTA_CT_KEY)? as i32 {
        libc::NFT_CT_STATE => Some(known(&packet.state().to_ne_bytes())),
        libc::NFT_CT_STATUS => Some(known(&packet.status().to_ne_bytes())),
        libc::NFT_CT_DIRECTION => Some(known(&[packet.reply.into()])),
        libc::NFT_CT_PROTOCOL => Some(known(&[packet.protocol.number()])),
        libc::NFT_CT_PROTO_DST if data.get(NFTA_CT_DIRECTION) == Some(&[IP_CT_DIR_ORIGINAL]) => {
            Some(known(&packet.original_port?.to_be_bytes()))
        }
        _ => None,
    }
}

/// What `fib daddr type` loads: whether the packet is for this host. What `fib saddr . iif oif` does, with
/// `missing` or `exists`: whether the reverse-path filter would let it pass.
pub fn fib(packet: &Packet, data: Attributes<'_>) -> Option<Bytes> {
    let flags = data.u32(NFTA_FIB_FLAGS)?;
    match data.u32(NFTA_FIB_RESULT)? {
        NFT_FIB_RESULT_ADDRTYPE if flags == NFTA_FIB_F_DADDR => {
            let kind = if packet.to_this_host? {
                libc::RTN_LOCAL
            } else {
                libc::RTN_UNICAST
            };
            Some(known(&u32::from(kind).to_ne_bytes()))
        }
        NFT_FIB_RESULT_OIF if flags & !NFTA_FIB_F_MARK == REVERSE_PATH => {
            Some(known(&[packet.has_way_back?.into()]))
        }
        _ => None,
    }
}

const REVERSE_PATH: u32 = NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT;
