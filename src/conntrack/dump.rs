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

/// Flows that matter to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What they were made to.
    pub service: Service,
    /// Whether only those matter whose destination was translated.
    pub translated: bool,
}

impl Wanted {
    /// All flows of a service.
    pub fn all(service: Service) -> Self {
        let translated = false;
        Wanted {
            service,
            translated,
        }
    }

    /// The flows of a service whose destination was translated.
    pub fn translated(service: Service) -> Self {
        let translated = true;
        Wanted {
            service,
            translated,
        }
    }
}

/// How many received entries cost as much as one more walk.
const ENTRIES_PER_WALK: u64 = 8192;

/// How many walks pay at most, however many entries there are: each entry slows down each of them.
const MAX_WALKS: u64 = 12;

/// The same where only translated flows matter. Those are few on most hosts, and one walk finds them.
const MAX_WALKS_FOR_TRANSLATED: u64 = 2;

/// One dump: what the kernel selects by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dump {
    pub family: Option<Family>,
    pub protocol: Option<Protocol>,
    /// The original destination port; only with family and protocol.
    pub port: Option<u16>,
    /// Only entries whose destination was translated.
    pub translated: bool,
}

/// The dumps that find all wanted flows with the least work, in order of family. `entries` is how many
/// this network namespace has; `None` if that is not known.
pub fn plan(wanted: &[Wanted], entries: Option<u64>) -> Vec<Dump> {
    if wanted.is_empty() || entries == Some(0) {
        return Vec::new();
    }
    let whole = whole(wanted);
    let limit = if whole.translated {
        MAX_WALKS_FOR_TRANSLATED
    } else {
        MAX_WALKS
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
    for Wanted {
        service,
        translated,
    } in wanted
    {
        let all_ports = Dump {
            family: Some(service.family),
            protocol: Some(service.protocol),
            port: None,
            translated: *translated,
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
                    translated: wanted.all(|wanted| wanted.translated),
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
        translated: wanted.iter().all(|wanted| wanted.translated),
        ..Dump::default()
    }
}

impl Dump {
    /// The request. A kernel that does not know a part of it ignores that part, and sends more
    /// entries (nla_parse_deprecated in include/net/netlink.h).
    pub fn request(&self) -> Request {
        let family = match self.family {
            None => libc::NFPROTO_UNSPEC,
            Some(Family::Ipv4) => libc::NFPROTO_IPV4,
            Some(Family::Ipv6) => libc::NFPROTO_IPV6,
        };
        let flags = libc::NLM_F_DUMP as u16;
        let mut request = Request::new(message_type(IPCTNL_MSG_CT_GET), flags, family as u8, 1);
        if let Some(protocol) = self.protocol {
            let mut compared = CTA_FILTER_F_CTA_PROTO_NUM;
            request = request.nest(CTA_TUPLE_ORIG, |tuple| {
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
                filter.attribute(CTA_FILTER_ORIG_FLAGS, &compared.to_ne_bytes())
            });
        }
        if self.translated {
            request = request
                .u32(CTA_STATUS, IPS_DST_NAT)
                .u32(CTA_STATUS_MASK, IPS_DST_NAT);
        }
        request
    }

    /// Whether the kernel can have selected the entry by protocol and port. If not, it has ignored
    /// both: it is older than Linux 5.8.
    pub fn selects(&self, message: &Message<'_>) -> bool {
        let original = message.attributes().nested(CTA_TUPLE_ORIG);
        let is_protocol = |protocol: Protocol| protocol_number(original) == Some(protocol.number());
        let is_port = |wanted| port(original, CTA_PROTO_DST_PORT) == Some(wanted);
        self.protocol.is_none_or(is_protocol) && self.port.is_none_or(is_port)
    }
}
