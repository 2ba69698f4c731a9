//! The netlink sockets of a process, as /proc/net/netlink lists them.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::fixture::{Process, proc_file, wait_until};

/// What a netlink socket is connected to (linux/netlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    Route,
    Netfilter,
}

/// A netlink socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    pub subsystem: Subsystem,
    /// Its port id.
    pub port: u32,
    /// The multicast groups that it receives, as a bit mask.
    pub groups: u32,
    /// Bytes in its queue.
    pub queued: u64,
    /// How many messages were lost.
    pub lost: u64,
}

/// Those of a process.
pub fn sockets(process: &Process) -> Vec<Socket> {
    let files = process.open_files().into_iter();
    let inode = |file: PathBuf| {
        let inode = file.to_str()?.strip_prefix("socket:[")?;
        Some(inode.strip_suffix(']')?.to_owned())
    };
    let inodes: Vec<String> = files.filter_map(|(_, file)| inode(file)).collect();
    let list = proc_file(process.id(), "net/netlink");
    let of_process = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        let [_, subsystem, port, groups, queued, _, _, _, lost, inode] = words[..] else {
            return None;
        };
        inodes.iter().find(|ours| *ours == inode)?;
        Some(Socket {
            subsystem: match subsystem {
                "0" => Subsystem::Route,
                "12" => Subsystem::Netfilter,
                _ => return None,
            },
            port: port.parse().ok()?,
            groups: u32::from_str_radix(groups, 16).ok()?,
            queued: queued.parse().ok()?,
            lost: lost.parse().ok()?,
        })
    };
    list.lines().filter_map(of_process).collect()
}

/// Stops a process while `work` is done, which must overrun one of its sockets.
pub fn while_stopped(process: &mut Process, work: impl FnOnce()) {
    process.signal(Signal::SIGSTOP);
    wait_until(
        "a stopped process",
        || state(process),
        |state| *state == 'T',
    );
    work();
    let sockets = sockets(process);
    assert!(sockets.iter().any(|socket| socket.lost > 0), "{sockets:?}");
    process.signal(Signal::SIGCONT);
}

/// The state of a process in /proc/PID/stat: `T` is stopped.
fn state(process: &Process) -> char {
    let stat = proc_file(process.id(), "stat");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    rest.chars().next().expect("a state")
}
