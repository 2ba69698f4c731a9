//! Signals by the hundred, of every kind that ends it, from the first moment to the last.

use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::lanes;
use crate::fixture::{Namespace, Nodefwd, Process, nodefwd};

/// How often it is started, and with how many signals at most: it ends before they do.
pub const STARTS: usize = 200;
const SIGNALS: usize = 500;

const ENDING: [Signal; 4] = [
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
