//! What expressions load: fields of a packet, of its connection, and of its way. Nothing, if that is
//! not known.

use super::super::message::Attributes;
use super::packet::{Bytes, Interface, Packet, known};
use super::registers::REGISTER_BYTES;
use crate::config::Family;
use nftnl::nftnl_sys::libc;

/// The longest field: an interface's name (linux/if.h: IFNAMSIZ), an IPv6 address.
pub const LONGEST: usize = 16;

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
    // linux/netfilter/nf_tables.h: NFTA_META_KEY
    match data.u32(2)? as i32 {
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

pub fn payload(packet: &Packet, data: Attributes<'_>) -> Option<Bytes> {
    // linux/netfilter/nf_tables.h: NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN
    let (base, offset, length) = (data.u32(2)?, data.u32(3)?, data.u32(4)?);
    Some(packet.header(
        base,
        offset as usize,
        length.min(REGISTER_BYTES as u32) as usize,
    ))
}

pub fn conntrack(packet: &Packet, data: Attributes<'_>) -> Option<Bytes> {
    // linux/netfilter/nf_tables.h: enum nft_ct_attributes; IP_CT_DIR_ORIGINAL
    const KEY: u16 = 2;
    const DIRECTION: u16 = 3;
    const ORIGINAL: &[u8] = &[0];
    match data.u32(KEY)? as i32 {
        libc::NFT_CT_STATE => Some(known(&packet.state().to_ne_bytes())),
        libc::NFT_CT_STATUS => Some(known(&packet.status().to_ne_bytes())),
        libc::NFT_CT_DIRECTION => Some(known(&[packet.answer.into()])),
        libc::NFT_CT_PROTOCOL => Some(known(&[packet.protocol.number()])),
        libc::NFT_CT_PROTO_DST if data.get(DIRECTION) == Some(ORIGINAL) => {
            Some(known(&packet.original_port?.to_be_bytes()))
        }
        _ => None,
    }
}

pub fn fib(packet: &Packet, data: Attributes<'_>) -> Option<Bytes> {
    // linux/netfilter/nf_tables.h: enum nft_fib_result, nft_fib_flags
    const RESULT: u16 = 2;
    const FLAGS: u16 = 3;
    const ADDRESS_TYPE: u32 = 3;
    const OF_DESTINATION: u32 = 1 << 1;
    if data.u32(RESULT)? != ADDRESS_TYPE || data.u32(FLAGS)? != OF_DESTINATION {
        return None;
    }
    let kind = match packet.to_this_host? {
        true => libc::RTN_LOCAL,
        false => libc::RTN_UNICAST,
    };
    Some(known(&u32::from(kind).to_ne_bytes()))
}
