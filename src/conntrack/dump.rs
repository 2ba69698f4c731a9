//! What the kernel is asked for: as few conntrack entries as it can select, in as few dumps as pay.
//!
//! Every dump walks the whole hash, which all network namespaces share (ctnetlink_dump_table in
//! net/netfilter/nf_conntrack_netlink.c): 8 ms for 262,144 empty buckets. An entry that is walked over
//! costs 0.1 µs, one that is received and read 1.5 µs.

use super::{message_type, port, protocol_number};
use crate::config::{Family, Protocol, Service};
use crate::netlink::{Message, Request};
use crate::uapi::*;
use nix::libc;
use std::collections::BTreeSet;

/// Which flows of a service matter. In order of this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// All that were made to it.
    #[default]
    All,
    /// Those of them whose destination was translated.
    Translated,
    /// Those of them that have had no reply.
    Unreplied,
    /// Those that were made from it, so that their replies come to it.
    Reversed,
}

/// Flows that matter to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub service: Service,
    pub which: Which,
}

/// How many received entries cost as much as one more walk.
const ENTRIES_PER_WALK: u64 = 8192;

/// How many walks pay at most, however many entries there are: each entry slows down each of them.
const MAX_WALKS: u64 = 12;

/// The same where the kernel selects by status. Such flows are few on most hosts, and one walk finds them.
const MAX_WALKS_BY_STATUS: u64 = 2;

/// One dump: what the kernel selects by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dump {
    pub family: Option<Family>,
    pub protocol: Option<Protocol>,
    /// The port that the flow was made to, or that replies come to; only with family and protocol.
    pub port: Option<u16>,
    pub which: Which,
}

/// The dumps that find all wanted flows with the least work, in order of family. `entries` is how many
/// this network namespace has; `None` if that is not known.
pub fn plan(wanted: &[Wanted], entries: Option<u64>) -> Vec<Dump> {
    if wanted.is_empty() || entries == Some(0) {
        return Vec::new();
    }
    let whole = whole(wanted);
    let limit = if whole.which == Which::All {
        MAX_WALKS
    } else {
        MAX_WALKS_BY_STATUS
    };
    let walks = entries.map_or(limit, |entries| limit.min(1 + entries / ENTRIES_PER_WALK));
    let plans = [by_port(wanted, walks as usize), Some(by_protocol(wanted))];
    let mut plans = plans.into_iter().flatten();
    let affordable = plans.find(|dumps| dumps.len() <= walks as usize);
    affordable.unwrap_or_else(|| vec![whole])
}

/// A dump for each port; `None` if those are more than `most`.
pub fn by_port(wanted: &[Wanted], most: usize) -> Option<Vec<Dump>> {
    let mut dumps = BTreeSet::new();
    for Wanted { service, which } in wanted {
        let all_ports = Dump {
            family: Some(service.family),
            protocol: Some(service.protocol),
            port: None,
            which: *which,
        };
        // The kernel compares ports of TCP and UDP only (ctnetlink_filter_match_tuple).
        if service.protocol == Protocol::Sctp {
            dumps.insert(all_ports);
        } else if usize::from(service.ports.count()) > most {
            return None;
        } else {
            dumps.extend(service.ports.singles().map(|ports| Dump {
                port: Some(ports.first()),
                ..all_ports
            }));
        }
        if dumps.len() > most {
            return None;
        }
    }
    Some(dumps.into_iter().collect())
}

/// A dump for each protocol of each family.
pub fn by_protocol(wanted: &[Wanted]) -> Vec<Dump> {
    let mut dumps: BTreeSet<Dump> = BTreeSet::new();
    for family in Family::ALL {
        for protocol in Protocol::ALL {
            let of_both = |wanted: &&Wanted| {
                (wanted.service.family, wanted.service.protocol) == (family, protocol)
            };
            let mut wanted = wanted.iter().filter(of_both).peekable();
            if wanted.peek().is_some() {
                dumps.insert(Dump {
                    family: Some(family),
                    protocol: Some(protocol),
                    port: None,
                    which: common(wanted),
                });
            }
        }
    }
    dumps.into_iter().collect()
}

/// One dump for all.
pub fn whole(wanted: &[Wanted]) -> Dump {
    let families: BTreeSet<Family> = wanted.iter().map(|wanted| wanted.service.family).collect();
    Dump {
        family: if families.len() == 1 {
            families.first().copied()
        } else {
            None
        },
        which: common(wanted.iter()),
        ..Dump::default()
    }
}

/// What the kernel can select all of these by, whatever their ports.
fn common<'a>(mut wanted: impl Iterator<Item = &'a Wanted>) -> Which {
    match wanted.next() {
        Some(Wanted { which, .. }) if *which != Which::Reversed => {
            if wanted.all(|other| other.which == *which) {
                *which
            } else {
                Which::All
            }
        }
        _ => Which::All,
    }
}

impl Dump {
    /// The request. A kernel that does not know a part of it ignores that part, and sends more
    /// entries (nla_parse_deprecated in include/net/netlink.h).
    pub fn request(&self) -> Request {
        let family = self.family.map_or(libc::NFPROTO_UNSPEC, Family::number);
        let flags = libc::NLM_F_DUMP as u16;
        let mut request = Request::new(message_type(IPCTNL_MSG_CT_GET), flags, family as u8, 1);
        let (tuple, flags) = self.tuple();
        if let Some(protocol) = self.protocol {
            let mut compared = CTA_FILTER_F_CTA_PROTO_NUM;
            request = request.nest(tuple, |tuple| {
                tuple.nest(CTA_TUPLE_PROTO, |transport| {
                    let transport = transport.attribute(CTA_PROTO_NUM, &[protocol.number()]);
                    let Some(port) = self.port else {
                        return transport;
                    };
                    compared |= CTA_FILTER_F_CTA_PROTO_DST_PORT;
                    transport.attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes())
                })
            });
            request = request.nest(CTA_FILTER, |filter| {
                filter.attribute(flags, &compared.to_ne_bytes())
            });
        }
        let (status, mask) = match self.which {
            Which::All | Which::Reversed => return request,
            Which::Translated => (IPS_DST_NAT, IPS_DST_NAT),
            Which::Unreplied => (0, IPS_SEEN_REPLY),
        };
        request.u32(CTA_STATUS, status).u32(CTA_STATUS_MASK, mask)
    }

    /// The direction whose destination port is compared: its tuple, and its flags in a filter.
    fn tuple(&self) -> (u16, u16) {
        match self.which {
            Which::Reversed => (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS),
            _ => (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS),
        }
    }

    /// Whether the kernel can have selected the entry by protocol and port. If not, it has ignored
    /// both: it is older than Linux 5.8.
    pub fn selects(&self, message: &Message<'_>) -> bool {
        let tuple = message.attributes().nested(self.tuple().0);
        let is_protocol = |protocol: Protocol| protocol_number(tuple) == Some(protocol.number());
        let is_port = |wanted| port(tuple, CTA_PROTO_DST_PORT) == Some(wanted);
        self.protocol.is_none_or(is_protocol) && self.port.is_none_or(is_port)
    }
}
