//! A made-up packet: as much of it as is known.

use crate::config::{Family, Protocol};
use crate::netlink::octets;
use crate::rtnetlink::Interface;
use crate::uapi::*;
use nix::libc;
use std::net::IpAddr;

/// A packet of a forwarded connection, at a hook. `None` is what is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub family: Family,
    pub protocol: Protocol,
    /// Whether it is a reply; if not, it is the connection's first packet.
    pub reply: bool,
    /// Whether conntrack has seen it.
    pub tracked: bool,
    /// Whether its connection's destination was translated.
    pub translated: bool,
    /// Whether its destination is this host itself.
    pub to_this_host: Option<bool>,
    /// Whether the route back to its source leads out of the interface that it comes in on.
    pub has_way_back: Option<bool>,
    pub input: Option<Interface>,
    pub output: Option<Interface>,
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub destination_port: Option<u16>,
    /// The port that the client connected to.
    pub original_port: Option<u16>,
}

/// Bytes of which some are not known.
pub type Bytes = Vec<Option<u8>>;

/// So many bytes that are not known.
pub fn unknown(length: usize) -> Bytes {
    vec![None; length]
}

/// These bytes, all of which are known.
pub fn known(bytes: &[u8]) -> Bytes {
    bytes.iter().copied().map(Some).collect()
}

/// The flags of a TCP header (RFC 9293).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

impl Packet {
    /// The first packet of a connection, of which no more is known.
    pub fn first(family: Family, protocol: Protocol) -> Self {
        Packet {
            family,
            protocol,
            reply: false,
            tracked: true,
            translated: false,
            to_this_host: None,
            has_way_back: None,
            input: None,
            output: None,
            source: None,
            destination: None,
            source_port: None,
            destination_port: None,
            original_port: None,
        }
    }

    /// The connection's state, as one of conntrack's bits.
    pub fn state(&self) -> u32 {
        if self.reply {
            NF_CT_STATE_ESTABLISHED_BIT
        } else {
            NF_CT_STATE_NEW_BIT
        }
    }

    /// The connection's status, as conntrack's bits.
    pub fn status(&self) -> u32 {
        let mut status = 0;
        if self.translated {
            status |= IPS_DST_NAT | IPS_DST_NAT_DONE;
        }
        if self.reply {
            status |= IPS_SEEN_REPLY | IPS_CONFIRMED;
        }
        status
    }

    /// SYN, or SYN and ACK for a reply: check follows no later packet.
    pub fn tcp_flags(&self) -> u8 {
        if self.reply { SYN | ACK } else { SYN }
    }

    /// Bytes of one of its headers, `NFT_PAYLOAD_*_HEADER`.
    pub fn header(&self, base: u32, offset: usize, length: usize) -> Bytes {
        let header = match base as i32 {
            libc::NFT_PAYLOAD_NETWORK_HEADER => self.network_header(),
            libc::NFT_PAYLOAD_TRANSPORT_HEADER => self.transport_header(),
            _ => Vec::new(),
        };
        let mut bytes: Bytes = header.into_iter().skip(offset).take(length).collect();
        bytes.resize(length, None);
        bytes
    }

    /// RFC 791, RFC 8200.
    fn network_header(&self) -> Bytes {
        let (length, protocol, source, destination) = match self.family {
            Family::Ipv4 => (20, 9, 12, 16),
            Family::Ipv6 => (40, 6, 8, 24),
        };
        let mut header = unknown(length);
        header[protocol] = Some(self.protocol.number());
        for (start, address) in [(source, self.source), (destination, self.destination)] {
            let octets = address.map(|address| known(&octets(address)));
            for (byte, octet) in header[start..].iter_mut().zip(octets.unwrap_or_default()) {
                *byte = octet;
            }
        }
        header
    }

    /// The ports are the first fields of every protocol here.
    fn transport_header(&self) -> Bytes {
        const TCP_FLAGS: usize = 13;
        let mut header = unknown(20);
        for (start, port) in [(0, self.source_port), (2, self.destination_port)] {
            if let Some(port) = port {
                let [high, low] = port.to_be_bytes();
                header[start] = Some(high);
                header[start + 1] = Some(low);
            }
        }
        if self.protocol == Protocol::Tcp {
            header[TCP_FLAGS] = Some(self.tcp_flags());
        }
        header
    }
}
