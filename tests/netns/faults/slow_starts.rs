//! Signals in the middle of a start that takes long: it ends with status 0, and nothing is left.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{SigSet, Signal};

use super::in_parallel;
use crate::fixture::{ENDING_SIGNALS, Namespace, Nodefwd, nodefwd, wait_until};

/// How many forwards the longest of these starts has, and after how many milliseconds each is ended.
pub const FORWARDS: u16 = 60_000;
pub const PAUSES: [u64; 8] = [0, 50, 100, 200, 400, 800, 1600, 3200];

#[test]
fn a_start_with_very_many_forwards_ends_by_a_signal() {
    let forwards = (1..=FORWARDS).map(|port| format!("tcp/{port}=10.2.0.11:8080"));
    // A table without an owner would stay if the process just ended.
    let call = nodefwd(forwards).args(&["--owner=false"]);
    let blocked: SigSet = ENDING_SIGNALS.into_iter().collect();
    in_parallel(PAUSES.len(), |indices| {
        let node = Namespace::forwarding("node");
        for pause in indices.map(|index| PAUSES[index]) {
            // A signal before it handles signals is pending until then.
            let mut forwarder = call.spawn_with_blocked(&node, &blocked);
            thread::sleep(Duration::from_millis(pause));
            forwarder.signal(Signal::SIGTERM);
            let outcome = forwarder.finish().expect_exit(0);
            assert!(!outcome.stderr.contains("error"), "{outcome:?}");
            assert_eq!(node.ruleset(), "", "after {pause} ms");
        }
    });
}

/// A run under strace(1), which records how the program receives from the kernel.
struct Receives {
    call: Nodefwd,
    file: PathBuf,
}

impl Receives {
    /// `name` is that of a file of its own.
    fn new(call: Nodefwd, name: &str) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        Receives { call, file }
    }

    fn traced(&self, options: &[&str]) -> Nodefwd {
        let output = format!("--output={}", self.file.display());
        let options = [&["--trace=recvmsg", "--decode-fds=all", &output], options].concat();
        self.call.clone().traced(&options)
    }

    /// The numbers of the calls that received such messages.
    fn of(&self, kind: &str) -> Vec<usize> {
        let trace = fs::read_to_string(&self.file).expect("a trace");
        let calls = (1..).zip(trace.lines().filter(|line| line.starts_with("recvmsg(")));
        let of_kind = calls.filter(|(_, line)| line.contains(kind));
        of_kind.map(|(number, _)| number).collect()
    }

    /// With a signal at this call.
    fn signalled_at(&self, call: usize) -> Nodefwd {
        self.traced(&[&format!("--inject=recvmsg:signal=SIGTERM:when={call}")])
    }
}

/// The table is not read to its end.
#[test]
fn a_signal_while_conntrack_entries_are_read_ends_the_start() {
    const ENTRIES: u16 = 20_000;
    const ENTRY: &str = "NFNL_SUBSYS_CTNETLINK<<8|IPCTNL_MSG_CT_NEW";
    let node = Namespace::forwarding("node");
    let entries: String = (1..=ENTRIES)
        .map(|port| {
            format!("-I -s 10.1.0.2 -d 10.9.0.1 -p udp --sport 20001 --dport {port} -t 3600 -u SEEN_REPLY\n")
        })
        .collect();
    node.feed(&entries, "conntrack", &["--load-file", "-"]);
    // So many ports that the kernel is asked for all of UDP.
    let receives = Receives::new(nodefwd(["udp/30000-40000=10.2.0.11"]), "conntrack");
    let forwarder = receives.traced(&[]).start(&node);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    let all = receives.of(ENTRY);
    assert!(all.len() > 50, "{} datagrams", all.len());
    let signalled = receives.signalled_at(all[9]);
    let stderr = signalled.finish(&node).expect_exit(0).stderr;
    assert_eq!(node.ruleset(), "");
    assert!(!stderr.contains("ready"), "{stderr}");
    assert!(!stderr.contains("warning"), "{stderr}");
    assert_eq!(receives.of(ENTRY).len(), 10);
}

/// Nor is anything looked at that a start warns of. Such a search ends by itself after a second: on a machine
/// that is too busy for it, another one is made.
#[test]
fn a_signal_right_after_ready_ends_the_search_for_problems() {
    const SOCKETS: &str = "NETLINK:[SOCK_DIAG";
    const SEARCHED: &str = "debug: checked routes";
    let node = Namespace::forwarding("node");
    // An address for clients, and no route, which is looked up after the sockets.
    node.ip("address add 10.1.0.1/32 dev lo");
    let receives = Receives::new(nodefwd(["tcp/80=192.0.2.1", "-vv"]), "search");
    let search = |call: Nodefwd| {
        let mut forwarder = call.spawn(&node);
        let is_whole = forwarder.has_said(SEARCHED);
        forwarder.signal_if_running(Signal::SIGTERM);
        let stderr = forwarder.finish().expect_exit(0).stderr;
        assert_eq!(node.ruleset(), "");
        (is_whole, stderr)
    };
    let warns = |(_, stderr): &(_, String)| stderr.contains("warning: routes: none to 192.0.2.1");
    wait_until("a warning", || search(receives.traced(&[])), warns);
    let sockets = receives.of(SOCKETS);
    assert!(sockets.len() > 1, "{sockets:?}");
    let signalled = receives.signalled_at(sockets[0]);
    let ended = |(is_whole, _): &(bool, _)| !is_whole;
    let (_, stderr) = wait_until("a signal", || search(signalled.clone()), ended);
    assert!(stderr.contains("ready"), "{stderr}");
    assert!(!stderr.contains("warning"), "{stderr}");
    assert_eq!(receives.of(SOCKETS), sockets[..1]);
}
