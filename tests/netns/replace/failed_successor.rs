//! Successors that fail before they have taken over: the predecessor goes on as if they had not been
//! started.

use std::fs;
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::{forward_both, replacing};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, LiveFlow, Net, Nodefwd, PROTOCOLS_AND_FAMILIES, Process,
    Protocol, TempFile, expect_parts, nodefwd, wait_until,
};

/// A running instance with a live flow.
struct Predecessor<'a> {
    net: &'a Net,
    process: Process,
    rules: String,
    flow: LiveFlow,
}

impl<'a> Predecessor<'a> {
    fn start(net: &'a Net, call: &Nodefwd) -> Self {
        let process = call.start(&net.node);
        let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
        Predecessor {
            net,
            process,
            rules: net.node.rules(),
            flow: net.client.live_flow(Protocol::Tcp, node_addr),
        }
    }

    #[track_caller]
    fn expect_undisturbed(&mut self) {
        self.flow.expect_unchanged();
        for (protocol, family) in PROTOCOLS_AND_FAMILIES {
            let node_addr = self.net.node_addr(family, FORWARDED_PORT);
            let reply = self.net.client.request(protocol, node_addr);
            assert_eq!(reply.expect("a reply").server, "backend-1");
        }
        assert_eq!(self.net.node.rules(), self.rules);
    }

    /// Waits until it either has its rules in the kernel again or has ended; says whether it runs.
    #[track_caller]
    fn is_running_after_recovery(&mut self) -> bool {
        let (node, process) = (&self.net.node, &mut self.process);
        // The rules first: as long as it runs they may still change.
        let state = || (node.rules(), process.is_running());
        let is_settled = |(rules, running): &(String, bool)| !running || *rules == self.rules;
        let (_, running) = wait_until("the predecessor's rules, or its end", state, is_settled);
        running
    }
}

#[test]
fn a_successor_that_is_rejected_leaves_the_predecessor_alone() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let _sibling = nodefwd(["--name=sibling", "tcp/100=10.2.1.2"]).start(&net.node);
    let call = forward_both(&net.backends[0]);
    let mut predecessor = Predecessor::start(&net, &call);
    let handles = || net.node.succeed("nft", &["-as", "list", "ruleset"]);
    let before = handles();
    let conflicting = call
        .clone()
        .env("SRC_PORT", "100-110")
        .env("DEST_PORT", "100-110");
    for (call, problem) in [
        (
            conflicting,
            "is already forwarded by table inet nodefwd-sibling",
        ),
        (call.without_net_admin(), "CAP_NET_ADMIN is missing"),
    ] {
        let stderr = replacing(&call).finish(&net.node).expect_exit(1).stderr;
        expect_parts(&stderr, [problem]);
        predecessor.expect_undisturbed();
        // The rules were not even installed again.
        assert_eq!(handles(), before);
    }
    let message = "not replaced, going on: the new process has ended before it was ready";
    let stderr = predecessor.process.stderr();
    // The other one has not even proved that it may replace it.
    assert_eq!(stderr.matches(message).count(), 1, "{stderr}");
    predecessor.process.stop(Signal::SIGTERM).expect_exit(0);
}

/// How many successors are killed, each at another moment, from before its first instruction until
/// after it is ready.
const KILLS: u32 = 60;

/// Whenever the successor dies: afterwards the predecessor runs with its own rules, or it has ended
/// because the successor had taken over. Never do both run, nor one with the rules of the other.
fn a_successor_is_killed(owner: &str) {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let call = forward_both(&net.backends[0]).args(&[owner]);
    let other = replacing(&forward_both(&net.backends[1])).args(&[owner]);
    let begin = Instant::now();
    call.start(&net.node).stop(Signal::SIGTERM).expect_exit(0);
    let longest = begin.elapsed();

    let mut predecessor = Predecessor::start(&net, &call);
    for number in 0..KILLS {
        let successor = other.spawn(&net.node);
        thread::sleep(longest * number / KILLS);
        successor.stop(Signal::SIGKILL);
        if predecessor.is_running_after_recovery() {
            predecessor.expect_undisturbed();
        } else {
            let stderr = predecessor.process.finish().expect_exit(0).stderr;
            expect_parts(&stderr, ["replaced by process"]);
            predecessor = Predecessor::start(&net, &replacing(&call));
        }
    }
    predecessor.process.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn a_successor_killed_at_any_moment_leaves_the_predecessor_alone_or_has_replaced_it() {
    a_successor_is_killed("--owner=true");
}

#[test]
fn without_the_owner_flag_a_killed_successor_leaves_the_predecessor_alone_or_has_replaced_it() {
    a_successor_is_killed("--owner=false");
}

/// Where a successor is stopped until the predecessor no longer waits.
#[derive(Clone, Copy)]
enum StoppedAt {
    /// It has received the sockets.
    Sockets,
    /// It has seen that the predecessor waits, and is about to send its rules.
    Permission,
    /// It has sent them, and has not read the replies of the kernel.
    Rules,
}

/// recv(2): on i386 a system call of its own, elsewhere recvfrom(2) without an address.
const RECEIVE: &str = "/^recv(from)?$";

impl StoppedAt {
    /// The system call, and how many of them there have been.
    fn call(self, rules_sent_at: usize) -> (&'static str, usize) {
        match self {
            StoppedAt::Sockets => ("dup3", 1),
            StoppedAt::Permission => (RECEIVE, 2),
            StoppedAt::Rules => ("sendto", rules_sent_at),
        }
    }
}

/// Has a successor replace an instance; gives the number of the system call `sendto` that sent its rules: the
/// first after it has seen that the predecessor waits.
fn rules_sent_at(net: &Net, predecessor: &Nodefwd, successor: &Nodefwd) -> usize {
    let trace = TempFile::new("");
    let output = format!("--output={}", trace.path().display());
    let running = predecessor.start(&net.node);
    let calls = format!("--trace={RECEIVE},sendto");
    let traced = successor.clone().traced(&[&calls, &output]);
    let replaced_it = traced.start(&net.node);
    running.finish().expect_exit(0);
    replaced_it.stop(Signal::SIGTERM).expect_exit(0);
    let trace = fs::read_to_string(trace.path()).expect("a trace");
    let calls = trace.lines().map(|line| line.starts_with("recv"));
    let (mut received, mut sent) = (0, 0);
    for is_receive in calls {
        received += usize::from(is_receive);
        sent += usize::from(!is_receive);
        if received == 2 && !is_receive {
            break;
        }
    }
    sent
}

fn a_successor_is_late(owner: &str, stopped_at: StoppedAt) {
    let net = Net::new(2);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let with_owner = forward_both(&net.backends[0]).args(&[owner]);
    let other = replacing(&forward_both(&net.backends[1])).args(&[owner]);
    let (call, number) = stopped_at.call(rules_sent_at(&net, &with_owner, &other));
    let mut predecessor = Predecessor::start(&net, &with_owner);
    let stop = format!("--inject={call}:signal=SIGSTOP:when={number}");
    let trace = format!("--trace={call}");
    let mut successor = other
        .traced(&["--output=/dev/null", &trace, &stop])
        .spawn(&net.node);
    let warning = "warning: not replaced, going on: the new process was not ready";
    predecessor.process.wait_for_line(warning);
    successor.signal(Signal::SIGCONT);
    let stderr = successor.finish().expect_exit(1).stderr;
    let message = "the running instance waited 10s for this process and keeps its rules";
    expect_parts(&stderr, [message]);
    predecessor.expect_undisturbed();
    predecessor.process.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn a_successor_that_is_late_leaves_the_predecessor_alone() {
    use StoppedAt::{Permission, Rules, Sockets};
    thread::scope(|scope| {
        for owner in ["--owner=true", "--owner=false"] {
            for stopped_at in [Sockets, Permission, Rules] {
                scope.spawn(move || a_successor_is_late(owner, stopped_at));
            }
        }
    });
}
