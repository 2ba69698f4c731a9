//! Which process has a socket open, as far as /proc shows it.

use nix::libc;
use serde::Serialize;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The socket that owns a table, and the process that has it open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The socket's netlink port.
    pub portid: u32,
    /// `None` if the process cannot be seen from here: in another container, for example.
    pub pid: Option<u32>,
    /// As /proc/PID/comm has it: at most 15 bytes.
    pub process: Option<String>,
    /// When the process started, in seconds since 1970.
    pub since: Option<u64>,
}

/// Ticks of /proc/PID/stat in a second: `USER_HZ` is 100 on every architecture that Rust's std
/// supports with Linux (proc_pid_stat(5), sysconf(_SC_CLK_TCK)).
const TICKS_PER_SECOND: u64 = 100;

/// The owner of the netfilter socket with this netlink port.
pub fn owner(port: u32) -> Owner {
    Owners::default().find(port)
}

/// The owners of several sockets: all processes are gone through once at most.
#[derive(Default)]
pub struct Owners(OnceCell<HashMap<u32, u32>>);

impl Owners {
    /// The owner of the netfilter socket with this netlink port. The port is often the process's id, but not
    /// always: as the owner's own PID namespace has it, and only for a process's first netlink socket
    /// (netlink_autobind in net/netlink/af_netlink.c). So the process is looked up by its socket.
    pub fn find(&self, port: u32) -> Owner {
        let inode = socket_inode(port);
        let pid = inode.and_then(|inode| self.holder(inode, port));
        Owner {
            portid: port,
            pid,
            process: pid.and_then(name),
            since: pid.and_then(since),
        }
    }

    fn holder(&self, inode: u32, likely: u32) -> Option<u32> {
        if open_sockets(likely).any(|open| open == inode) {
            return Some(likely);
        }
        let all = || {
            let sockets = |pid| open_sockets(pid).map(move |inode| (inode, pid));
            processes().flat_map(sockets).collect()
        };
        self.0.get_or_init(all).get(&inode).copied()
    }
}

/// The user who runs a process, if it can be seen.
pub fn user(pid: u32) -> Option<u32> {
    let metadata = fs::metadata(directory(pid)).ok()?;
    Some(metadata.uid())
}

/// Whether a process has the netfilter socket with this netlink port open; `None` if that cannot be seen.
pub fn has_socket(pid: u32, port: u32) -> Option<bool> {
    let inode = socket_inode(port)?;
    fs::read_dir(directory(pid).join("fd")).ok()?;
    Some(open_sockets(pid).any(|open| open == inode))
}

/// Whether a process has CAP_NET_ADMIN, in whatever user namespace; `None` if it cannot be seen.
pub fn has_net_admin(pid: u32) -> Option<bool> {
    const CAP_NET_ADMIN: u32 = 12;
    let status = fs::read(directory(pid).join("status")).ok()?;
    // The kernel escapes line breaks in the name (proc_task_name in fs/proc/array.c).
    let mut lines = status.split(|byte| *byte == b'\n');
    let effective = lines.find_map(|line| line.strip_prefix(b"CapEff:\t"))?;
    let effective = u64::from_str_radix(std::str::from_utf8(effective).ok()?, 16).ok()?;
    Some(effective & 1 << CAP_NET_ADMIN != 0)
}

/// The socket's inode, out of the list of this network namespace's netlink sockets, which holds numbers only.
fn socket_inode(port: u32) -> Option<u32> {
    let list = fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
    inode_in(&list, port)
}

fn inode_in(list: &str, port: u32) -> Option<u32> {
    list.lines().skip(1).find_map(|line| {
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        let mut columns = line.split_ascii_whitespace().skip(1);
        let netfilter = columns.next()?.parse() == Ok(libc::NETLINK_NETFILTER);
        let this = columns.next()?.parse() == Ok(port);
        (netfilter && this).then(|| columns.last()?.parse().ok())?
    })
}

/// The process that has the socket with this inode open, if it can be seen.
pub fn holder(inode: u32) -> Option<u32> {
    processes().find(|pid| open_sockets(*pid).any(|open| open == inode))
}

/// The processes that have the sockets with these inodes open, as far as they can be seen: /proc is gone
/// through once, as long as `goes_on` says so.
pub fn holders(inodes: &HashSet<u32>, goes_on: &dyn Fn() -> bool) -> HashMap<u32, u32> {
    let mut found = HashMap::new();
    for pid in processes() {
        for inode in open_sockets(pid) {
            if found.len() == inodes.len() || !goes_on() {
                return found;
            }
            if inodes.contains(&inode) {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    found
}

/// All processes that can be seen.
fn processes() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The inodes of the sockets that a process has open.
fn open_sockets(pid: u32) -> impl Iterator<Item = u32> {
    let files = fs::read_dir(directory(pid).join("fd"));
    let files = files.into_iter().flatten().flatten();
    files.filter_map(|file| socket_of(&fs::read_link(file.path()).ok()?))
}

/// The inode in the link to a socket.
fn socket_of(link: &Path) -> Option<u32> {
    let inode = link.to_str()?.strip_prefix("socket:[")?;
    inode.strip_suffix(']')?.parse().ok()
}

fn directory(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// A process's name, if it can be seen.
pub fn name(pid: u32) -> Option<String> {
    let name = fs::read(directory(pid).join("comm")).ok()?;
    let name = String::from_utf8_lossy(&name);
    Some(name.strip_suffix('\n').unwrap_or(&name).to_owned())
}

/// When the process started, in seconds since 1970.
fn since(pid: u32) -> Option<u64> {
    // The name in it may hold any bytes.
    let stat = fs::read(directory(pid).join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let age = uptime_ticks(&uptime)?.checked_sub(start_ticks(&stat)?)?;
    Some(start(now, age))
}

/// When a process of this age started, to the nearest second.
fn start(now: Duration, age_ticks: u64) -> u64 {
    let age = Duration::from_millis(age_ticks * (1000 / TICKS_PER_SECOND));
    (now.saturating_sub(age) + Duration::from_millis(500)).as_secs()
}

/// The first field of /proc/uptime: seconds, with two decimals, which makes them ticks.
fn uptime_ticks(uptime: &str) -> Option<u64> {
    let (seconds, hundredths) = uptime.split_ascii_whitespace().next()?.split_once('.')?;
    let ticks = seconds.parse::<u64>().ok()? * TICKS_PER_SECOND;
    Some(ticks + hundredths.parse::<u64>().ok()?)
}

/// The field `starttime`, the 22nd; the 2nd, a name in parentheses, may hold anything.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_protocol_and_port() {
        let list = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   4242       00000000 0        0        0     2        0        11
0000000000000000 12  4242       00000000 0        0        0     2        0        22
0000000000000000 12  4294963200 00000000 0        0        0     2        0        33
";
        assert_eq!(inode_in(list, 4242), Some(22));
        assert_eq!(inode_in(list, 4_294_963_200), Some(33));
        assert_eq!(inode_in(list, 1), None);
        assert_eq!(inode_in("", 1), None);
    }

    #[test]
    fn the_start_is_rounded_once_to_the_nearest_second() {
        let now = Duration::from_millis(1_700_000_010_900);
        let uptime = uptime_ticks("12345.05 99.99\n").unwrap();
        assert_eq!(uptime, 1_234_505);
        assert_eq!(start(now, uptime - 1_233_505), 1_700_000_001);
        assert_eq!(start(now, 49), 1_700_000_010);
        assert_eq!(start(now, 0), 1_700_000_011);
    }

    #[test]
    fn the_start_is_found_after_any_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("4242 (a ) b) {}", fields.join(" "));
        assert_eq!(start_ticks(&stat), Some(22));
        assert_eq!(start_ticks("4242 (cut"), None);
    }
}
