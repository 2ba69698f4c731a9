//! A packet that does not exist: as much of it as is known.

use crate::config::{Family, Protocol};
use nftnl::nftnl_sys::libc;
use std::net::IpAddr;

/// An interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// A packet of a forwarded connection, at a hook. Nothing stands for what is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its family.
    pub family: Family,
    /// Its protocol.
    pub protocol: Protocol,
    /// Whether it is an answer; if not, it is the connection's first packet.
    pub answer: bool,
    /// Whether its connection was given another destination.
    pub translated: bool,
    /// Whether its destination is this host itself.
    pub to_this_host: Option<bool>,
    /// Where it comes in.
    pub input: Option<Interface>,
    /// Where it goes out.
    pub output: Option<Interface>,
    /// Its source.
    pub source: Option<IpAddr>,
    /// Its destination.
    pub destination: Option<IpAddr>,
    /// Its source port.
    pub source_port: Option<u16>,
    /// Its destination port.
    pub destination_port: Option<u16>,
    /// The port that the connection was made to.
    pub original_port: Option<u16>,
}

/// Bytes of which some are not known.
pub type Bytes = Vec<Option<u8>>;

/// So many bytes that nobody knows.
pub fn unknown(length: usize) -> Bytes {
    vec![None; length]
}

pub fn known(bytes: &[u8]) -> Bytes {
    bytes.iter().copied().map(Some).collect()
}

// linux/netfilter/nf_conntrack_common.h: enum ip_conntrack_status
const IPS_SEEN_REPLY: u32 = 1 << 1;
const IPS_CONFIRMED: u32 = 1 << 3;
const IPS_DST_NAT: u32 = 1 << 5;
const IPS_DST_NAT_DONE: u32 = 1 << 8;

/// include/net/netfilter/nf_conntrack_common.h: NF_CT_STATE_BIT of IP_CT_ESTABLISHED, IP_CT_NEW
const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_NEW: u32 = 1 << 3;

/// The flags of a TCP header (RFC 9293).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

impl Packet {
    /// The first packet of a connection of which nothing else is known.
    pub fn first(family: Family, protocol: Protocol) -> Self {
        Packet {
            family,
            protocol,
            answer: false,
            translated: false,
            to_this_host: None,
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
        match self.answer {
            true => STATE_ESTABLISHED,
            false => STATE_NEW,
        }
    }

    /// The connection's status, as conntrack's bits.
    pub fn status(&self) -> u32 {
        let mut status = 0;
        if self.translated {
            status |= IPS_DST_NAT | IPS_DST_NAT_DONE;
        }
        if self.answer {
            status |= IPS_SEEN_REPLY | IPS_CONFIRMED;
        }
        status
    }

    /// TCP flags of the packet.
    pub fn tcp_flags(&self) -> u8 {
        if self.answer { SYN | ACK } else { SYN }
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
        for (place, address) in [(source, self.source), (destination, self.destination)] {
            let octets = address.map(|address| known(&super::super::elements::octets(address)));
            for (byte, octet) in header[place..].iter_mut().zip(octets.unwrap_or_default()) {
                *byte = octet;
            }
        }
        header
    }

    /// Ports are the first fields of all protocols that have them.
    fn transport_header(&self) -> Bytes {
        const TCP_FLAGS: usize = 13;
        let mut header = unknown(20);
        for (place, port) in [(0, self.source_port), (2, self.destination_port)] {
            if let Some(port) = port {
                let [high, low] = port.to_be_bytes();
                header[place] = Some(high);
                header[place + 1] = Some(low);
            }
        }
        if self.protocol == Protocol::Tcp {
            header[TCP_FLAGS] = Some(self.tcp_flags());
        }
        header
    }
}
