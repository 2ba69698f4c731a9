//! Which process owns a table, as far as /proc shows it.

use super::Owner;
use std::fs;
use std::path::{Path, PathBuf};

/// linux/netlink.h: `NETLINK_NETFILTER`
const NETLINK_NETFILTER: &str = "12";

/// Ticks of /proc/PID/stat in a second: `USER_HZ` is 100 on every architecture that Rust's std
/// supports with Linux (proc_pid_stat(5), sysconf(_SC_CLK_TCK)).
const TICKS_PER_SECOND: u64 = 100;

/// The owner of the socket with this netlink port. The port is the process's number often, but not
/// always: it is seen from the owner's own PID namespace, and only a process's first netlink socket
/// gets it (netlink_autobind in net/netlink/af_netlink.c). So the process is looked up by its
/// socket.
pub fn find(port: u32) -> Owner {
    let pid = socket_inode(port).and_then(|inode| holder(port, &format!("socket:[{inode}]")));
    Owner {
        port,
        pid,
        process: pid.and_then(name),
        since: pid.and_then(since),
    }
}

/// The socket's number, out of the list of this network namespace's netlink sockets.
fn socket_inode(port: u32) -> Option<String> {
    let list = fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
    inode_in(&list, port).map(str::to_owned)
}

fn inode_in(list: &str, port: u32) -> Option<&str> {
    list.lines().skip(1).find_map(|line| {
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        let mut columns = line.split_ascii_whitespace().skip(1);
        let netfilter = columns.next()? == NETLINK_NETFILTER;
        let this = columns.next()?.parse() == Ok(port);
        (netfilter && this).then(|| columns.last()).flatten()
    })
}

/// The process that has this socket open, among those that can be seen; the one of this number
/// first, which is likely.
pub fn holder(port: u32, socket: &str) -> Option<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut processes = [port].into_iter().chain(all);
    processes.find(|pid| holds(*pid, socket))
}

fn holds(pid: u32, socket: &str) -> bool {
    let files = fs::read_dir(process(pid).join("fd")).into_iter().flatten();
    let mut links = files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok());
    links.any(|link| link == Path::new(socket))
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// What a process is called, if it can be seen.
pub fn name(pid: u32) -> Option<String> {
    let name = fs::read_to_string(process(pid).join("comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// When the process started, in seconds since 1970.
fn since(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(process(pid).join("stat")).ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<u64>().ok()? + start_ticks(&stat)? / TICKS_PER_SECOND)
}

/// The field `starttime`, the 22nd; the 2nd, a name in parentheses, may hold anything.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, behind_the_name) = stat.rsplit_once(')')?;
    behind_the_name
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
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
        assert_eq!(inode_in(list, 4242), Some("22"));
        assert_eq!(inode_in(list, 4_294_963_200), Some("33"));
        assert_eq!(inode_in(list, 1), None);
        assert_eq!(inode_in("", 1), None);
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("4242 (a ) b) {}", fields.join(" "));
        assert_eq!(start_ticks(&stat), Some(22));
        assert_eq!(start_ticks("4242 (cut"), None);
    }
}
