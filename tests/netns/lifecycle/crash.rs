//! SIGKILL at any moment: nothing stays behind that a restart does not replace.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{LIMIT, Namespace, Nodefwd, nodefwd};

/// How many are killed, in namespaces side by side.
const MOMENTS: u32 = 200;
const NAMESPACES: u32 = 4;

/// Several forwards, so that there is something to be half done with.
fn forward(owner: &str) -> Nodefwd {
    nodefwd([
        owner,
        "--name=web",
        "--src-ranges=10.0.0.0/8",
        "tcp/80=10.2.0.11,10.2.0.12",
        "udp/53=10.2.0.11,fd00:2::11",
        "tcp/8000-8100=10.2.0.11:9000-9100",
    ])
}

/// A namespace in which somebody else has rules, and those.
fn node() -> (Namespace, String) {
    let node = Namespace::forwarding("node");
    node.load("table inet other { chain c { type nat hook prerouting priority 0; }; }");
    let before = node.ruleset();
    (node, before)
}

/// Numbers that look random (Knuth's MMIX generator), the same in every run.
fn random(seed: u32) -> impl Iterator<Item = f64> {
    let next = |state: &u64| {
        Some(
            state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407),
        )
    };
    std::iter::successors(Some(seed.into()), next)
        .skip(1)
        .map(|state| (state >> 11) as f64 / (1u64 << 53) as f64)
}

/// How long it takes from exec until it is ready, at best.
fn time_to_ready(call: &Nodefwd, node: &Namespace) -> Duration {
    let once = || {
        let begin = Instant::now();
        let forwarder = call.start(node);
        let time = begin.elapsed();
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        time
    };
    (0..9).map(|_| once()).min().expect("nine times")
}

fn killed_at_any_moment(owner: &str) {
    let call = forward(owner);
    let one_namespace = |seed: u32| {
        let (node, before) = node();
        // From before its first instruction until behind `ready`.
        let longest = time_to_ready(&call, &node).mul_f64(1.25);
        let forwarder = call.start(&node);
        let expected = node.ruleset();
        forwarder.stop(Signal::SIGTERM).expect_exit(0);

        let moments = random(seed).take((MOMENTS / NAMESPACES) as usize);
        for (number, moment) in moments.enumerate() {
            let moment = longest.mul_f64(moment);
            let forwarder = call.spawn(&node);
            thread::sleep(moment);
            forwarder.stop(Signal::SIGKILL);
            // Half of them start again at once, whether or not the rules are gone already.
            if owner == "--owner=true" && number % 2 == 0 {
                expect_ruleset(&node, &before);
            }
            let forwarder = call.start(&node);
            assert_eq!(node.ruleset(), expected, "killed after {moment:?}");
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
            assert_eq!(node.ruleset(), before, "killed after {moment:?}");
        }
    };
    thread::scope(|scope| {
        for seed in 0..NAMESPACES {
            scope.spawn(move || one_namespace(seed));
        }
    });
}

/// The kernel removes what belonged to the process, a moment after it has gone at the latest.
#[track_caller]
fn expect_ruleset(node: &Namespace, expected: &str) {
    let deadline = Instant::now() + LIMIT;
    while node.ruleset() != expected {
        assert!(Instant::now() < deadline, "{}", node.ruleset());
    }
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_and_starts_again() {
    killed_at_any_moment("--owner=true");
}

/// Nobody removes its rules then, but the next start replaces them.
#[test]
fn killed_at_any_moment_without_an_owner_it_starts_again() {
    killed_at_any_moment("--owner=false");
}
