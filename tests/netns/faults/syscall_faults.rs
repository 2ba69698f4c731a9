//! The kernel has no memory for a message of its own or for one to it: each time that the program
//! talks to netfilter fails in turn, as strace(1) has it.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use super::lanes;
use crate::fixture::{Namespace, Nodefwd, nodefwd};

/// How many calls fail, at least, one in each run.
pub const CALLS: usize = 50;

fn traced(owner: &str, options: &[&str]) -> Nodefwd {
    let trace = ["--decode-fds=all", "--trace=sendto,recvmsg,write"];
    nodefwd(["udp/80=10.2.0.1,10.2.0.2", owner]).traced(&[&trace, options].concat())
}

/// The calls of a run that can be told by their number: the name of each, and how many of this name
/// it is. Once it is ready, the signal's handler sends too, whenever that comes.
fn calls(owner: &str) -> Vec<(&'static str, usize)> {
    let node = Namespace::forwarding("node");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("calls{owner}"));
    let output = format!("--output={}", file.display());
    let forwarder = traced(owner, &[&output]).start(&node);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    let trace = fs::read_to_string(file).expect("a trace");
    let (until_ready, _) = trace.split_once("\"ready: ").expect("a line");
    let of_name = |(name, trace): (&'static str, &str)| {
        let lines = trace.lines().filter(|line| line.starts_with(name));
        let numbered = (1..).zip(lines);
        let netfilter = numbered.filter(|(_, line)| line.contains("<NETLINK:[NETFILTER"));
        netfilter
            .map(|(number, _)| (name, number))
            .collect::<Vec<_>>()
    };
    [("sendto", until_ready), ("recvmsg", &trace)]
        .into_iter()
        .flat_map(of_name)
        .collect()
}

#[test]
fn a_call_that_fails_leaves_nothing_half_done() {
    let mut tried = 0;
    for owner in ["--owner=true", "--owner=false"] {
        let calls = calls(owner);
        tried += calls.len();
        lanes(calls.len(), |places| {
            let node = Namespace::forwarding("node");
            for (name, number) in places.map(|place| calls[place]) {
                let fault = format!("--inject={name}:error=ENOMEM:when={number}");
                let mut forwarder = traced(owner, &["--output=/dev/null", &fault]).spawn(&node);
                if forwarder.has_said("ready") {
                    forwarder.signal(Signal::SIGTERM);
                }
                let outcome = forwarder.finish();
                assert!(
                    matches!(outcome.status.code(), Some(0 | 1)),
                    "{fault}: {outcome:?}"
                );
                let silent =
                    outcome.status.code() == Some(1) && !outcome.stderr.contains("error: ");
                assert!(!silent, "{fault}: {outcome:?}");
                if outcome.stderr.contains("cannot remove the rules") {
                    // All that it could do was tried.
                    node.succeed("nft", &["flush", "ruleset"]);
                }
                assert_eq!(node.ruleset(), "", "{owner} {fault}: {outcome:?}");
            }
        });
    }
    assert!(tried >= CALLS, "{tried}");
}
