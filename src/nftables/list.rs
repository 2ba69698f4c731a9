//! What is in nf_tables: tables, chains, rules, sets and elements, each read and decoded in one place.
//!
//! Reading takes CAP_NET_ADMIN too (nfnetlink_rcv in net/netfilter/nfnetlink.c).

use crate::config::Family;
use crate::netlink::{Attributes, Failure, Message, Request, Socket};
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
    socket.get(&request, |message| {
        Some(message.attributes().u32(NFTA_CHAIN_USE).unwrap_or(0) as usize)
    })
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

/// What the kernel says of a set or map, apart from its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetInfo {
    /// Length of a key in bytes, each field padded to 4.
    pub key_length: usize,
    /// Whether its keys are ranges.
    pub interval: bool,
}

/// The set or map of this name; `None` if the table has none.
pub fn set(socket: &Socket, table: &Table, name: &str) -> Result<Option<SetInfo>, Failure> {
    let request = get_request(libc::NFT_MSG_GETSET, table.family)
        .text(NFTA_SET_TABLE, &table.name)
        .text(NFTA_SET_NAME, name);
    socket.get(&request, |message| {
        let attributes = message.attributes();
        let flags = attributes.u32(NFTA_SET_FLAGS).unwrap_or(0);
        Some(SetInfo {
            key_length: attributes.u32(NFTA_SET_KEY_LEN)? as usize,
            interval: flags & libc::NFT_SET_INTERVAL as u32 != 0,
        })
    })
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub kind: ElementKind,
    /// Its key, or the first one of its range, fields padded to 4 bytes. Empty for a catch-all.
    pub key: Vec<u8>,
    /// The last key of its range, in a set of concatenations.
    pub key_end: Option<Vec<u8>>,
    /// What a map has for it.
    pub data: Option<Data>,
    /// How many packets it has counted; `None` if it does not count.
    pub packets: Option<u64>,
}

/// What an element stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementKind {
    /// A key, or a range of keys.
    Key,
    /// The first key after a range, in a set of single fields.
    IntervalEnd,
    /// All keys that no other element has (`*` in nft).
    CatchAll,
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A value, fields padded to 4 bytes.
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// A verdict, `NF_*` or `NFT_*`, with the chain that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub code: i32,
    pub chain: Option<String>,
}

/// All elements of a set or map; none if the table has no such set.
pub fn elements(socket: &Socket, table: &Table, set: &str) -> Result<Vec<Element>, Failure> {
    let request = of_set(
        dump_request(libc::NFT_MSG_GETSETELEM, table.family),
        table,
        set,
    );
    let parts = socket.list(&request, |message| {
        Some(elements_of(message).collect::<Vec<_>>())
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// The element that the kernel finds for a key: the one that holds the key, or else a catch-all.
pub fn element(
    socket: &Socket,
    table: &Table,
    set: &str,
    key: &[u8],
) -> Result<Option<Element>, Failure> {
    let get = |element: &dyn Fn(Request) -> Request| {
        let request = get_request(libc::NFT_MSG_GETSETELEM, table.family);
        let request = of_set(request, table, set).nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            list.nest(NFTA_LIST_ELEM, element)
        });
        match socket.get(&request, |message| elements_of(message).next()) {
            // A kernel that does not know catch-all elements.
            Err(Failure::Refused(_)) => Ok(None),
            reply => reply,
        }
    };
    let of_key = get(&|element| {
        element.nest(NFTA_SET_ELEM_KEY, |nest| {
            nest.attribute(NFTA_DATA_VALUE, key)
        })
    })?;
    match of_key {
        None => get(&|element| {
            element.attribute(NFTA_SET_ELEM_FLAGS, &NFT_SET_ELEM_CATCHALL.to_be_bytes())
        }),
        found => Ok(found),
    }
}

fn of_set(request: Request, table: &Table, set: &str) -> Request {
    request
        .text(NFTA_SET_ELEM_LIST_TABLE, &table.name)
        .text(NFTA_SET_ELEM_LIST_SET, set)
}

fn elements_of<'a>(message: &Message<'a>) -> impl Iterator<Item = Element> + use<'a> {
    let list = message.attributes().nested(NFTA_SET_ELEM_LIST_ELEMENTS);
    list.iter()
        .filter_map(|(_, bytes)| decode_element(Attributes(bytes)))
}

/// Reads one element of a dump; `None` if it has no key and is no catch-all.
pub fn decode_element(attributes: Attributes<'_>) -> Option<Element> {
    let flags = attributes.u32(NFTA_SET_ELEM_FLAGS).unwrap_or(0);
    let kind = match flags & (NFT_SET_ELEM_INTERVAL_END | NFT_SET_ELEM_CATCHALL) {
        0 => ElementKind::Key,
        NFT_SET_ELEM_INTERVAL_END => ElementKind::IntervalEnd,
        _ => ElementKind::CatchAll,
    };
    let key = |kind| {
        attributes
            .nested(kind)
            .get(NFTA_DATA_VALUE)
            .map(<[u8]>::to_vec)
    };
    let without_key = (kind == ElementKind::CatchAll).then(Vec::new);
    let data = attributes.nested(NFTA_SET_ELEM_DATA);
    let value = data
        .get(NFTA_DATA_VALUE)
        .map(|value| Data::Value(value.to_vec()));
    let counter = attributes.nested(NFTA_SET_ELEM_EXPR).nested(NFTA_EXPR_DATA);
    Some(Element {
        kind,
        key: key(NFTA_SET_ELEM_KEY).or(without_key)?,
        key_end: key(NFTA_SET_ELEM_KEY_END),
        data: value.or_else(|| verdict(data).map(Data::Verdict)),
        packets: counter.u64(NFTA_COUNTER_PACKETS),
    })
}

/// The verdict in these attributes of data, if there is one.
pub fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.nested(NFTA_DATA_VERDICT);
    Some(Verdict {
        code: verdict.u32(NFTA_VERDICT_CODE)? as i32,
        chain: verdict.text(NFTA_VERDICT_CHAIN).map(str::to_owned),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_element_panics(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            decode_element(Attributes(&bytes));
        }
    }
}
