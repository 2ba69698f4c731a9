//! iptables-legacy, whose rules nftables does not show: whether its tables have any
//! (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h).

use super::{Finding, Level, fix};
use crate::config::{Config, Family, Forward, first_few};
use crate::netlink::read_option;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsFd, OwnedFd};
use std::{fs, io};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same for IPv6.
const SO_GET_INFO: libc::c_int = 64;
const SO_GET_ENTRIES: libc::c_int = 65;

/// Length in bytes of `struct ipt_getinfo`, which begins with a name, and where it has its fields.
const INFO: usize = 84;
const NAME: usize = 32;
const VALID_HOOKS: usize = 32;
const UNDERFLOW: usize = 56;
const NUM_ENTRIES: usize = 76;
const SIZE: usize = 80;
const HOOKS: usize = 5;

/// Where `struct ipt_get_entries` has its entries: after name and size, aligned as their counters are.
const ENTRIES: usize = (NAME + 4).next_multiple_of(align_of::<u64>());

/// Where the standard target has its verdict, and the one that accepts (`-NF_ACCEPT - 1`).
const VERDICT: usize = 32;
const ACCEPT: i32 = -2;

/// What a table holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// Chains without rules, whose policies accept.
    Nothing,
    Rules,
    /// The same in `filter`, where the policy of chain FORWARD does not accept.
    ForwardDrops,
}

/// What may drop or translate connections, and cannot be followed; a line for each family.
pub fn findings(config: &Config) -> impl Iterator<Item = Finding> {
    config.families().filter_map(|family| {
        let (file, program) = match family {
            Family::Ipv4 => ("ip_tables_names", "iptables-legacy"),
            Family::Ipv6 => ("ip6_tables_names", "ip6tables-legacy"),
        };
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let names = names.unwrap_or_default();
        // One that cannot be read may hold rules.
        let contents = |name| contents(family, name).unwrap_or(Contents::Rules);
        let tables = names.lines().map(|name| (name, contents(name)));
        let in_use: Vec<_> = tables.filter(|(_, held)| *held != Contents::Nothing).collect();
        if in_use.is_empty() {
            return None;
        }
        let text = format!(
            "not looked at: {program} has rules in {} over {family}, which nftables does not show and which may drop or translate what is to be forwarded: see {program}-save",
            first_few(in_use.iter().map(|(name, _)| name))
        );
        let drops = in_use.contains(&("filter", Contents::ForwardDrops));
        let command = drops.then(|| format!("{program} -I FORWARD {}", let_through(config, family)));
        let how = "; the policy of FORWARD drops what no rule accepts: let it through with";
        let finding = Finding::new(Level::Doubt, "iptables-legacy", text);
        Some(finding.mended(how, command))
    })
}

/// What a rule ends with that accepts what is forwarded over a family.
fn let_through(config: &Config, family: Family) -> String {
    let forwards = config.forwards.iter();
    let of_family = forwards.filter(|forward| forward.service.family == family);
    let first = |forward: &'_ Forward| forward.destinations.first().copied();
    let of_family = of_family.filter_map(|forward| Some((forward, first(forward)?)));
    fix::iptables(&of_family.collect::<Vec<_>>())
}

fn contents(family: Family, table: &str) -> io::Result<Contents> {
    let socket = open(family)?;
    let mut info = request(INFO, table)?;
    if let Err(error) = ask(&socket, family, SO_GET_INFO, &mut info) {
        // It is gone.
        return match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(Contents::Nothing),
            _ => Err(error),
        };
    }
    let number = |at: usize| word(&info, at).map(|word| word as usize);
    let hooks = number(VALID_HOOKS)?;
    // A policy for each hook, and the entry that ends the table.
    let mut held = if number(NUM_ENTRIES)? > hooks.count_ones() as usize + 1 {
        Contents::Rules
    } else {
        Contents::Nothing
    };
    let size = number(SIZE)?;
    let mut entries = request(ENTRIES + size, table)?;
    entries[NAME..NAME + 4].copy_from_slice(&(size as u32).to_ne_bytes());
    ask(&socket, family, SO_GET_ENTRIES, &mut entries)?;
    for hook in (0..HOOKS).filter(|hook| hooks >> hook & 1 == 1) {
        let entry = ENTRIES + number(UNDERFLOW + 4 * hook)?;
        // `target_offset` of `struct ipt_entry` and `struct ip6t_entry`.
        let at = entry + if family == Family::Ipv4 { 88 } else { 140 };
        let target = entries.get(at..).and_then(|rest| rest.first_chunk());
        let target = u16::from_ne_bytes(*target.ok_or(Errno::EINVAL)?);
        if word(&entries, entry + usize::from(target) + VERDICT)? as i32 != ACCEPT {
            if table == "filter" && hook == libc::NF_INET_FORWARD as usize {
                return Ok(Contents::ForwardDrops);
            }
            held = Contents::Rules;
        }
    }
    Ok(held)
}

fn open(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    };
    Ok(socket(
        family,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

/// So many bytes, of which the first are a table's name.
fn request(length: usize, table: &str) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let name = bytes[..NAME - 1].get_mut(..table.len());
    name.ok_or(Errno::EINVAL)?.copy_from_slice(table.as_bytes());
    Ok(bytes)
}

fn ask(socket: &OwnedFd, family: Family, option: libc::c_int, bytes: &mut [u8]) -> io::Result<()> {
    let level = match family {
        Family::Ipv4 => libc::IPPROTO_IP,
        Family::Ipv6 => libc::IPPROTO_IPV6,
    };
    read_option(socket.as_fd(), level, option, bytes)
}

/// A number in host byte order.
fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u32::from_ne_bytes(*word.ok_or(Errno::EINVAL)?))
}
