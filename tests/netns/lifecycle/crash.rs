//! SIGKILL at any moment: nothing is left that a restart does not replace.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Nodefwd, nodefwd};

/// How many instances are killed, in so many namespaces at the same time.
pub const KILLS: u32 = 200;
const NAMESPACES: u32 = 4;

/// Several forwards, so that an installation has several parts.
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

/// A namespace in which another program has rules, and these rules.
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

/// The shortest time from exec until it is ready.
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
        // From before its first instruction until after `ready`.
        let longest = time_to_ready(&call, &node).mul_f64(1.25);
        let forwarder = call.start(&node);
        let expected = node.ruleset();
        forwarder.stop(Signal::SIGTERM).expect_exit(0);

        let moments = random(seed).take((KILLS / NAMESPACES) as usize);
        for (number, moment) in moments.enumerate() {
            let moment = longest.mul_f64(moment);
            let forwarder = call.spawn(&node);
            thread::sleep(moment);
            forwarder.stop(Signal::SIGKILL);
            // In half of the cases the next start comes at once, whether the rules are gone or not.
            if owner == "--owner=true" && number % 2 == 0 {
                node.wait_for_rules(&before);
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

#[test]
fn an_instance_killed_at_any_moment_leaves_nothing_and_can_start_again() {
    killed_at_any_moment("--owner=true");
}

/// Its rules stay, and the next start replaces them.
#[test]
fn an_instance_without_the_owner_flag_killed_at_any_moment_can_start_again() {
    killed_at_any_moment("--owner=false");
}
