//! The other instances in this network namespace, and what they forward, as the kernel shows them.

#[cfg(test)]
mod tests;

use crate::config::{
    Config, Family, InterfaceName, Name, PortRange, Protocol, Service, ServiceSet, TABLE_PREFIX,
};
use crate::lock::Holder;
use crate::netlink::address;
use crate::nftables::list::{self, BaseChain, Element, Hook, Table, TableFamily, TableInfo};
use crate::nftables::{Nftables, NftablesError};
use crate::process;
use crate::ruleset::{LISTEN_INTERFACES, PREROUTING, ServiceMaps, listen_set_name};
use crate::text::Printable;
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;
use thiserror::Error;

/// Why an instance cannot be installed beside the others.
#[derive(Debug, Error)]
pub enum SiblingError {
    #[error(
        "table inet {table} is already there, {whose}, or give this instance another name with NODEFWD_NAME (--name)"
    )]
    TableExists {
        table: String,
        /// The netlink port of its owner, if it has one.
        owner: Option<u32>,
        /// Who has it, and what to do.
        whose: String,
    },
    #[error(
        "{service} is already forwarded by table inet {table}, {whose}, or forward other ports, or listen on other addresses or interfaces with NODEFWD_LISTEN (--listen)"
    )]
    Claimed {
        service: Service,
        /// The other instance's table.
        table: String,
        /// Who has it, and what to do.
        whose: String,
    },
    #[error(transparent)]
    Nftables(#[from] NftablesError),
}

/// The tables of all instances in this network namespace: those that have a name and a map of an instance's, and
/// the chain that connections come in through. Any process that may change nftables can make such a table, but
/// the kernel has room for 1,024 chains at a hook (MAX_HOOK_COUNT in net/netfilter/core.c).
pub fn instances(nftables: &Nftables) -> Result<Vec<TableInfo>, NftablesError> {
    let is_named = |table: &TableInfo| {
        let name = table.name.strip_prefix(TABLE_PREFIX);
        name.is_some_and(|name| name.parse::<Name>().is_ok())
    };
    let mut tables = nftables.tables()?;
    tables.retain(is_named);
    if tables.is_empty() {
        return Ok(tables);
    }
    let maps = Family::ALL.map(|family| ServiceMaps::of(family).all());
    let with_maps = nftables.list(|socket| list::tables_with_sets(socket, &maps.concat()))?;
    let (chains, _) = nftables.list(list::base_chains)?;
    let comes_in = |chain: &&BaseChain| {
        let is_first = chain.hook == Hook::Prerouting && chain.name == PREROUTING;
        is_first && chain.is_nat && chain.table.family == TableFamily::Inet
    };
    let hooked = chains.iter().filter(comes_in);
    let hooked: HashSet<&String> = hooked.map(|chain| &chain.table.name).collect();
    tables.retain(|table| with_maps.contains(&table.name) && hooked.contains(&table.name));
    Ok(tables)
}

/// What an instance forwards: two instances must not claim the same packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub services: Vec<Service>,
    /// The addresses that it listens on.
    pub addresses: Vec<IpAddr>,
    /// The interfaces that it listens on; none of either stands for all.
    pub interfaces: Vec<InterfaceName>,
}

impl Claims {
    /// What an instance with this config claims.
    pub fn of(config: &Config) -> Self {
        let forwards = config.reachable_forwards();
        Claims {
            services: forwards.map(|forward| forward.service).collect(),
            addresses: config.listen.addresses().to_vec(),
            interfaces: config.listen.interfaces().to_vec(),
        }
    }

    /// What the instance with this table claims. `None` if the table has more than any instance: then the socket
    /// must not be used afterwards.
    pub fn read(nftables: &Nftables, table: &str) -> Result<Option<Self>, NftablesError> {
        let table = Table::inet(table);
        let Some(Listening {
            addresses,
            interfaces,
        }) = Listening::read(nftables, &table)?
        else {
            return Ok(None);
        };
        let mut services = Vec::new();
        for family in Family::ALL {
            for map in ServiceMaps::of(family).all() {
                let Some(elements) = listed(nftables, &table, &map)? else {
                    return Ok(None);
                };
                let of_map = elements.iter();
                services.extend(of_map.filter_map(|element| service(family, element)));
            }
        }
        Ok(Some(Claims {
            services,
            addresses,
            interfaces,
        }))
    }

    fn is_everywhere(&self) -> bool {
        self.addresses.is_empty() && self.interfaces.is_empty()
    }

    /// The first service of `self` that both claim.
    pub fn conflict(&self, other: &Claims) -> Option<Service> {
        let addresses: HashSet<IpAddr> = other.addresses.iter().copied().collect();
        let of_family = |ip: &&IpAddr, family| Family::of(**ip) == family;
        let shares_address = |family| {
            let mut ours = self.addresses.iter().filter(|ip| of_family(ip, family));
            ours.any(|address| addresses.contains(address))
        };
        // A packet to a listed address may come in on any interface.
        let both_kinds = |one: &Claims, two: &Claims, family| {
            let mut addresses = two.addresses.iter();
            !one.interfaces.is_empty() && addresses.any(|ip| of_family(&ip, family))
        };
        let mut interfaces = self.interfaces.iter();
        let everywhere = self.is_everywhere()
            || other.is_everywhere()
            || interfaces.any(|name| other.interfaces.contains(name));
        let shares = |family| {
            everywhere
                || shares_address(family)
                || both_kinds(self, other, family)
                || both_kinds(other, self, family)
        };
        let shared = Family::ALL.map(|family| (family, shares(family)));
        let theirs: ServiceSet = other.services.iter().copied().collect();
        let claimed = |service: &&Service| {
            shared.contains(&(service.family, true)) && theirs.overlaps(service)
        };
        self.services.iter().find(claimed).copied()
    }
}

/// What an instance listens on; none of either stands for all.
#[derive(Debug, Clone, Default)]
pub struct Listening {
    pub addresses: Vec<IpAddr>,
    pub interfaces: Vec<InterfaceName>,
}

impl Listening {
    /// That of the instance with this table. `None` as of [`listed`].
    pub fn read(nftables: &Nftables, table: &Table) -> Result<Option<Self>, NftablesError> {
        let mut addresses = Vec::new();
        for set in Family::ALL.map(listen_set_name) {
            let Some(elements) = listed(nftables, table, &set)? else {
                return Ok(None);
            };
            addresses.extend(elements.iter().filter_map(|element| address(&element.key)));
        }
        let name = |element: &Element| InterfaceName::from_bytes(&element.key);
        let interfaces = listed(nftables, table, LISTEN_INTERFACES)?;
        Ok(interfaces.map(|interfaces| Listening {
            addresses,
            interfaces: interfaces.iter().filter_map(name).collect(),
        }))
    }
}

/// As many elements of a set are read of a table that is like an instance's: more than an instance has services.
pub const MAX_LISTED: usize = 1 << 18;

/// The elements of a set of an instance; none if there is no such set. `None` if they are more than [`MAX_LISTED`]:
/// then the socket must not be used afterwards.
pub fn listed(
    nftables: &Nftables,
    table: &Table,
    set: &str,
) -> Result<Option<Vec<Element>>, NftablesError> {
    nftables.list(|socket| list::elements_up_to(socket, MAX_LISTED, table, set))
}

/// Where the port and the protocol are in a key of both: the kernel pads each field of a key to 4 bytes.
const KEY_PORT: Range<usize> = 0..2;
const KEY_PROTOCOL: usize = 4;

/// The service in a key of port and protocol; `None` for another protocol, or if the key is too short.
pub fn service(family: Family, element: &Element) -> Option<Service> {
    let first = &element.key;
    let last = element.key_end.as_ref().unwrap_or(first);
    let port = |key: &[u8]| Some(u16::from_be_bytes(key.get(KEY_PORT)?.try_into().ok()?));
    Some(Service {
        family,
        protocol: Protocol::from_number(*first.get(KEY_PROTOCOL)?)?,
        ports: PortRange::try_from((port(first)?, port(last)?)).ok()?,
    })
}

/// What is there beside an instance that is to be installed.
pub struct Others {
    /// Whether its table is there, and may be replaced.
    pub replaceable: bool,
    /// The tables that are not compared, as they have more than any instance.
    pub unread: Vec<String>,
}

/// Fails if another instance claims a part of this, or has this table and it may not be replaced.
pub fn check_conflicts(
    nftables: &Nftables,
    table: &str,
    claims: &Claims,
    may_replace: impl Fn(&TableInfo) -> bool,
) -> Result<Others, SiblingError> {
    // Whoever has made it.
    let existing = nftables.table(table)?;
    if let Some(other) = existing.as_ref().filter(|other| !may_replace(other)) {
        return Err(SiblingError::TableExists {
            // The lock of this name is this instance's own.
            whose: whose(other, Holder::None),
            owner: other.owner,
            table: table.to_owned(),
        });
    }
    let mut others = instances(nftables)?;
    others.retain(|other| other.name != table);
    let mut unread = Vec::new();
    for other in others {
        let Some(theirs) = Claims::read(&Nftables::open()?, &other.name)? else {
            unread.push(other.name);
            continue;
        };
        if let Some(service) = claims.conflict(&theirs) {
            return Err(SiblingError::Claimed {
                service,
                whose: whose(&other, Holder::of(&other.name)),
                table: other.name,
            });
        }
    }
    Ok(Others {
        replaceable: existing.is_some(),
        unread,
    })
}

/// That a table was not compared, and why.
pub fn unread(table: &str) -> String {
    let table = Printable(table);
    format!(
        "not looked at: what table inet {table} forwards, as it lists more than {MAX_LISTED} of a kind"
    )
}

/// Who has a table, and what can be done about it. If the kernel knows no owner, `holder` is whoever
/// holds the lock of its name.
fn whose(table: &TableInfo, holder: Holder) -> String {
    let (how, holder) = match table.owner {
        Some(port) => {
            let process = process::owner(port).pid;
            ("owned", process.map_or(Holder::Unseen, Holder::Process))
        }
        None => ("held", holder),
    };
    let name = match holder {
        Holder::None => {
            let command = Table::inet(&table.name).for_nft(None);
            return command.map_or("without an owner: remove it".into(), |table| {
                format!("without an owner: remove it with nft delete table {table}")
            });
        }
        Holder::Process(process) => process::name(process),
        Holder::Unseen => None,
    };
    let name = name.map_or(String::new(), |name| format!(" ({name})"));
    format!("{how} by {holder}{name}: stop that one")
}
