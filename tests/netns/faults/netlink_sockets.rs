//! A process's netlink sockets as the kernel shows them, and a stranger's datagrams to them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{LIMIT, Process};

/// NETLINK_NETFILTER in linux/netlink.h
const NETFILTER: &str = "12";

/// A netlink socket to netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its port.
    pub port: u32,
    /// The groups that it listens to, a bit mask.
    pub groups: u32,
    /// Bytes in its queue.
    pub queued: u64,
    /// How many messages were lost.
    pub lost: u64,
}

/// All that a process has.
pub fn sockets(process: &Process) -> Vec<Socket> {
    let directory = format!("/proc/{}", process.id());
    let files = fs::read_dir(format!("{directory}/fd")).expect("its files");
    let inodes: Vec<String> = files
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .filter_map(|target| {
            let target = target.to_str()?.strip_prefix("socket:[")?;
            Some(target.strip_suffix(']')?.to_owned())
        })
        .collect();
    let list = fs::read_to_string(format!("{directory}/net/netlink")).expect("the sockets");
    let of_process = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        let [_, NETFILTER, port, groups, queued, _, _, _, lost, inode] = words[..] else {
            return None;
        };
        inodes.iter().find(|ours| *ours == inode)?;
        Some(Socket {
            port: port.parse().ok()?,
            groups: u32::from_str_radix(groups, 16).ok()?,
            queued: queued.parse().ok()?,
            lost: lost.parse().ok()?,
        })
    };
    list.lines().filter_map(of_process).collect()
}

/// Stops a process while `work` is done, in which it must lose messages.
pub fn while_stopped(process: &mut Process, work: impl FnOnce()) {
    process.signal(Signal::SIGSTOP);
    wait_until(|| state(process) == 'T');
    work();
    let sockets = sockets(process);
    assert!(sockets.iter().any(|socket| socket.lost > 0), "{sockets:?}");
    process.signal(Signal::SIGCONT);
}

/// As the kernel's scheduler has it: `T` is stopped.
fn state(process: &Process) -> char {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("its state");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    rest.chars().next().expect("a state")
}

/// Waits for something that must happen.
#[track_caller]
pub fn wait_until(happened: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !happened() {
        assert!(Instant::now() < deadline, "it does not happen");
        thread::sleep(Duration::from_millis(1));
    }
}
