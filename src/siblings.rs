//! The other instances in this network namespace, and what they forward, as the kernel shows them.

use crate::config::{
    Config, Family, InterfaceName, Name, PortRange, Protocol, Service, ServiceSet, TABLE_PREFIX,
};
use crate::lock::Holder;
use crate::netlink::{address, or_missing};
use crate::nftables::list::{self, BaseChain, Element, Hook, Table, TableFamily, TableInfo};
use crate::nftables::{Nftables, NftablesError};
use crate::process;
use crate::ruleset::{LISTEN_INTERFACES, PREROUTING, ServiceMaps, listen_set_name};
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

    /// What the instance with this table claims.
    pub fn read(nftables: &Nftables, table: &str) -> Result<Self, NftablesError> {
        let mut claims = Claims {
            addresses: listen_addresses(nftables, table)?,
            interfaces: listen_interfaces(nftables, table)?,
            ..Claims::default()
        };
        let table = Table::inet(table);
        for family in Family::ALL {
            for map in ServiceMaps::of(family).all() {
                let elements =
                    nftables.list(|socket| or_missing(list::elements(socket, &table, &map)))?;
                let services = elements
                    .iter()
                    .filter_map(|element| service(family, element));
                claims.services.extend(services);
            }
        }
        Ok(claims)
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

/// The interfaces that the instance with this table listens on.
pub fn listen_interfaces(
    nftables: &Nftables,
    table: &str,
) -> Result<Vec<InterfaceName>, NftablesError> {
    let (table, set) = (Table::inet(table), LISTEN_INTERFACES);
    let elements = nftables.list(|socket| or_missing(list::elements(socket, &table, set)))?;
    let name = |element: &Element| InterfaceName::from_bytes(&element.key);
    Ok(elements.iter().filter_map(name).collect())
}

/// The addresses that the instance with this table listens on.
pub fn listen_addresses(nftables: &Nftables, table: &str) -> Result<Vec<IpAddr>, NftablesError> {
    let table = Table::inet(table);
    let mut addresses = Vec::new();
    for set in Family::ALL.map(listen_set_name) {
        let elements = nftables.list(|socket| or_missing(list::elements(socket, &table, &set)))?;
        addresses.extend(elements.iter().filter_map(|element| address(&element.key)));
    }
    Ok(addresses)
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

/// Fails if another instance claims a part of this, or has this table and it may not be replaced. Gives
/// whether there is one that may be.
pub fn check_conflicts(
    nftables: &Nftables,
    table: &str,
    claims: &Claims,
    may_replace: impl Fn(&TableInfo) -> bool,
) -> Result<bool, SiblingError> {
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
    for other in others {
        let theirs = Claims::read(nftables, &other.name)?;
        if let Some(service) = claims.conflict(&theirs) {
            return Err(SiblingError::Claimed {
                service,
                whose: whose(&other, Holder::of(&other.name)),
                table: other.name,
            });
        }
    }
    Ok(existing.is_some())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::list::ElementKind;
    use proptest::prelude::*;

    fn element(key: &[u8], key_end: &[u8]) -> Element {
        Element {
            kind: ElementKind::Key,
            key: key.to_vec(),
            key_end: Some(key_end.to_vec()),
            data: None,
            packets: None,
        }
    }

    #[test]
    fn keys_read_back() {
        let ports = element(&[0, 53, 0, 0, 17, 0, 0, 0], &[0, 60, 0, 0, 17, 0, 0, 0]);
        let service = service(Family::Ipv4, &ports);
        assert_eq!(service.unwrap().to_string(), "udp/53-60 over IPv4");
    }

    fn claims(ports: &str, addresses: &[&str]) -> Claims {
        Claims {
            services: vec![Service {
                family: Family::Ipv4,
                protocol: Protocol::Tcp,
                ports: ports.parse().unwrap(),
            }],
            addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
            interfaces: Vec::new(),
        }
    }

    #[test]
    fn only_what_both_claim_is_a_conflict() {
        let all = claims("80", &[]);
        assert_eq!(all.conflict(&claims("79-81", &[])), Some(all.services[0]));
        assert_eq!(
            all.conflict(&claims("80", &["10.0.0.1"])),
            Some(all.services[0])
        );
        assert_eq!(all.conflict(&claims("81", &[])), None);
        let one = claims("80", &["10.0.0.1"]);
        assert_eq!(
            one.conflict(&claims("80", &["10.0.0.1", "10.0.0.2"])),
            Some(one.services[0])
        );
        assert_eq!(one.conflict(&claims("80", &["10.0.0.2"])), None);

        let mut other_family = claims("80", &[]);
        other_family.services[0].family = Family::Ipv6;
        let mut other_protocol = claims("80", &[]);
        other_protocol.services[0].protocol = Protocol::Udp;
        assert_eq!(all.conflict(&other_family), None);
        assert_eq!(all.conflict(&other_protocol), None);
    }

    #[test]
    fn the_same_interface_is_a_conflict_and_so_is_an_address_that_may_be_reached_over_it() {
        let on = |names: &[&str]| Claims {
            interfaces: names.iter().map(|name| name.parse().unwrap()).collect(),
            ..claims("80", &[])
        };
        let conflicts = |one: &Claims, two: &Claims| {
            assert_eq!(one.conflict(two), two.conflict(one));
            one.conflict(two).is_some()
        };
        assert!(!conflicts(&on(&["eth0"]), &on(&["eth1", "eth2"])));
        assert!(conflicts(&on(&["eth0"]), &on(&["eth1", "eth0"])));
        assert!(conflicts(&on(&["eth0"]), &claims("80", &[])));
        assert!(conflicts(&on(&["eth0"]), &claims("80", &["10.0.0.1"])));
        assert!(!conflicts(&on(&["eth0"]), &claims("80", &["fd00::1"])));
    }

    /// Would take minutes if each were compared with each: services, or addresses for each service.
    #[test]
    fn many_claims_are_compared_with_many() {
        let claims = |first: u16, network: u32| Claims {
            services: (first..=u16::MAX)
                .step_by(2)
                .map(|port| Service {
                    family: Family::Ipv4,
                    protocol: Protocol::Tcp,
                    ports: port.into(),
                })
                .collect(),
            addresses: (network..network + 100_000)
                .map(|number| IpAddr::from(number.to_be_bytes()))
                .collect(),
            interfaces: Vec::new(),
        };
        let (odd, even) = (claims(1, 1 << 24), claims(2, (1 << 24) + 99_999));
        assert_eq!(odd.conflict(&even), None);
        assert_eq!(odd.conflict(&claims(1, 1 << 25)), None);
        assert_eq!(odd.conflict(&odd), Some(odd.services[0]));
    }

    #[test]
    fn a_table_without_an_owner_may_still_have_a_holder() {
        let table = TableInfo {
            name: "nodefwd-web".into(),
            owner: None,
            handle: None,
        };
        assert_eq!(
            whose(&table, Holder::None),
            "without an owner: remove it with nft delete table inet nodefwd-web"
        );
        assert_eq!(
            whose(&table, Holder::Process(u32::MAX)),
            format!("held by process {}: stop that one", u32::MAX)
        );
        assert_eq!(
            whose(&table, Holder::Unseen),
            "held by a process that cannot be seen from here: stop that one"
        );
    }

    proptest! {
        #[test]
        fn no_key_panics(first: Vec<u8>, last: Vec<u8>) {
            service(Family::Ipv6, &element(&first, &last));
        }
    }
}
