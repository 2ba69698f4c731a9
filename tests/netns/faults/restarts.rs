//! A day in which an instance is restarted every minute and a half, beside others that run on: none of their
//! flows breaks or loses a packet, and nothing grows.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::signals::ENDING;
use super::{LANES, lanes};
use crate::fixture::{BACK, FRONT, forward_to};
use crate::fixture::{Count, Family, LIMIT, Namespace, Net, Process, Protocol, Stop, kinds};

/// Starts and stops.
pub const RESTARTS: usize = 1000;

/// Of so many, one has a flow, and one is killed: never the same.
const BUSY: usize = 4;
const KILLED: usize = 10;

/// How much memory an instance may have gained, in KiB: the heap's own bookkeeping.
const GROWTH: u64 = 64;

#[test]
fn a_day_of_restarts_breaks_no_flow_and_leaves_nothing() {
    let net = Net::new(1);
    // A flow that is left must not be forgotten for its age.
    for kind in ["udp_timeout", "udp_timeout_stream"] {
        let key = format!("net/netfilter/nf_conntrack_{kind}");
        net.node.set_sysctl(&key, "3600");
    }
    let _server = net.backends[0].serve(BACK);
    let siblings = siblings(&net);
    let counts: [Count; 4] = Default::default();
    thread::scope(|scope| {
        for ((protocol, family), count) in kinds().zip(&counts) {
            let net = &net;
            scope.spawn(move || exchange(net, protocol, family, count));
        }
        let _stop = Stop(counts.each_ref());
        // What is set up once is no growth.
        restart(&net, 3 * LANES);
        counts.iter().for_each(Count::expect_progress);
        let before = State::of(&net.node, &siblings);
        restart(&net, RESTARTS);
        before.kernel.expect_again(&net.node);
        let after = State::of(&net.node, &siblings);
        for (before, after) in before.siblings.iter().zip(&after.siblings) {
            assert_eq!(before.files, after.files);
            let grown = after.memory.saturating_sub(before.memory);
            assert!(grown <= GROWTH, "{grown} KiB: {before:?} {after:?}");
        }
        counts.iter().for_each(Count::expect_progress);
    });
    for sibling in siblings {
        sibling.stop(Signal::SIGTERM).expect_exit(0);
    }
    assert_eq!(net.node.ruleset(), "");
}

/// One whose table is its own, one that hears of every change of nftables, and one that hears of
/// every flow that ends.
fn siblings(net: &Net) -> Vec<Process> {
    let start = |(option, port): (&str, u16)| {
        let port = format!("--src-port={port}");
        let options = [option, "--dest-proto=tcp,udp", &port];
        let call = forward_to(Protocol::Tcp, &net.backends).args(&options);
        call.start(&net.node)
    };
    ["--owner=true", "--owner=false", "--drain=1"]
        .into_iter()
        .zip(FRONT..)
        .map(start)
        .collect()
}

/// Sends a packet, waits for its answer, and so on: one that is lost is missed. The backend sees the
/// same masqueraded port only as long as the flow is the same.
fn exchange(net: &Net, protocol: Protocol, family: Family, count: &Count) {
    let front = net.front(family, FRONT);
    let mut flow = net.client.connect(protocol, front).expect("a connection");
    let answer = flow.ask().expect("an answer");
    for number in count.numbers() {
        assert_eq!(flow.ask().expect("an answer"), answer);
        count.reach(number);
        // As much as the machine could do would only slow down other tests.
        thread::sleep(Duration::from_millis(5));
    }
}

/// Starts an instance on a port of its own, and stops it, so many times. Some have a flow, which is
/// ended with them; some are killed.
fn restart(net: &Net, count: usize) {
    lanes(count, |rounds| {
        for round in rounds {
            let port = 1000 + round as u16;
            let (killed, busy) = (round % KILLED == 1, round % BUSY == 0);
            let protocol = if busy { Protocol::Udp } else { Protocol::Tcp };
            let call = forward_to(protocol, &net.backends);
            let mut forwarder = call.args(&[&format!("--src-port={port}")]).start(&net.node);
            if killed {
                forwarder.signal(Signal::SIGKILL);
                forwarder.wait();
                continue;
            }
            if busy {
                let answer = net.client.request(protocol, net.front(Family::V4, port));
                assert_eq!(answer.expect("an answer").server, "backend-1");
            }
            forwarder.stop(ENDING[round % ENDING.len()]).expect_exit(0);
        }
    });
}

/// All that could grow.
#[derive(Debug)]
struct State {
    kernel: Kernel,
    siblings: Vec<Memory>,
}

/// What the kernel has for a network namespace.
#[derive(Debug, PartialEq, Eq)]
struct Kernel {
    ruleset: String,
    flows: String,
    netlink_sockets: usize,
    names: BTreeSet<String>,
}

/// What a process has.
#[derive(Debug)]
struct Memory {
    /// In KiB, what it has written.
    memory: u64,
    files: usize,
}

impl State {
    fn of(node: &Namespace, siblings: &[Process]) -> Self {
        State {
            kernel: Kernel::of(node),
            siblings: siblings.iter().map(Memory::of).collect(),
        }
    }
}

impl Kernel {
    fn of(node: &Namespace) -> Self {
        // This thread's namespace, not its process's.
        let list = |name: &str| {
            let path = format!("/proc/thread-self/net/{name}");
            node.run(|| fs::read_to_string(&path)).expect("a list")
        };
        let name = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
        let unix = list("unix");
        Kernel {
            ruleset: node.ruleset(),
            flows: node.succeed("conntrack", &["--count"]),
            netlink_sockets: list("netlink").lines().count(),
            names: unix
                .lines()
                .map(name)
                .filter(|name| name.starts_with('@'))
                .collect(),
        }
    }

    /// The kernel removes what a killed process had a moment later.
    fn expect_again(&self, node: &Namespace) {
        let deadline = Instant::now() + LIMIT;
        while Kernel::of(node) != *self {
            let found = Kernel::of(node);
            assert!(Instant::now() < deadline, "{self:?}\n{found:?}");
        }
    }
}

impl Memory {
    fn of(process: &Process) -> Self {
        let directory = format!("/proc/{}", process.id());
        let rollup = fs::read_to_string(format!("{directory}/smaps_rollup")).expect("its memory");
        let written = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Anonymous:"));
        let kilobytes = written.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok());
        Memory {
            memory: kilobytes.expect("a size"),
            files: fs::read_dir(format!("{directory}/fd"))
                .expect("its files")
                .count(),
        }
    }
}
