//! Base chains, of all tables at once.

use super::{Table, TableFamily, dump_request_of_all, get_request};
use crate::netlink::{Attributes, Failure, Message, Socket, name, or_missing};
use crate::uapi::*;
use nix::libc;
use std::collections::HashMap;

/// The hooks that a forwarded connection can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Egress,
}

impl Hook {
    /// From its number, which depends on the family of the table (linux/netfilter.h,
    /// linux/netfilter_bridge.h, linux/netfilter_arp.h).
    fn of(family: TableFamily, number: i32) -> Option<Self> {
        let hooks: &[Hook] = match family {
            TableFamily::Inet | TableFamily::Ip | TableFamily::Ip6 | TableFamily::Bridge => &[
                Hook::Prerouting,
                Hook::Input,
                Hook::Forward,
                Hook::Output,
                Hook::Postrouting,
                Hook::Ingress,
            ],
            TableFamily::Netdev => &[Hook::Ingress, Hook::Egress],
            TableFamily::Arp => &[Hook::Input, Hook::Output],
        };
        hooks.get(usize::try_from(number).ok()?).copied()
    }
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
    /// The interfaces whose packets it sees, if it does not see all.
    pub devices: Vec<String>,
}

impl BaseChain {
    /// Whether the chain is for the packets of this interface, of those that are for some.
    pub fn has_device(&self, name: &str) -> bool {
        let is_it = |device: &String| match device.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => device == name,
        };
        self.devices.iter().any(is_it)
    }
}

/// The kernel's number for each table: newer ones have higher ones.
pub type TableHandles = HashMap<Table, u64>;

/// The base chains of all tables, but of those that are switched off (`flags dormant`), in the order of
/// the kernel's list.
pub fn base_chains(socket: &Socket) -> Result<(Vec<BaseChain>, TableHandles), Failure> {
    let chains = dump_request_of_all(libc::NFT_MSG_GETCHAIN);
    let mut chains = socket.list(&chains, base_chain)?;
    let tables = dump_request_of_all(libc::NFT_MSG_GETTABLE);
    let awake: TableHandles = socket.list(&tables, awake)?.into_iter().collect();
    chains.retain(|chain| awake.contains_key(&chain.table));
    Ok((chains, awake))
}

/// The table in a message, with its handle, unless it is switched off.
fn awake(message: &Message<'_>) -> Option<(Table, u64)> {
    let attributes = message.attributes();
    let flags = attributes.u32(NFTA_TABLE_FLAGS).unwrap_or(0);
    let table = Table {
        family: TableFamily::of(message)?,
        name: attributes.name(NFTA_TABLE_NAME)?,
    };
    let handle = attributes.u64(NFTA_TABLE_HANDLE)?;
    (flags & NFT_TABLE_F_DORMANT == 0).then_some((table, handle))
}

fn base_chain(message: &Message<'_>) -> Option<BaseChain> {
    let attributes = message.attributes();
    let hook = attributes.nested(NFTA_CHAIN_HOOK);
    let family = TableFamily::of(message)?;
    Some(BaseChain {
        hook: Hook::of(family, hook.u32(NFTA_HOOK_HOOKNUM)? as i32)?,
        table: Table {
            family,
            name: attributes.name(NFTA_CHAIN_TABLE)?,
        },
        name: attributes.name(NFTA_CHAIN_NAME)?,
        priority: hook.u32(NFTA_HOOK_PRIORITY)? as i32,
        is_nat: attributes.text(NFTA_CHAIN_TYPE)? == "nat",
        drops: attributes.u32(NFTA_CHAIN_POLICY) == Some(libc::NF_DROP as u32),
        devices: devices(hook),
    })
}

/// The names of interfaces; one that ends with `*` stands for all that begin with it.
fn devices(hook: Attributes<'_>) -> Vec<String> {
    let several = device_names(hook.nested(NFTA_HOOK_DEVS));
    if several.is_empty() {
        return hook.name(NFTA_HOOK_DEV).into_iter().collect();
    }
    several
}

/// The same of a list.
pub fn device_names(list: Attributes<'_>) -> Vec<String> {
    let names = list.iter().map(|(kind, bytes)| match kind {
        NFTA_DEVICE_PREFIX => name(bytes) + "*",
        _ => name(bytes),
    });
    names.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Since Linux 6.16 a chain can be for all interfaces whose names begin alike.
    #[test]
    fn a_device_is_a_name_or_its_beginning() {
        let chain = |devices: &[&str]| BaseChain {
            table: Table::inet("t"),
            name: "c".into(),
            hook: Hook::Ingress,
            priority: 0,
            is_nat: false,
            drops: false,
            devices: devices.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert!(chain(&["lo", "eth*"]).has_device("eth0"));
        assert!(chain(&["lo", "eth*"]).has_device("lo"));
        assert!(!chain(&["lo", "eth*"]).has_device("wlan0"));
        assert!(!chain(&["eth"]).has_device("eth0"));
        assert!(!chain(&[]).has_device("eth0"));
    }
}
