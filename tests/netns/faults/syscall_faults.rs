//! System calls that fail for want of memory: each call by which the program talks to netfilter fails
//! in turn, by strace(1).

use nix::sys::signal::Signal;

use super::in_parallel;
use super::trace::Trace;
use crate::fixture::{Namespace, Nodefwd, nodefwd};

/// How many calls fail at least, one in each run: those of two starts and removals. A TERM that comes
/// soon enough leaves out what is looked at after the line 'ready: '.
pub const CALLS: usize = 28;

const TRACED: [&str; 2] = ["--decode-fds=all", "--trace=sendto,recvmsg,write"];

fn forward(owner: &str) -> Nodefwd {
    nodefwd(["udp/80=10.2.0.1,10.2.0.2", owner])
}

/// The calls of a run that a number identifies: the name of each, and how many of this name it is.
/// After it is ready the handler of the signal sends too, at any moment.
fn netfilter_calls(owner: &str) -> Vec<(&'static str, usize)> {
    let trace = Trace::of(&forward(owner), &TRACED, &format!("syscall-faults{owner}"));
    let of_name = |(name, trace): (&'static str, &str)| {
        let lines = trace.lines().filter(|line| line.starts_with(name));
        let numbered = (1..).zip(lines);
        let netfilter = numbered.filter(|(_, line)| line.contains("<NETLINK:[NETFILTER"));
        netfilter
            .map(|(number, _)| (name, number))
            .collect::<Vec<_>>()
    };
    [("sendto", &trace.until_ready), ("recvmsg", &trace.whole)]
        .into_iter()
        .flat_map(|(name, trace)| of_name((name, trace)))
        .collect()
}

#[test]
fn a_system_call_without_memory_leaves_nothing_half_done() {
    let mut tried = 0;
    for owner in ["--owner=true", "--owner=false"] {
        let calls = netfilter_calls(owner);
        tried += calls.len();
        in_parallel(calls.len(), |indices| {
            let node = Namespace::forwarding("node");
            for (name, number) in indices.map(|index| calls[index]) {
                let fault = format!("--inject={name}:error=ENOMEM:when={number}");
                let options = [&TRACED[..], &["--output=/dev/null", &fault]].concat();
                let mut forwarder = forward(owner).traced(&options).spawn(&node);
                if forwarder.has_said("ready") {
                    forwarder.signal(Signal::SIGTERM);
                }
                let outcome = forwarder.finish();
                let status = outcome.status.code();
                assert!(matches!(status, Some(0 | 1)), "{fault}: {outcome:?}");
                let explained = status == Some(0) || outcome.stderr.contains("error: ");
                assert!(explained, "{fault}: {outcome:?}");
                if outcome.stderr.contains("cannot remove the rules") {
                    // The one call that the removal needs has failed.
                    node.succeed("nft", &["flush", "ruleset"]);
                }
                assert_eq!(node.ruleset(), "", "{owner} {fault}: {outcome:?}");
            }
        });
    }
    assert!(tried >= CALLS, "only {tried} calls were tried");
}
