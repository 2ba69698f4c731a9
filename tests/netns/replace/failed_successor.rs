//! New ones that do not get as far as replacing: the old one goes on as if nothing had happened.

use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::{forward_both, replacing, rules};
use crate::fixture::{Answer, Connection, Family, LIMIT, Net, Nodefwd, Process, Protocol, nodefwd};
use crate::fixture::{BACK, FRONT};

/// A running instance with a live flow.
struct Old<'a> {
    net: &'a Net,
    process: Process,
    rules: String,
    flow: (Connection, Answer),
}

impl<'a> Old<'a> {
    fn start(net: &'a Net, call: &Nodefwd) -> Self {
        let process = call.start(&net.node);
        let front = net.front(Family::V4, FRONT);
        let mut flow = net.client.connect(Protocol::Tcp, front).expect("a flow");
        let answer = flow.ask().expect("an answer");
        Old {
            net,
            process,
            rules: rules(&net.node),
            flow: (flow, answer),
        }
    }

    #[track_caller]
    fn expect_undisturbed(&mut self) {
        let (flow, answer) = &mut self.flow;
        assert_eq!(flow.ask().expect("an answer"), *answer);
        for protocol in Protocol::BOTH {
            for family in Family::BOTH {
                let front = self.net.front(family, FRONT);
                let answer = self.net.client.request(protocol, front);
                assert_eq!(answer.expect("an answer").server, "backend-1");
            }
        }
        assert_eq!(rules(&self.net.node), self.rules);
    }
}

#[test]
fn one_that_is_refused_leaves_the_old_one_alone() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    let _sibling = nodefwd(["--name=sibling", "tcp/100=10.2.1.2"]).start(&net.node);
    let call = forward_both(backend);
    let mut old = Old::start(&net, &call);
    let handles = || net.node.succeed("nft", &["-as", "list", "ruleset"]);
    let before = handles();
    let taken = call
        .clone()
        .env("SRC_PORT", "100-110")
        .env("DEST_PORT", "100-110");
    for (call, problem) in [
        (taken, "is already forwarded by table inet nodefwd-sibling"),
        (call.without_net_admin(), "CAP_NET_ADMIN is missing"),
    ] {
        let stderr = replacing(&call).finish(&net.node).expect_exit(1).stderr;
        assert!(stderr.contains(problem), "{stderr}");
        old.expect_undisturbed();
        // Not even put back.
        assert_eq!(handles(), before);
    }
    let said = "not replaced, going on: the new process has ended before it was ready";
    assert_eq!(old.process.stderr().matches(said).count(), 2);
    old.process.stop(Signal::SIGTERM).expect_exit(0);
}

/// How many are killed, each at another moment, from before its first instruction until after it is
/// ready.
const KILLED: u32 = 60;

/// Whoever dies when: afterwards the old one runs with its rules, or it has left because the new one
/// had taken over. Never are there both, or rules of the one with the process of the other.
fn one_that_is_killed(owner: &str) {
    let net = Net::new(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    let call = forward_both(&net.backends[0]).args(&[owner]);
    let other = replacing(&forward_both(&net.backends[1])).args(&[owner]);
    let begin = Instant::now();
    call.start(&net.node).stop(Signal::SIGTERM).expect_exit(0);
    let longest = begin.elapsed();

    let mut old = Old::start(&net, &call);
    for moment in 0..KILLED {
        let mut new = other.spawn(&net.node);
        thread::sleep(longest * moment / KILLED);
        new.signal(Signal::SIGKILL);
        new.wait();
        if old.is_settled() {
            old.expect_undisturbed();
        } else {
            let stderr = old.process.finish().expect_exit(0).stderr;
            assert!(stderr.contains("replaced by process"), "{stderr}");
            old = Old::start(&net, &replacing(&call));
        }
    }
    old.process.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

impl Old<'_> {
    /// Waits until it has its rules again, or has ended; says whether it still runs.
    fn is_settled(&mut self) -> bool {
        let deadline = Instant::now() + LIMIT;
        loop {
            let restored = rules(&self.net.node) == self.rules;
            if !self.process.is_running() {
                return false;
            }
            if restored {
                return true;
            }
            assert!(Instant::now() < deadline, "{}", rules(&self.net.node));
        }
    }
}

#[test]
fn one_that_is_killed_leaves_the_old_one_alone() {
    one_that_is_killed("--owner=true");
}

#[test]
fn so_does_one_without_an_owner() {
    one_that_is_killed("--owner=false");
}

/// Where a new one is held up until the old one has waited long enough: it has just been given the
/// sockets, or it has just made sure that the old one waits, and is about to send its rules.
const HELD_UP: [&str; 2] = ["recvmsg", "recvfrom"];

fn one_that_comes_too_late(owner: &str, call: &str) {
    let net = Net::new(2);
    let _server = net.backends[0].serve(BACK);
    let mut old = Old::start(&net, &forward_both(&net.backends[0]).args(&[owner]));
    let stop = format!("--inject={call}:signal=SIGSTOP:when=1");
    let trace = format!("--trace={call}");
    let other = replacing(&forward_both(&net.backends[1])).args(&[owner]);
    let mut new = other
        .traced(&["--output=/dev/null", &trace, &stop])
        .spawn(&net.node);
    old.process
        .wait_for_line("warning: not replaced, going on: the new process was not ready");
    new.signal(Signal::SIGCONT);
    let stderr = new.finish().expect_exit(1).stderr;
    let said = "it has waited 10s for this one and goes on";
    assert!(stderr.contains(said), "{stderr}");
    old.expect_undisturbed();
    old.process.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn one_that_comes_too_late_leaves_the_old_one_alone() {
    thread::scope(|scope| {
        for owner in ["--owner=true", "--owner=false"] {
            for call in HELD_UP {
                scope.spawn(move || one_that_comes_too_late(owner, call));
            }
        }
    });
}
