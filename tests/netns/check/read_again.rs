//! A ruleset that changes while it is read: it is read again, as parts of two rulesets are none.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::{net, start};
use crate::fixture::{Namespace, Nodefwd, Process, expect_parts, nodefwd, wait_until};

const OPEN: &str = "table inet theirs {
    chain drops { type filter hook forward priority 0; policy accept; }
}";
const CLOSED: &str = "add chain inet theirs drops { policy drop; }";
const DROPS: &str = "the policy of chain drops in table inet theirs drops";

/// A call whose requests and replies strace(1) records.
struct Recorded {
    call: Nodefwd,
    file: PathBuf,
}

impl Recorded {
    fn new(name: &str, call: Nodefwd) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        Recorded { call, file }
    }

    /// Starts it. With a number, the call for so many-th reply stops it.
    fn spawn(&self, node: &Namespace, stop: Option<usize>) -> Process {
        let output = format!("--output={}", self.file.display());
        let stop = stop.map(|reply| format!("--inject=recvmsg:signal=SIGSTOP:when={reply}"));
        let mut options = vec!["--trace=sendto,recvmsg", &output];
        options.extend(stop.as_deref());
        self.call.clone().traced(&options).spawn(node)
    }

    fn trace(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// The number of the last reply before the generation is asked for again.
    fn last_reply(&self) -> usize {
        let trace = self.trace();
        let read = trace.rsplit_once("NFT_MSG_GETGEN");
        let (read, _) = read.expect("the generation is asked for");
        read.matches("recvmsg(").count()
    }

    /// Starts it again, and changes the ruleset when this reply, the last one, is all that is not read yet.
    fn change(&self, node: &Namespace, reply: usize, change: &str) -> Process {
        let mut process = self.spawn(node, Some(reply));
        let is_stopped = |trace: &String| trace.contains("--- stopped by SIGSTOP ---");
        wait_until("a stop", || self.trace(), is_stopped);
        node.load(change);
        process.signal(Signal::SIGCONT);
        process
    }
}

#[test]
fn check_reads_a_ruleset_again_that_changes() {
    let net = net(1);
    net.node.load(OPEN);
    let call = nodefwd(["check", "tcp/80=10.2.1.2:8080"]);
    let check = Recorded::new("check-again", call);
    let before = check.spawn(&net.node, None).finish().expect_exit(0).stdout;
    assert!(!before.contains(DROPS), "{before}");
    let after = check
        .change(&net.node, check.last_reply(), CLOSED)
        .finish()
        .expect_exit(1);
    expect_parts(&after.stdout, [DROPS]);
}

#[test]
fn a_start_reads_a_ruleset_again_that_changes() {
    const LOOKED: &str = "debug: checked routes, other tables and sockets";
    let net = net(1);
    net.node.load(OPEN);
    let call = nodefwd(["tcp/80=10.2.1.2:8080", "--verbose"]);
    let instance = Recorded::new("start-again", call);
    let first = instance.spawn(&net.node, None);
    first.wait_for_line(LOOKED);
    let reply = instance.last_reply();
    let before = first.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert!(!before.contains(DROPS), "{before}");
    let second = instance.change(&net.node, reply, CLOSED);
    second.wait_for_line(LOOKED);
    let after = second.stop(Signal::SIGTERM).expect_exit(0).stderr;
    expect_parts(&after, [DROPS]);
}

#[test]
fn status_reads_a_ruleset_again_that_changes() {
    let net = net(1);
    let _web = start(&net, "--name=web tcp/80=10.2.1.2:8080");
    let status = Recorded::new("status-again", nodefwd(["status"]));
    let before = status.spawn(&net.node, None).finish().expect_exit(0).stdout;
    assert!(!before.contains("like"), "{before}");
    let like = "table inet nodefwd-like {
        chain prerouting { type nat hook prerouting priority dstnat; }
        map forwards4 {
            type inet_service . inet_proto : ipv4_addr . inet_service; counter;
            elements = { 81 . tcp : 10.9.9.9 . 80 }
        }
    }";
    let reply = status.last_reply();
    let after = status
        .change(&net.node, reply, like)
        .finish()
        .expect_exit(0);
    expect_parts(
        &after.stdout,
        ["table inet nodefwd-web", "table inet nodefwd-like"],
    );
}
