//! What is in nf_tables: tables, chains and rules, sets and elements, each read and decoded in one place.
//!
//! Reading takes CAP_NET_ADMIN too (nfnetlink_rcv in net/netfilter/nfnetlink.c).

mod set;

#[cfg(test)]
pub use set::decode_element;
pub use set::{Data, Element, ElementKind, Verdict, element, elements, set, verdict};

use crate::config::Family;
use crate::netlink::{Attributes, Failure, Message, Request, Socket, or_missing};
use crate::uapi::*;
use nix::libc;
use std::fmt;

/// A family of tables that see IPv4 or IPv6 packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableFamily {
    Inet,
    Ip,
    Ip6,
}

impl TableFamily {
    const ALL: [TableFamily; 3] = [TableFamily::Inet, TableFamily::Ip, TableFamily::Ip6];

    /// Whether its tables see packets of this family.
    pub fn sees(self, family: Family) -> bool {
        match self {
            TableFamily::Inet => true,
            TableFamily::Ip => family == Family::Ipv4,
            TableFamily::Ip6 => family == Family::Ipv6,
        }
    }

    fn nfproto(self) -> u8 {
        let number = match self {
            TableFamily::Inet => libc::NFPROTO_INET,
            TableFamily::Ip => libc::NFPROTO_IPV4,
            TableFamily::Ip6 => libc::NFPROTO_IPV6,
        };
        number as u8
    }
}

/// A table's family and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    pub family: TableFamily,
    pub name: String,
}

impl Table {
    /// A table of family `inet`.
    pub fn inet(name: &str) -> Self {
        Table {
            family: TableFamily::Inet,
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Table {
    /// Writes it as nft(8) takes it. Any process can name a table, with bytes that a terminal takes for
    /// commands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
        };
        write!(f, "{family} {}", self.name.escape_debug())
    }
}

/// A table of family `inet` in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    pub name: String,
    /// The netlink port of the socket that owns it. That is the process's id, unless the process had
    /// other netlink sockets before.
    pub owner: Option<u32>,
    /// The kernel's number for it; a table that takes its place has another. Since Linux 4.17.
    pub handle: Option<u64>,
}

/// The tables of family `inet` in this network namespace.
pub fn tables(socket: &Socket) -> Result<Vec<TableInfo>, Failure> {
    let request = dump_request(libc::NFT_MSG_GETTABLE, TableFamily::Inet);
    socket.list(&request, |message| {
        let attributes = message.attributes();
        Some(TableInfo {
            name: attributes.text(NFTA_TABLE_NAME)?.to_owned(),
            owner: attributes.u32(NFTA_TABLE_OWNER),
            handle: attributes.u64(NFTA_TABLE_HANDLE),
        })
    })
}

/// The generation of the ruleset, which every commit changes. `None` where the kernel has no such number.
pub fn generation(socket: &Socket) -> Result<Option<u32>, Failure> {
    let family = libc::AF_UNSPEC as u8;
    let request = Request::new(message_type(libc::NFT_MSG_GETGEN), 0, family, 1);
    socket.get(&request, |message| message.attributes().u32(NFTA_GEN_ID))
}

/// The hooks that a forwarded connection meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Forward,
    Output,
}

/// A chain at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    pub table: Table,
    pub name: String,
    pub hook: Hook,
    /// Packets meet chains of lower priority first.
    pub priority: i32,
    /// Whether it is of type nat.
    pub is_nat: bool,
    /// Whether its policy is to drop.
    pub drops: bool,
}

/// The base chains of all tables, but of those that are switched off (`flags dormant`).
pub fn base_chains(socket: &Socket) -> Result<Vec<BaseChain>, Failure> {
    let mut chains = Vec::new();
    for family in TableFamily::ALL {
        let tables = dump_request(libc::NFT_MSG_GETTABLE, family);
        let dormant = socket.list(&tables, |message| {
            let attributes = message.attributes();
            let is_dormant = attributes.u32(NFTA_TABLE_FLAGS)? & NFT_TABLE_F_DORMANT != 0;
            is_dormant.then(|| attributes.text(NFTA_TABLE_NAME).map(str::to_owned))?
        })?;
        let request = dump_request(libc::NFT_MSG_GETCHAIN, family);
        let found = socket.list(&request, |message| base_chain(family, message))?;
        let awake = |chain: &BaseChain| !dormant.contains(&chain.table.name);
        chains.extend(found.into_iter().filter(awake));
    }
    Ok(chains)
}

fn base_chain(family: TableFamily, message: &Message<'_>) -> Option<BaseChain> {
    let attributes = message.attributes();
    let hook = attributes.nested(NFTA_CHAIN_HOOK);
    Some(BaseChain {
        table: Table {
            family,
            name: attributes.text(NFTA_CHAIN_TABLE)?.to_owned(),
        },
        name: attributes.text(NFTA_CHAIN_NAME)?.to_owned(),
        hook: match hook.u32(NFTA_HOOK_HOOKNUM)? as i32 {
            libc::NF_INET_PRE_ROUTING => Hook::Prerouting,
            libc::NF_INET_FORWARD => Hook::Forward,
            libc::NF_INET_LOCAL_OUT => Hook::Output,
            _ => return None,
        },
        priority: hook.u32(NFTA_HOOK_PRIORITY)? as i32,
        is_nat: attributes.text(NFTA_CHAIN_TYPE)? == "nat",
        drops: attributes.u32(NFTA_CHAIN_POLICY) == Some(libc::NF_DROP as u32),
    })
}

/// How often a chain is in use: by its own rules, and by rules that jump to it. `None` if the table has
/// no chain of this name.
pub fn chain_use(socket: &Socket, table: &Table, chain: &str) -> Result<Option<usize>, Failure> {
    let request = get_request(libc::NFT_MSG_GETCHAIN, table.family)
        .text(NFTA_CHAIN_TABLE, &table.name)
        .text(NFTA_CHAIN_NAME, chain);
    or_missing(socket.get(&request, |message| {
        Some(message.attributes().u32(NFTA_CHAIN_USE).unwrap_or(0) as usize)
    }))
}

/// A rule, its expressions as the kernel sends them.
pub struct Rule {
    pub chain: String,
    pub handle: u64,
    expressions: Vec<u8>,
}

impl Rule {
    /// Each as `NFTA_LIST_ELEM` with name and data, in the order of evaluation.
    pub fn expressions(&self) -> Attributes<'_> {
        Attributes(&self.expressions)
    }
}

/// The rules of a chain, in order; without a chain, of all chains of the table.
pub fn rules(socket: &Socket, table: &Table, chain: Option<&str>) -> Result<Vec<Rule>, Failure> {
    let mut request =
        dump_request(libc::NFT_MSG_GETRULE, table.family).text(NFTA_RULE_TABLE, &table.name);
    if let Some(chain) = chain {
        request = request.text(NFTA_RULE_CHAIN, chain);
    }
    socket.list(&request, |message| {
        let rule = rule(message, &table.name)?;
        chain
            .is_none_or(|chain| chain == rule.chain)
            .then_some(rule)
    })
}

/// `None` for a rule of another table.
pub fn rule(message: &Message<'_>, table: &str) -> Option<Rule> {
    let attributes = message.attributes();
    if attributes.text(NFTA_RULE_TABLE)? != table {
        return None;
    }
    let expressions = attributes.get(NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    Some(Rule {
        chain: attributes.text(NFTA_RULE_CHAIN)?.to_owned(),
        handle: attributes.u64(NFTA_RULE_HANDLE)?,
        expressions: expressions.to_vec(),
    })
}

/// A request for all objects of a kind.
pub fn dump_request(message: i32, family: TableFamily) -> Request {
    let flags = libc::NLM_F_DUMP as u16;
    Request::new(message_type(message), flags, family.nfproto(), 1)
}

/// A request for one object.
fn get_request(message: i32, family: TableFamily) -> Request {
    Request::new(message_type(message), 0, family.nfproto(), 1)
}

/// The type of a message to nf_tables.
pub fn message_type(message: i32) -> u16 {
    ((libc::NFNL_SUBSYS_NFTABLES << 8) | message) as u16
}
