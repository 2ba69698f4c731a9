//! Hundreds of ending signals, from its first moment to its last.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;

use super::in_parallel;
use super::trace::Trace;
use crate::fixture::{ENDING_SIGNALS, Namespace, Nodefwd, Process, nodefwd};

/// How often it is started, and with how many signals at most; it ends before the last one.
pub const STARTS: usize = 200;
pub const SIGNALS: usize = 500;

/// Ways to run that wait in different places.
fn call(start: usize) -> Nodefwd {
    let forward = "udp/53=10.2.0.11,fd00:2::11";
    match start % 3 {
        0 => nodefwd([forward]),
        1 => nodefwd([forward, "--drain=3600"]),
        _ => nodefwd([forward, "--owner=false"]),
    }
}

/// Sends signals until it has ended.
fn send_signals(process: &mut Process, start: usize) {
    for number in 0..SIGNALS {
        // Multiples of a large prime, for different pauses of up to a quarter of a millisecond.
        let draw = (start * SIGNALS + number).wrapping_mul(2_654_435_761) >> 8;
        if !process.signal_if_running(ENDING_SIGNALS[draw % ENDING_SIGNALS.len()]) {
            return;
        }
        thread::sleep(Duration::from_micros(draw as u64 / 4 % 250));
    }
}

#[test]
fn signals_after_registration_end_it_with_status_0() {
    let blocked: SigSet = ENDING_SIGNALS.into_iter().collect();
    in_parallel(STARTS, |starts| {
        let node = Namespace::forwarding("node");
        for start in starts {
            // A signal before that is pending until it handles signals.
            let mut forwarder = call(start).spawn_with_blocked(&node, &blocked);
            send_signals(&mut forwarder, start);
            let outcome = forwarder.finish().expect_exit(0);
            for word in ["error", "panicked"] {
                assert!(!outcome.stderr.contains(word), "{outcome:?}");
            }
            assert_eq!(node.ruleset(), "", "start {start}");
        }
    });
}

/// Before the program's first instructions the kernel's default is to kill it.
#[test]
fn a_signal_before_registration_kills_it_before_it_changes_anything() {
    in_parallel(STARTS, |starts| {
        let node = Namespace::forwarding("node");
        for start in starts {
            let mut forwarder = call(start).spawn(&node);
            thread::sleep(Duration::from_micros(start as u64 % 64 * 50));
            send_signals(&mut forwarder, start);
            let outcome = forwarder.finish();
            if outcome.status.signal().is_some() {
                assert_eq!(outcome.stderr, "", "{outcome:?}");
            } else {
                outcome.expect_exit(0);
            }
            assert_eq!(node.ruleset(), "", "start {start}");
        }
    });
}

/// How many system calls it makes at least until it is ready, in two ways to run.
pub const CALLS: usize = 150;

/// The system calls until it is ready: the name of each, and how many of this name it is.
fn calls_until_ready(call: &Nodefwd, name: &str) -> Vec<(String, usize)> {
    let trace = Trace::of(call, &[], name);
    let mut numbers = HashMap::new();
    let lines = trace.until_ready.lines();
    let names = lines.filter_map(|line| line.split_once('('));
    let calls = names.map(|(name, _)| {
        let number = numbers.entry(name).or_insert(0);
        *number += 1;
        (name.to_owned(), *number)
    });
    // The first one is strace's exec.
    calls.skip(1).collect()
}

/// One signal at each system call in turn: it either kills the program before it has done anything, or
/// ends it with status 0. It is never lost.
#[test]
fn a_signal_at_any_system_call_is_never_lost() {
    let mut tried = 0;
    for start in [0, 2] {
        let call = call(start);
        let calls = calls_until_ready(&call, &format!("signals{start}"));
        tried += calls.len();
        let handled = AtomicUsize::new(0);
        in_parallel(calls.len(), |indices| {
            let node = Namespace::forwarding("node");
            for (name, number) in indices.map(|index| &calls[index]) {
                let signal = format!("--inject={name}:signal=SIGTERM:when={number}");
                let trace = format!("--trace={name}");
                let traced = call
                    .clone()
                    .traced(&["--output=/dev/null", &trace, &signal]);
                let outcome = traced.finish(&node);
                if outcome.status.signal().is_some() {
                    assert_eq!(outcome.stderr, "", "{signal}: {outcome:?}");
                } else {
                    outcome.expect_exit(0);
                    handled.fetch_add(1, Ordering::Relaxed);
                }
                assert_eq!(node.ruleset(), "", "{signal}");
            }
        });
        let handled = handled.into_inner();
        assert!(handled > calls.len() / 3, "{handled} of {}", calls.len());
    }
    assert!(tried >= CALLS, "only {tried} calls were tried");
}
