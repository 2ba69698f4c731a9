//! Starts, and stops by a signal: status 0, and nothing is left of it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::fixture::{ENDING_SIGNALS, Namespace, Nodefwd, field, nodefwd, proc_file, wait_until};

/// Another program's rules, with nat chains at the same hooks.
const FOREIGN: &str = "table ip foreign {
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        tcp dport 81 counter dnat to 10.9.0.1:81
    }
    chain postrouting { type nat hook postrouting priority srcnat; policy accept; }
}";

fn forward() -> Nodefwd {
    nodefwd([
        "--dest-ips=10.2.0.11,fd00:2::11",
        "--dest-proto=tcp",
        "--src-port=80",
    ])
}

#[track_caller]
fn expect_installed(node: &Namespace) {
    let ruleset = node.ruleset();
    assert!(ruleset.contains("table inet nodefwd-tcp-80"), "{ruleset}");
}

#[test]
fn every_ending_signal_ends_it_with_status_0_and_only_other_rules_are_left() {
    let node = Namespace::forwarding("node");
    for foreign in ["", FOREIGN] {
        node.load(foreign);
        let before = node.ruleset();
        for signal in ENDING_SIGNALS {
            let forwarder = forward().start(&node);
            expect_installed(&node);
            forwarder.stop(signal).expect_exit(0);
            assert_eq!(node.ruleset(), before, "{signal}");
        }
    }
}

/// The mask of a line of /proc/PID/status has signal n in bit n - 1 (proc_pid_status(5)).
fn has_hang_up(pid: u32, mask: &str) -> bool {
    let status = proc_file(pid, "status");
    let mask = u64::from_str_radix(field(&status, mask), 16).expect("a mask");
    mask & 1 != 0
}

#[test]
fn a_hang_up_that_was_ignored_at_the_start_stays_ignored() {
    let node = Namespace::forwarding("node");
    let mut forwarder = forward().wrapped(&["nohup"]).start(&node);
    assert!(has_hang_up(forwarder.id(), "SigIgn"));
    assert!(!has_hang_up(forwarder.id(), "SigCgt"));
    forwarder.signal(Signal::SIGHUP);
    let ready = nodefwd(["status", "--ready", "tcp-80"]);
    ready.finish(&node).expect_exit(0);
    // A shell ignores these two for what it runs in the background of a script, but here they were sent.
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        let script = "trap '' INT QUIT HUP; exec \"$0\" \"$@\"";
        let other = nodefwd(["tcp/81=10.2.0.11"]).wrapped(&["sh", "-c", script]);
        let forwarder = other.start(&node);
        forwarder.stop(signal).expect_exit(0);
    }
    expect_installed(&node);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

/// A pipe in the place of the sysctl holds it up where it reads whether forwarding is on; the value never
/// comes.
#[test]
fn a_signal_before_the_rules_are_installed_ends_it_at_once_with_status_0() {
    const SCRIPT: &str = "mount --bind \"$0\" /proc/sys/net/ipv4/ip_forward && exec \"$@\"";
    let node = Namespace::forwarding("node");
    let pipe = Path::new(env!("CARGO_TARGET_TMPDIR")).join(node.name());
    mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    let path = pipe.to_str().expect("UTF-8");
    let call = forward().wrapped(&["unshare", "--mount", "sh", "-c", SCRIPT, path]);
    for signal in ENDING_SIGNALS {
        let mut forwarder = call.spawn(&node);
        let _sysctl = open_for_reader(&pipe);
        forwarder.signal(signal);
        let outcome = forwarder.finish().expect_exit(0);
        assert_eq!(outcome.stderr, "", "{signal}");
        assert_eq!(node.ruleset(), "", "{signal}");
    }
    fs::remove_file(pipe).expect("removing the pipe");
}

/// Opens a pipe for writing as soon as a process has opened it for reading.
fn open_for_reader(pipe: &Path) -> File {
    let open = || {
        let mut options = File::options();
        options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        options.open(pipe)
    };
    // fifo(7): no process has it open for reading.
    let has_reader = |opened: &std::io::Result<File>| match opened {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => false,
        Err(error) if error.kind() == ErrorKind::Interrupted => false,
        Err(error) => panic!("{pipe:?}: {error}"),
    };
    wait_until("a reader of the pipe", open, has_reader).expect("an open pipe")
}

#[test]
fn it_works_as_the_first_process_of_a_container() {
    let container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let node = Namespace::forwarding("node");
    for signal in ENDING_SIGNALS {
        let unshare = forward().wrapped(&container).start(&node);
        let children = proc_file(unshare.id(), &format!("task/{}/children", unshare.id()));
        let pid = children.trim().parse().expect("one child");
        let status = proc_file(pid, "status");
        assert_eq!(field(&status, "NSpid"), format!("{pid}\t1"), "its two ids");
        expect_installed(&node);

        let pid = Pid::from_raw(pid.try_into().expect("a process id"));
        kill(pid, signal).expect("kill");
        unshare.finish().expect_exit(0);
        assert_eq!(node.ruleset(), "", "{signal}");
    }
}
