//! What the kernel is told, as plain data: one table with sets, chains and rules.
//!
//! [`Ruleset::new`] builds it from a [`Config`](crate::config::Config); it is written as text for
//! nft(8) by its `Display`, and as netlink messages by [`crate::netfilter`]. The two know nothing of
//! each other, so each is checked by the other.

mod build;
mod claim;
mod nft;

pub use claim::{Claim, Claims, claiming_set_names};

use crate::config::{Balance, Destination, Family, PortRange, Protocol};
use ipnet::IpNet;
use std::net::IpAddr;

/// What the name of every instance's table starts with.
pub const TABLE_PREFIX: &str = "nodefwd-";

/// The name of the chain that every instance has: it leads new connections to their forwards.
pub const PREROUTING: &str = "prerouting";

/// The names of sets, which [`set_name`] completes. Sets of single values are hashed; those of ranges
/// need another kind of look-up (pipapo, since Linux 5.6), so each has its own.
const SERVICES: (&str, &str) = ("services", "service-ranges");
const TARGETS: (&str, &str) = ("targets", "target-ranges");
const SOURCES: &str = "sources";
const LISTEN: &str = "listen";

/// `services4`, `targets6`
fn set_name(name: &str, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("{name}4"),
        Family::Ipv6 => format!("{name}6"),
    }
}

/// One table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The table's name.
    pub table: String,
    /// The named sets and maps.
    pub sets: Vec<Set>,
    /// The chains, those at a hook first.
    pub chains: Vec<Chain>,
}

/// The type of one field of a set's key, by nft's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// An IPv4 address.
    Ipv4Addr,
    /// An IPv6 address.
    Ipv6Addr,
    /// A protocol number.
    InetProto,
    /// A port.
    InetService,
}

impl FieldType {
    /// The type of an address of this family.
    pub fn address(family: Family) -> Self {
        match family {
            Family::Ipv4 => FieldType::Ipv4Addr,
            Family::Ipv6 => FieldType::Ipv6Addr,
        }
    }
}

/// A value, or a range of values, of one field of a set's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A range of addresses.
    Network(IpNet),
    /// An address.
    Address(IpAddr),
    /// A protocol.
    Protocol(Protocol),
    /// A port or a range of ports.
    Ports(PortRange),
}

/// An element of a set, or of a map from keys to chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// One field for each type of the set's key.
    pub key: Vec<Field>,
    /// In a map, the chain that a packet with this key goes to.
    pub goto: Option<String>,
}

/// A named set, or a map from keys to chains. At least one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The key's fields.
    pub key: Vec<FieldType>,
    /// Whether elements are ranges.
    pub interval: bool,
    /// Whether it is a map from keys to chains.
    pub verdicts: bool,
    /// The elements; no two of them overlap.
    pub elements: Vec<Element>,
}

/// Where in a packet's way a chain stands. All are of type `nat`, so they see the first packet of
/// a connection only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Packets that come in, before routing; priority dstnat.
    Prerouting,
    /// Packets made on this host; priority dstnat.
    Output,
    /// Packets that leave; priority srcnat.
    Postrouting,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets enter it; none if only other chains lead to it.
    pub hook: Option<Hook>,
    /// What it is for, for people.
    pub title: String,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Statements that are carried out from left to right as long as each matches.
pub type Rule = Vec<Statement>;

/// A part of a rule. Each stands for a construct of nft(8), which is shown behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `meta nfproto ipv4`
    Family(Family),
    /// `meta l4proto tcp`
    Protocol(Protocol),
    /// `fib daddr type local`
    LocalDestination,
    /// `ip daddr 127.0.0.0/8`, `ip6 daddr ::1`
    LoopbackDestination(Family),
    /// `ip daddr @NAME`
    DestinationIn(Family, String),
    /// `ip saddr != @NAME`
    SourceNotIn(Family, String),
    /// `ip saddr ADDRESS`, `ip saddr { … }`; at least one address, all of this family, none of them twice
    SourceAmong(Family, Vec<IpAddr>),
    /// `meta l4proto . th dport vmap @NAME`
    Dispatch(String),
    /// `numgen random mod N vmap { 0 : goto …, … }`; the names of N chains
    Choose(Family, Balance, Vec<String>),
    /// `ct status dnat`
    Translated,
    /// `ip daddr . meta l4proto . th dport @NAME`
    TargetIn(Family, String),
    /// `counter`
    Counter,
    /// `drop`
    Drop,
    /// `return`
    Return,
    /// `dnat ip to ADDRESS:PORT`
    Dnat(Dnat),
    /// `masquerade fully-random`
    Masquerade,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dnat {
    /// To the port that it came to.
    SamePort(IpAddr),
    /// To this port.
    Port(IpAddr, u16),
    /// From the ports of one range to those of another of the same length, first to first.
    /// The kernel has no such statement: it becomes a map from port to address and port.
    PortByPort {
        /// where to
        address: IpAddr,
        /// the ports that are forwarded
        from: PortRange,
        /// the ports at the destination
        to: PortRange,
    },
}

impl Dnat {
    /// The translation from a forward's ports to one of its destinations.
    pub fn new(from: PortRange, to: Destination) -> Self {
        let Destination { address, ports } = to;
        if ports.is_single() {
            Dnat::Port(address, ports.first())
        } else if ports == from {
            Dnat::SamePort(address)
        } else {
            Dnat::PortByPort {
                address,
                from,
                to: ports,
            }
        }
    }

    /// The destination's family.
    pub fn family(self) -> Family {
        match self {
            Dnat::SamePort(address) | Dnat::Port(address, _) | Dnat::PortByPort { address, .. } => {
                Family::of(address)
            }
        }
    }
}

/// The seed of the hash that gives a client its destination. A fixed one, so that a client keeps
/// its destination across restarts and on every node.
pub const SOURCE_HASH_SEED: u32 = 0x6e6f_6465;
