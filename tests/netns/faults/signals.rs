//! Signals by the hundred, of every kind that ends it, from the first moment to the last.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::lanes;
use crate::fixture::{Namespace, Nodefwd, Process, nodefwd};

/// How often it is started, and with how many signals at most: it ends before they do.
pub const STARTS: usize = 200;
const SIGNALS: usize = 500;

pub const ENDING: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// Ways to run that wait in different places.
fn call(start: usize) -> Nodefwd {
    let forward = "udp/53=10.2.0.11,fd00:2::11";
    match start % 3 {
        0 => nodefwd([forward]),
        1 => nodefwd([forward, "--drain=3600"]),
        _ => nodefwd([forward, "--owner=false"]),
    }
}

/// Sends one signal after the other until it has ended.
fn bombard(process: &mut Process, start: usize) {
    for number in 0..SIGNALS {
        // Multiples of a large prime, for gaps that are never the same, up to a quarter of a millisecond.
        let draw = (start * SIGNALS + number).wrapping_mul(2_654_435_761) >> 8;
        if !process.signal_if_running(ENDING[draw % ENDING.len()]) {
            return;
        }
        thread::sleep(Duration::from_micros(draw as u64 / 4 % 250));
    }
}

#[test]
fn from_when_it_minds_them_on_signals_end_it_cleanly() {
    let held: SigSet = ENDING.into_iter().collect();
    lanes(STARTS, |starts| {
        let node = Namespace::forwarding("node");
        for start in starts {
            // What comes before it minds signals waits until it does.
            let mut forwarder = call(start).spawn_holding(&node, &held);
            bombard(&mut forwarder, start);
            let outcome = forwarder.finish().expect_exit(0);
            for word in ["error", "panicked"] {
                assert!(!outcome.stderr.contains(word), "{outcome:?}");
            }
            assert_eq!(node.ruleset(), "", "start {start}");
        }
    });
}

/// Before the program's first instruction no signal can be minded: there one may end it, and nothing
/// was said or done.
#[test]
fn before_that_they_may_kill_it_and_nothing_was_done() {
    lanes(STARTS, |starts| {
        let node = Namespace::forwarding("node");
        for start in starts {
            let mut forwarder = call(start).spawn(&node);
            thread::sleep(Duration::from_micros(start as u64 % 64 * 50));
            bombard(&mut forwarder, start);
            let outcome = forwarder.finish();
            match outcome.status.signal() {
                Some(_) => assert_eq!(outcome.stderr, "", "{outcome:?}"),
                None => drop(outcome.expect_exit(0)),
            }
            assert_eq!(node.ruleset(), "", "start {start}");
        }
    });
}

/// How many calls to the kernel it makes until it is ready, at least, in two ways to run.
pub const CALLS: usize = 150;

/// The calls to the kernel until it is ready: the name of each, and how many of this name it is.
fn calls_until_ready(call: &Nodefwd, node: &Namespace, file: &Path) -> Vec<(String, usize)> {
    let output = format!("--output={}", file.display());
    let forwarder = call.clone().traced(&[&output]).start(node);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    let trace = fs::read_to_string(file).expect("a trace");
    let (until_ready, _) = trace.split_once("\"ready: ").expect("a line");
    let mut numbers = HashMap::new();
    let names = until_ready.lines().filter_map(|line| line.split_once('('));
    let calls = names.map(|(name, _)| {
        let number = numbers.entry(name).or_insert(0);
        *number += 1;
        (name.to_owned(), *number)
    });
    // The first one is its exec, which is strace's.
    calls.skip(1).collect()
}

/// One signal at each call to the kernel in turn: either it ends the program at once, before anything
/// was done, or it is minded in the end. It is never lost.
#[test]
fn a_signal_at_any_call_is_minded() {
    let mut tried = 0;
    for start in [0, 2] {
        let call = call(start);
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("signals{start}"));
        let calls = calls_until_ready(&call, &Namespace::forwarding("node"), &file);
        tried += calls.len();
        let minded = AtomicUsize::new(0);
        lanes(calls.len(), |places| {
            let node = Namespace::forwarding("node");
            for (name, number) in places.map(|place| &calls[place]) {
                let signal = format!("--inject={name}:signal=SIGTERM:when={number}");
                let trace = format!("--trace={name}");
                let traced = call
                    .clone()
                    .traced(&["--output=/dev/null", &trace, &signal]);
                let outcome = traced.finish(&node);
                match outcome.status.signal() {
                    Some(_) => assert_eq!(outcome.stderr, "", "{signal}: {outcome:?}"),
                    None => {
                        outcome.expect_exit(0);
                        minded.fetch_add(1, Ordering::Relaxed);
                    }
                }
                assert_eq!(node.ruleset(), "", "{signal}");
            }
        });
        let minded = minded.into_inner();
        assert!(minded > calls.len() / 3, "{minded} of {}", calls.len());
    }
    assert!(tried >= CALLS, "{tried}");
}
