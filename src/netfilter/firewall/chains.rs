//! Chains and rules, as the kernel lists them.

use super::super::message::{Attributes, Message, Request};
use super::super::socket::{Failure, Socket};
use super::super::table::nf_tables;
use crate::config::Family;
use nftnl::nftnl_sys::libc;
use nix::errno::Errno;
use std::fmt;

/// A family of tables that see IPv4 or IPv6 packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableFamily {
    /// Both.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
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

    fn number(self) -> u8 {
        let number = match self {
            TableFamily::Inet => libc::NFPROTO_INET,
            TableFamily::Ip => libc::NFPROTO_IPV4,
            TableFamily::Ip6 => libc::NFPROTO_IPV6,
        };
        number as u8
    }
}

/// A table of any family.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Table {
    /// Writes it as nft(8) takes it. Anybody can name a table, with bytes that a terminal takes for
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

/// Where in a packet's way a chain stands: the hooks that a forwarded connection meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterHook {
    /// Before routing.
    Prerouting,
    /// Between two interfaces.
    Forward,
    /// Packets made on this host.
    Output,
}

/// A chain at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// Its hook.
    pub hook: FilterHook,
    /// Chains of lower priority come first.
    pub priority: i32,
    /// Whether it is of type nat.
    pub nat: bool,
    /// Whether its policy is to drop.
    pub drops: bool,
}

impl BaseChain {
    /// Its end.
    pub(super) fn policy(&self) -> Place {
        Place {
            table: self.table.clone(),
            chain: self.name.clone(),
            rule: None,
        }
    }
}

/// Where a packet ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: Table,
    /// The chain.
    pub chain: String,
    /// The rule's handle; nothing for the chain's policy.
    pub rule: Option<u64>,
}

impl Place {
    pub(super) fn rule(table: &Table, chain: &str, handle: u64) -> Self {
        Place {
            table: table.clone(),
            chain: chain.to_owned(),
            rule: Some(handle),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(handle) => write!(f, "rule {handle}")?,
            None => f.write_str("the policy")?,
        }
        let Place { table, chain, .. } = self;
        write!(f, " of chain {} in table {table}", chain.escape_debug())
    }
}

/// A rule's handle and expressions.
pub struct Rule {
    pub handle: u64,
    expressions: Vec<u8>,
}

impl Rule {
    pub fn expressions(&self) -> Attributes<'_> {
        Attributes(&self.expressions)
    }
}

/// The chains at hooks of all tables but those that are switched off.
pub fn base_chains(socket: &Socket) -> Result<Vec<BaseChain>, Failure> {
    let mut chains = Vec::new();
    for family in TableFamily::ALL {
        let mut of_family = Vec::new();
        socket.dump(
            &list(libc::NFT_MSG_GETCHAIN, family),
            |message| match message {
                None => of_family.clear(),
                Some(message) => of_family.extend(base_chain(family, &message)),
            },
        )?;
        chains.append(&mut of_family);
    }
    let mut awake = Vec::new();
    for chain in chains {
        if !is_dormant(socket, &chain.table)? {
            awake.push(chain);
        }
    }
    Ok(awake)
}

fn base_chain(family: TableFamily, message: &Message<'_>) -> Option<BaseChain> {
    // linux/netfilter/nf_tables.h: enum nft_chain_attributes, nft_hook_attributes
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    let attributes = message.attributes();
    let hook = attributes.nested(HOOK);
    Some(BaseChain {
        table: Table {
            family,
            name: attributes.text(TABLE)?.to_owned(),
        },
        name: attributes.text(NAME)?.to_owned(),
        hook: match hook.u32(HOOK_NUMBER)? as i32 {
            libc::NF_INET_PRE_ROUTING => FilterHook::Prerouting,
            libc::NF_INET_FORWARD => FilterHook::Forward,
            libc::NF_INET_LOCAL_OUT => FilterHook::Output,
            _ => return None,
        },
        priority: hook.u32(HOOK_PRIORITY)? as i32,
        nat: attributes.text(TYPE)? == "nat",
        drops: attributes.u32(POLICY) == Some(libc::NF_DROP as u32),
    })
}

fn is_dormant(socket: &Socket, table: &Table) -> Result<bool, Failure> {
    // linux/netfilter/nf_tables.h: NFTA_TABLE_NAME, NFTA_TABLE_FLAGS, NFT_TABLE_F_DORMANT
    const NAME: u16 = 1;
    const FLAGS: u16 = 2;
    const DORMANT: u32 = 1;
    let request = single(libc::NFT_MSG_GETTABLE, table.family).text(NAME, &table.name);
    let flags = ask(socket, &request, |message| message.attributes().u32(FLAGS))?;
    Ok(flags.is_some_and(|flags| flags & DORMANT != 0))
}

/// Whether a table has a chain of this name.
pub fn exists(socket: &Socket, table: &Table, chain: &str) -> Result<bool, Failure> {
    Ok(ask(socket, &single_chain(table, chain), |_| Some(()))?.is_some())
}

/// How many rules a chain has, and rules of others that lead to it.
pub fn uses(socket: &Socket, table: &Table, chain: &str) -> Result<usize, Failure> {
    // linux/netfilter/nf_tables.h: NFTA_CHAIN_USE
    const USE: u16 = 6;
    let uses = |message: Message<'_>| message.attributes().u32(USE);
    let uses = ask(socket, &single_chain(table, chain), uses)?;
    Ok(uses.unwrap_or(0) as usize)
}

fn single_chain(table: &Table, chain: &str) -> Request {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    single(libc::NFT_MSG_GETCHAIN, table.family)
        .text(TABLE, &table.name)
        .text(NAME, chain)
}

/// The rules of a chain, in order.
pub fn rules(socket: &Socket, table: &Table, chain: &str) -> Result<Vec<Rule>, Failure> {
    // linux/netfilter/nf_tables.h: enum nft_rule_attributes
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    const EXPRESSIONS: u16 = 4;
    let request = list(libc::NFT_MSG_GETRULE, table.family)
        .text(TABLE, &table.name)
        .text(CHAIN, chain);
    let rule = |message: Message<'_>| {
        let attributes = message.attributes();
        Some(Rule {
            handle: attributes.u64(HANDLE)?,
            expressions: attributes.get(EXPRESSIONS).unwrap_or_default().to_vec(),
        })
    };
    let mut rules = Vec::new();
    socket.dump(&request, |message| match message {
        None => rules.clear(),
        Some(message) => rules.extend(rule(message)),
    })?;
    Ok(rules)
}

/// A request for all objects of a kind.
pub fn list(message: i32, family: TableFamily) -> Request {
    let flags = libc::NLM_F_DUMP as u16;
    Request::new(nf_tables(message), flags, family.number(), 1)
}

/// A request for one object.
pub fn single(message: i32, family: TableFamily) -> Request {
    Request::new(nf_tables(message), 0, family.number(), 1)
}

/// What there is to read in the object that is asked for; nothing if it is not there.
pub fn ask<T>(
    socket: &Socket,
    request: &Request,
    read: impl Fn(Message<'_>) -> Option<T>,
) -> Result<Option<T>, Failure> {
    let mut found = None;
    match socket.dump(request, |message| found = message.and_then(&read)) {
        Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(None),
        answer => answer.map(|()| found),
    }
}
