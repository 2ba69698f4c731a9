//! What is in nf_tables: tables, chains and rules, sets and elements, each read and decoded in one place.
//!
//! Reading takes CAP_NET_ADMIN too (nfnetlink_rcv in net/netfilter/nfnetlink.c).

mod chain;
mod flowtable;
mod set;

pub use chain::{BaseChain, Hook, TableHandles, base_chains, chain_use};
pub use flowtable::{FlowtableInfo, flowtables};
#[cfg(test)]
pub use set::decode_element;
pub use set::{
    Data, Element, ElementKind, Verdict, element, elements, elements_up_to, set, tables_with_sets,
    verdict,
};

use crate::config::Family;
use crate::netlink::{Attributes, Failure, Message, Request, Socket};
use crate::text::nft_name;
use crate::uapi::*;
use nix::libc;
use std::fmt;

/// A family of tables that see IPv4 or IPv6 packets, or the requests for the addresses of their next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableFamily {
    Inet,
    Ip,
    Ip6,
    /// What one interface receives or sends.
    Netdev,
    /// What passes a bridge.
    Bridge,
    /// ARP, without which no IPv4 packet leaves.
    Arp,
}

impl TableFamily {
    const ALL: [TableFamily; 6] = [
        TableFamily::Inet,
        TableFamily::Ip,
        TableFamily::Ip6,
        TableFamily::Netdev,
        TableFamily::Bridge,
        TableFamily::Arp,
    ];

    /// The family of the object in a message.
    fn of(message: &Message<'_>) -> Option<Self> {
        let number = *message.payload.first()?;
        let mut all = Self::ALL.into_iter();
        all.find(|family| family.nfproto() == number)
    }

    /// Whether its tables see packets of this family.
    pub fn sees(self, family: Family) -> bool {
        match self {
            TableFamily::Inet | TableFamily::Netdev | TableFamily::Bridge => true,
            TableFamily::Ip | TableFamily::Arp => family == Family::Ipv4,
            TableFamily::Ip6 => family == Family::Ipv6,
        }
    }

    fn nfproto(self) -> u8 {
        let number = match self {
            TableFamily::Inet => libc::NFPROTO_INET,
            TableFamily::Ip => libc::NFPROTO_IPV4,
            TableFamily::Ip6 => libc::NFPROTO_IPV6,
            TableFamily::Netdev => libc::NFPROTO_NETDEV,
            TableFamily::Bridge => libc::NFPROTO_BRIDGE,
            TableFamily::Arp => libc::NFPROTO_ARP,
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Netdev => "netdev",
            TableFamily::Bridge => "bridge",
            TableFamily::Arp => "arp",
        };
        write!(f, "{family} {}", self.name)
    }
}

impl Table {
    /// It, or one of its chains, as nft(8) takes it. `None` if nft cannot name it.
    pub fn for_nft(&self, chain: Option<&str>) -> Option<String> {
        nft_name(&self.name)?;
        match chain {
            None => Some(self.to_string()),
            Some(chain) => Some(format!("{self} {}", nft_name(chain)?)),
        }
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
            name: attributes.name(NFTA_TABLE_NAME)?,
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

    /// What its counter has counted, if it has one.
    pub fn count(&self) -> Option<Count> {
        self.expressions().iter().find_map(|(_, bytes)| {
            let expression = Attributes(bytes);
            let is_counter = expression.text(NFTA_EXPR_NAME)? == "counter";
            let data = is_counter.then(|| expression.nested(NFTA_EXPR_DATA))?;
            Some(Count {
                packets: data.u64(NFTA_COUNTER_PACKETS)?,
                bytes: data.u64(NFTA_COUNTER_BYTES)?,
            })
        })
    }
}

/// What a counter has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
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
    if attributes.name(NFTA_RULE_TABLE)? != table {
        return None;
    }
    let expressions = attributes.get(NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    Some(Rule {
        chain: attributes.name(NFTA_RULE_CHAIN)?,
        handle: attributes.u64(NFTA_RULE_HANDLE)?,
        expressions: expressions.to_vec(),
    })
}

/// A request for all objects of a kind, of tables of all families.
fn dump_request_of_all(message: i32) -> Request {
    let flags = libc::NLM_F_DUMP as u16;
    Request::new(message_type(message), flags, libc::NFPROTO_UNSPEC as u8, 1)
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
