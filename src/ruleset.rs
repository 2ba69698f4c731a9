//! What the kernel is told, as plain data: one table with sets, chains and rules.
//!
//! [`Ruleset::new`] builds it from a [`Config`](crate::config::Config); it is written as text for
//! nft(8) by its `Display`, and as netlink messages by [`crate::netfilter`]. The two know nothing of
//! each other, so each is checked by the other.

mod build;
mod claim;
mod nft;
mod sets;
mod shared;

pub use claim::{Claim, Claims, claiming_set_names};

use crate::config::{Balance, Family, PortRange, Protocol};
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
const HAIRPINS: (&str, &str) = ("hairpins", "hairpin-ranges");
const SHIFTS: &str = "shifts";
const CHOICES: &str = "choices";
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

/// The type of one field of a set's key or of a map's value, by nft's names.
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
    /// A number that `numgen` or `jhash` makes. nft has no name for its type, only `typeof`.
    Number,
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
    /// A number that `numgen` or `jhash` makes.
    Number(u32),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// One field for each type of the set's key.
    pub key: Vec<Field>,
    /// What a map has for the key.
    pub value: Option<Value>,
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The chain that packets go to.
    Goto(String),
    /// An address and a port.
    Target(IpAddr, u16),
}

/// The type of a map's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// `verdict`
    Verdict,
    /// `ipv4_addr . inet_service`
    Target(Family),
}

/// A named set or map. At least one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The key's fields.
    pub key: Vec<FieldType>,
    /// Whether elements are ranges.
    pub interval: bool,
    /// What a map's values are; nothing for a set.
    pub values: Option<ValueType>,
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

impl Chain {
    /// Whether new connections come in through it.
    pub fn takes_connections(&self) -> bool {
        matches!(self.hook, Some(Hook::Prerouting | Hook::Output))
    }
}

impl Ruleset {
    /// Leaves out what takes new connections; those that run need no rule.
    pub fn close(&mut self) {
        let entries = self.chains.iter_mut();
        for chain in entries.filter(|chain| chain.takes_connections()) {
            chain.rules.clear();
        }
    }
}

/// Statements that are carried out from left to right as long as each matches.
pub type Rule = Vec<Statement>;

/// What an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressType {
    /// This host.
    Local,
    /// All hosts of a network.
    Broadcast,
    /// The hosts of a group.
    Multicast,
}

/// A part of a rule. Each stands for a construct of nft(8), which is shown behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `meta nfproto ipv4`
    Family(Family),
    /// `meta l4proto tcp`
    Protocol(Protocol),
    /// `fib daddr type local`, `broadcast`, `multicast`
    DestinationType(AddressType),
    /// `ip daddr 127.0.0.0/8`, `ip6 daddr ::1`
    LoopbackDestination(Family),
    /// `ip daddr @NAME`
    DestinationIn(Family, String),
    /// `ip saddr != @NAME`
    SourceNotIn(Family, String),
    /// `ip saddr @NAME`
    SourceIn(Family, String),
    /// `ip saddr . meta l4proto . th dport @NAME`
    SourceAndServiceIn(Family, String),
    /// `meta l4proto . th dport vmap @NAME`
    Dispatch(String),
    /// `numgen random mod COUNT offset FIRST vmap @NAME`
    Choose(Choice),
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

/// One of several chains for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The family of the connection.
    pub family: Family,
    /// How it is chosen.
    pub balance: Balance,
    /// The number of the first chain in the map.
    pub first: u32,
    /// How many chains there are.
    pub count: u32,
    /// The map's name.
    pub map: String,
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dnat {
    /// To the port that it came to.
    SamePort(IpAddr),
    /// To this port.
    Port(IpAddr, u16),
    /// To the address and port that this map has for the protocol and port that it came to.
    ByPort(Family, String),
}

/// The seed of the hash that gives a client its destination. A fixed one, so that a client keeps
/// its destination across restarts and on every node.
pub const SOURCE_HASH_SEED: u32 = 0x6e6f_6465;
