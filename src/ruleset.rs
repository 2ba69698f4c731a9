//! What an instance installs, as plain data: one table with sets, chains and rules.
//!
//! [`Ruleset::new`] builds it from a [`Config`](crate::config::Config); its `Display` writes it as text
//! for nft(8), and `nftables` as netlink messages. The two encoders know nothing of each other, so each
//! is checked by the other.

mod balance;
mod build;
mod clamp_mss;
mod failover;
mod fast_path;
mod forwards;
mod hairpin;
mod invalid;
mod left_out;
mod listen;
mod masquerade;
mod names;
mod nft;
mod output;
mod sets;
mod shared_maps;
mod sources;

pub use failover::{HEALTH, down_chain_name};
pub use fast_path::{FAST_PATH, Flowtable};
pub use invalid::INVALID;

pub use left_out::{NOT_FORWARDED, NOT_LISTENING, left_out_chain_name};
pub use masquerade::POSTROUTING;
pub use names::{ServiceMaps, allowed_set_name, listen_set_name, no_hairpin_set_names};
pub use output::OUTPUT;

use crate::config::{Balance, Family, InterfaceName, PortRange, Protocol, Service};
use ipnet::IpNet;
use std::net::IpAddr;

/// The name of the chain that every instance has: new connections that come in go through it.
pub const PREROUTING: &str = "prerouting";

/// The name of the chain that lowers the MSS.
pub const CLAMP_MSS: &str = "clamp-mss";

/// The name of the chain that counts and drops invalid packets of forwarded connections.
pub const DROPPED_INVALID: &str = "dropped-invalid";

/// The name of a chain without rules that stands in the table while the last reload has failed.
pub const RELOAD_FAILED: &str = "reload-failed";

/// The names of sets and maps, without the 4 or 6 of their family. Those of single values are hashed;
/// those of ranges need another kind of look-up (pipapo, since Linux 5.6), so each has its own.
const FORWARDS: &str = "forwards";
const PORT_MAP: &str = "port-map";
/// From single ports, and from ranges, to the chains of their forwards.
const CHAINS: (&str, &str) = ("chains", "chains-ranges");
const DROPPED: (&str, &str) = ("dropped", "dropped-ranges");
const MASQUERADE: (&str, &str) = ("masquerade", "masquerade-ranges");
const NO_HAIRPIN: (&str, &str) = ("no-hairpin", "no-hairpin-ranges");
/// The addresses alone of the latter.
const NO_HAIRPIN_HOSTS: &str = "no-hairpin-hosts";
/// The services alone, and without masquerading the destinations.
const SERVICES: (&str, &str) = ("services", "services-ranges");
const DESTINATIONS: (&str, &str) = ("destinations", "destinations-ranges");
const ALLOWED: &str = "allowed";
const LISTEN: &str = "listen";
/// Of both families.
pub const LISTEN_INTERFACES: &str = "listen-interfaces";

/// `forwards4`, `masquerade6`
fn set_name(name: &str, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("{name}4"),
        Family::Ipv6 => format!("{name}6"),
    }
}

/// `ipv4`
fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

/// The name of the chain of a forward that has one: `tcp-80-ipv4`.
pub fn chain_name(service: Service) -> String {
    let family = family_name(service.family);
    format!("{}-{}-{family}", service.protocol, service.ports)
}

/// The chain of a forward, by the name of that chain or of one that belongs to it: `tcp-80-ipv4` by `tcp-80-ipv4-2`.
/// Other chains belong to none but themselves.
pub fn main_chain_name(chain: &str) -> &str {
    let end = |family| {
        let family = format!("-{}", family_name(family));
        Some(chain.find(&family)? + family.len())
    };
    let end = Family::ALL.into_iter().find_map(end);
    end.map_or(chain, |end| &chain[..end])
}

/// One table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub table: String,
    /// Whether the table belongs to the process that installs it (Linux 5.12 and later).
    pub owner: bool,
    pub sets: Vec<Set>,
    pub flowtable: Option<Flowtable>,
    /// The base chains first.
    pub chains: Vec<Chain>,
}

/// The type of one field of a set's key or of a map's value, by nft's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Ipv4Addr,
    Ipv6Addr,
    InetProto,
    InetService,
    Ifname,
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
    Network(IpNet),
    Address(IpAddr),
    Protocol(Protocol),
    Ports(PortRange),
    Interface(InterfaceName),
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
    Backend(IpAddr, u16),
}

/// The type of a map's values, by nft's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// `verdict`
    Verdict,
    /// `ipv4_addr . inet_service`
    Backend(Family),
}

/// A named set or map. At least one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    /// More than one make a concatenation.
    pub key: Vec<FieldType>,
    /// Whether elements are ranges.
    pub interval: bool,
    /// The type of a map's values; `None` for a set.
    pub values: Option<ValueType>,
    /// Whether each element counts the packets that a look-up finds it for (Linux 5.7 and later). Not with
    /// ranges: nft 0.9.8 crashes on a range that counts.
    pub counter: bool,
    /// The elements; no two of them overlap.
    pub elements: Vec<Element>,
}

impl Set {
    /// With a size, the kernel makes a hash table of that size once; without, it grows the table while
    /// the elements are inserted (nft_hash_select_ops in net/netfilter/nft_set_hash.c). Sets of ranges
    /// are no hash tables.
    pub fn size(&self) -> Option<u32> {
        (!self.interval).then_some(self.elements.len() as u32)
    }
}

/// The hook of a base chain. Chains of type `nat` see the first packet of a connection only, those of type
/// `filter` every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Packets that come in, before routing; type nat, priority dstnat.
    Prerouting,
    /// Packets to this host; type filter, just before those of other programs, which may reject.
    Input,
    /// Packets to other hosts; the same type and priority.
    Forward,
    /// The same, after all that other programs decide; type filter.
    FastPath,
    /// Packets made on this host; type nat, priority dstnat.
    Output,
    /// Packets that leave; type filter, priority mangle.
    Mangle,
    /// Packets that leave; type nat, priority srcnat.
    Postrouting,
}

/// A base chain, which the kernel calls at a hook, or one that rules jump to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// `None` if only other chains lead to it.
    pub hook: Option<Hook>,
    /// What it is for, as a comment in the text.
    pub title: String,
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that only other chains lead to.
    fn regular(name: String, title: String, rules: Vec<Rule>) -> Self {
        Chain {
            name,
            hook: None,
            title,
            rules,
        }
    }

    /// Whether new connections come in through it.
    pub fn accepts_connections(&self) -> bool {
        matches!(self.hook, Some(Hook::Prerouting | Hook::Output))
    }
}

impl Ruleset {
    /// Adds the chain [`RELOAD_FAILED`]; says whether it was missing.
    pub fn mark_failed_reload(&mut self) -> bool {
        let missing = self.chains.iter().all(|chain| chain.name != RELOAD_FAILED);
        if missing {
            let title = "the last reload has failed: these are the rules from before".to_owned();
            let chain = Chain::regular(RELOAD_FAILED.to_owned(), title, Vec::new());
            self.chains.push(chain);
        }
        missing
    }

    /// Empties the chains that new connections come in through; those that run need no rule. Takes the fast path
    /// away, on which the end of a connection would not be seen at once.
    pub fn close(&mut self) {
        self.remove_fast_path();
        let chains = self.chains.iter_mut();
        for chain in chains.filter(|chain| chain.accepts_connections()) {
            chain.rules.clear();
        }
    }
}

/// Statements that are carried out from left to right as long as each matches.
pub type Rule = Vec<Statement>;

/// The type of an address, as `fib` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressType {
    Local,
    Broadcast,
    Multicast,
}

/// A part of a rule, with the statement or expression of nft(8) that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `meta nfproto ipv4`
    Family(Family),
    /// `meta l4proto tcp`
    Protocol(Protocol),
    /// `fib daddr type local`, `broadcast`, `multicast`
    DestinationType(AddressType),
    /// `fib daddr . iif type local`: an address of the interface that the packet comes in on. Unlike
    /// without `iif`, also one in a VRF (nft_fib4_eval_type in net/ipv4/netfilter/nft_fib_ipv4.c).
    LocalToInterface,
    /// `meta iifkind "bridge"`
    FromBridge,
    /// `meta iifkind "bridge" meta oifkind "bridge"`, at the forward hook
    FromBridgeToBridge,
    /// `fib daddr . iif oif != 0`: the packet would leave where it has come in.
    WouldTurnBack,
    /// `fib daddr type != local`: not to this host itself.
    ToOthers,
    /// `fib saddr . iif oif 0`: packets to its source would leave elsewhere.
    SourceIsElsewhere,
    /// `meta sdifname @NAME`
    VrfInterfaceIn(String),
    /// `iifname @NAME`
    InterfaceIn(String),
    /// `ip daddr 127.0.0.0/8`, `ip6 daddr ::1`
    LoopbackDestination(Family),
    /// `ip6 daddr fe80::/10`
    LinkLocalDestination,
    /// `ip daddr @NAME`
    DestinationIn(Family, String),
    /// `ip saddr @NAME`
    SourceIn(Family, String),
    /// `ip saddr != @NAME`
    SourceNotIn(Family, String),
    /// `th dport . meta l4proto . ip saddr @NAME`
    SourceAndServiceIn(Family, String),
    /// `th dport . meta l4proto @NAME`
    ServiceIn(String),
    /// `th dport . meta l4proto vmap @NAME`
    ServiceVmap(String),
    /// `numgen random mod MODULUS 0`
    Choose(Choice),
    /// `ct status dnat`
    Translated,
    /// `ct direction original`: from the side that began the connection.
    Original,
    /// `ct state established`
    Established,
    /// `ct state invalid`
    Invalid,
    /// `tcp flags & (syn | rst) != 0`
    TcpSynOrRst,
    /// `tcp flags syn`
    TcpSyn,
    /// `th dport . meta l4proto . ip daddr @NAME`
    BackendIn(Family, String),
    /// `th sport . meta l4proto . ip saddr @NAME`
    FromBackendIn(Family, String),
    /// `counter`
    Counter,
    /// `drop`
    Drop,
    /// `return`
    Return,
    /// `jump CHAIN`
    Jump(String),
    /// `goto CHAIN`
    Goto(String),
    /// `dnat ip to ADDRESS:PORT`
    Dnat(Dnat),
    /// `flow add @NAME`
    FlowAdd(&'static str),
    /// `masquerade`, `masquerade fully-random`
    Masquerade(SourcePort),
    /// `tcp option maxseg size set rt mtu`
    ClampMss,
}

/// The source port of a masqueraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourcePort {
    /// The client's own, if it is free.
    Kept,
    FullyRandom,
}

/// Whether a destination, or a group of them, gets the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub family: Family,
    pub balance: Balance,
    /// The number is less than this.
    pub modulus: u32,
    /// What the hash of a source begins with.
    pub seed: u32,
    /// Which numbers match.
    pub matches: Numbers,
}

/// Numbers that a [`Choice`] matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// This one.
    Is(u32),
    /// Those less than this.
    Below(u32),
}

/// Where `dnat` sends a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dnat {
    /// To the port that it came to.
    SamePort(IpAddr),
    /// To this port.
    Port(IpAddr, u16),
    /// To the address and port that this map has for the protocol and port that it came to.
    Map(Family, String),
}
