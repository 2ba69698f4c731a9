//! As many restarts as in a day with one every minute and a half, beside instances that run on: none
//! of their flows loses a packet, and nothing grows.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{THREADS, in_parallel};
use crate::fixture::{
    BACKEND_PORT, ENDING_SIGNALS, FORWARDED_PORT, Family, Namespace, Net, PROTOCOLS_AND_FAMILIES,
    Process, Progress, Protocol, StopOnDrop, forward_to, wait_until, without_programs,
};

/// Starts and stops.
pub const RESTARTS: usize = 1000;

/// One of so many has a flow, and one of so many is killed; never the same one.
const BUSY: usize = 4;
const KILLED: usize = 10;

/// How much memory an instance may have gained, in KiB: the heap's own bookkeeping.
const GROWTH: u64 = 64;

#[test]
fn a_thousand_restarts_break_no_flow_of_other_instances_and_leave_nothing() {
    let net = Net::new(1);
    // So that an entry that is left is seen.
    net.node.keep_udp_entries();
    let _servers = net.serve(BACKEND_PORT);
    let siblings = siblings(&net);
    let progress: [Progress; 4] = Default::default();
    thread::scope(|scope| {
        for ((protocol, family), progress) in PROTOCOLS_AND_FAMILIES.into_iter().zip(&progress) {
            let net = &net;
            scope.spawn(move || exchange_packets(net, protocol, family, progress));
        }
        let _stop = StopOnDrop(progress.each_ref());
        // What the first restarts set up once is no growth.
        restart(&net, 3 * THREADS);
        progress.iter().for_each(Progress::wait_for_progress);
        let before = State::of(&net.node, &siblings);
        restart(&net, RESTARTS);
        before.kernel.wait_for_return(&net.node);
        let after = State::of(&net.node, &siblings);
        for (before, after) in before.siblings.iter().zip(&after.siblings) {
            assert_eq!(before.files, after.files);
            let grown = after.memory.saturating_sub(before.memory);
            assert!(grown <= GROWTH, "{grown} KiB: {before:?} {after:?}");
        }
        progress.iter().for_each(Progress::wait_for_progress);
    });
    for sibling in siblings {
        sibling.stop(Signal::SIGTERM).expect_exit(0);
    }
    assert_eq!(net.node.ruleset(), "");
}

/// One with the owner flag, one that receives the events of nftables, and one that receives the events
/// of conntrack.
fn siblings(net: &Net) -> Vec<Process> {
    let start = |(option, port): (&str, u16)| {
        let port = format!("--src-port={port}");
        let options = [option, "--dest-proto=tcp,udp", &port];
        let call = forward_to(Protocol::Tcp, &net.backends).args(&options);
        call.start(&net.node)
    };
    ["--owner=true", "--owner=false", "--drain=1"]
        .into_iter()
        .zip(FORWARDED_PORT..)
        .map(start)
        .collect()
}

/// Makes one request after the other on one flow, none of which may be lost.
fn exchange_packets(net: &Net, protocol: Protocol, family: Family, progress: &Progress) {
    let node_addr = net.node_addr(family, FORWARDED_PORT);
    let mut flow = net.client.live_flow(protocol, node_addr);
    for number in progress.numbers() {
        flow.expect_unchanged();
        progress.reach(number);
        // As much as the machine could do would only slow down other tests.
        thread::sleep(Duration::from_millis(5));
    }
}

/// Starts and stops so many instances, each on a port of its own. Some have a flow, which is deleted at
/// their stop; some are killed.
fn restart(net: &Net, count: usize) {
    in_parallel(count, |rounds| {
        for round in rounds {
            let port = 1000 + round as u16;
            let (killed, busy) = (round % KILLED == 1, round % BUSY == 0);
            let protocol = if busy { Protocol::Udp } else { Protocol::Tcp };
            let call = forward_to(protocol, &net.backends);
            let call = call.args(&[&format!("--src-port={port}")]);
            let forwarder = call.start(&net.node);
            if killed {
                forwarder.stop(Signal::SIGKILL);
                continue;
            }
            if busy {
                let reply = net
                    .client
                    .request(protocol, net.node_addr(Family::V4, port));
                assert_eq!(reply.expect("a reply").server, "backend-1");
            }
            forwarder
                .stop(ENDING_SIGNALS[round % ENDING_SIGNALS.len()])
                .expect_exit(0);
        }
    });
}

/// What could grow.
#[derive(Debug)]
struct State {
    kernel: Kernel,
    siblings: Vec<Usage>,
}

/// What the kernel has for a network namespace.
#[derive(Debug, PartialEq, Eq)]
struct Kernel {
    /// In whatever order: that of an instance without the owner flag is installed again if the kernel drops events.
    tables: BTreeSet<String>,
    conntrack_entries: String,
    netlink_sockets: usize,
    names: BTreeSet<String>,
}

/// What a process has.
#[derive(Debug)]
struct Usage {
    /// What it has written to memory, in KiB.
    memory: u64,
    files: usize,
}

impl State {
    fn of(node: &Namespace, siblings: &[Process]) -> Self {
        State {
            kernel: Kernel::of(node),
            siblings: siblings.iter().map(Usage::of).collect(),
        }
    }
}

impl Kernel {
    fn of(node: &Namespace) -> Self {
        // The namespace of this thread, not that of its process.
        let list = |name: &str| {
            let path = format!("/proc/thread-self/net/{name}");
            node.run(|| fs::read_to_string(&path)).expect("a list")
        };
        let name = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
        let unix = list("unix");
        let ruleset = without_programs(&node.ruleset());
        Kernel {
            tables: ruleset.split("\n}").map(String::from).collect(),
            conntrack_entries: node.succeed("conntrack", &["--count"]),
            netlink_sockets: list("netlink").lines().count(),
            names: unix
                .lines()
                .map(name)
                .filter(|name| name.starts_with('@'))
                .collect(),
        }
    }

    /// Waits until the kernel has this again. It removes what a killed process had a moment later.
    #[track_caller]
    fn wait_for_return(&self, node: &Namespace) {
        let awaited = format!("{self:#?}");
        wait_until(&awaited, || Kernel::of(node), |found| found == self);
    }
}

impl Usage {
    fn of(process: &Process) -> Self {
        Usage {
            memory: process.written_memory(),
            files: process.open_files().len(),
        }
    }
}
