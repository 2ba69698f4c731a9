//! Starting, waiting and ending: what it uses meanwhile, and that it leaves nothing behind.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::fixture::{LIMIT, Namespace, Nodefwd, Outcome, Process, is_release, nodefwd};

const SIGNALS: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// Rules of somebody else, with nat chains like ours.
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
fn every_signal_ends_it_with_status_0_and_nothing_left() {
    let node = Namespace::forwarding("node");
    for foreign in ["", FOREIGN] {
        node.load(foreign);
        let before = node.ruleset();
        for signal in SIGNALS {
            let forwarder = forward().start(&node);
            expect_installed(&node);
            forwarder.stop(signal).expect_exit(0);
            assert_eq!(node.ruleset(), before, "{signal}");
        }
    }
}

#[test]
fn fifty_starts_and_stops_leave_nothing() {
    let node = Namespace::forwarding("node");
    node.load(FOREIGN);
    let before = node.ruleset();
    for round in 0..50 {
        let forwarder = forward().start(&node);
        expect_installed(&node);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), before, "round {round}");
    }
}

#[test]
fn killing_it_leaves_nothing() {
    let node = Namespace::forwarding("node");
    let mut forwarder = forward().start(&node);
    expect_installed(&node);
    forwarder.signal(Signal::SIGKILL);
    assert_eq!(forwarder.wait().signal(), Some(Signal::SIGKILL as i32));
    // The kernel cleans up on its own, a moment after the process has gone.
    let deadline = Instant::now() + LIMIT;
    while !node.ruleset().is_empty() {
        assert!(Instant::now() < deadline, "{}", node.ruleset());
    }
    forward().start(&node).stop(Signal::SIGTERM).expect_exit(0);
}

/// The table belongs to the process: the kernel refuses everybody else.
#[test]
fn while_it_runs_nobody_else_can_remove_its_rules() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    let before = node.ruleset();
    node.succeed("nft", &["flush", "ruleset"]);
    let delete = ["delete", "table", "inet", "nodefwd-tcp-80"];
    node.output("nft", &delete).expect_exit(1);
    expect_installed(&node);
    assert_eq!(node.ruleset(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// It is held up where it reads whether forwarding is on, which a pipe tells it only after the signal.
#[test]
fn a_signal_before_installation_ends_it_cleanly() {
    const SCRIPT: &str = "mount --bind \"$0\" /proc/sys/net/ipv4/ip_forward && exec \"$@\"";
    let node = Namespace::forwarding("node");
    let pipe = Path::new(env!("CARGO_TARGET_TMPDIR")).join(node.name());
    mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    let path = pipe.to_str().expect("UTF-8");
    let call = forward().wrapped(&["unshare", "--mount", "sh", "-c", SCRIPT, path]);
    for signal in SIGNALS {
        let mut forwarder = call.spawn(&node);
        let mut switch = open_for_reader(&pipe);
        forwarder.signal(signal);
        switch.write_all(b"1\n").expect("a reader");
        drop(switch);
        forwarder.finish().expect_exit(0);
        assert_eq!(node.ruleset(), "", "{signal}");
    }
    fs::remove_file(pipe).expect("removing the pipe");
}

/// Opens a pipe as soon as somebody reads from it.
fn open_for_reader(pipe: &Path) -> File {
    let deadline = Instant::now() + LIMIT;
    let mut options = File::options();
    options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
    loop {
        match options.open(pipe) {
            Ok(file) => return file,
            // fifo(7): nobody has it open for reading.
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                assert!(Instant::now() < deadline, "nobody reads {pipe:?}");
            }
            Err(error) => panic!("{pipe:?}: {error}"),
        }
    }
}

/// Once it runs, it can take its rules out, and do nothing else.
#[test]
fn it_keeps_no_privilege_that_it_does_not_need() {
    const NET_ADMIN: u64 = 1 << 12;
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    let deadline = Instant::now() + LIMIT;
    // It gives them up right behind the line that says that it is ready.
    while field(&proc_file(forwarder.id(), "status"), "NoNewPrivs") != "1" {
        assert!(Instant::now() < deadline, "privileges are kept");
    }
    let status = proc_file(forwarder.id(), "status");
    let set = |name| u64::from_str_radix(field(&status, name), 16).expect("capabilities");
    assert_eq!(["CapPrm", "CapEff"].map(set), [NET_ADMIN; 2]);
    assert_eq!(["CapInh", "CapBnd", "CapAmb"].map(set), [0; 3]);
    for (number, target) in open_files(&forwarder.id().to_string()) {
        // Some files are its caller's, such as the standard ones.
        let inherited = number < 3 || open_files("self").contains(&(number, target.clone()));
        assert!(
            inherited || target.starts_with("socket:"),
            "{number} is {target}"
        );
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

fn open_files(process: &str) -> Vec<(u32, String)> {
    let directory = fs::read_dir(format!("/proc/{process}/fd")).expect("its files");
    let number = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    let target = |path: &Path| {
        fs::read_link(path)
            .ok()?
            .into_os_string()
            .into_string()
            .ok()
    };
    directory
        .filter_map(|file| {
            let path = file.ok()?.path();
            Some((number(&path)?, target(&path)?))
        })
        .collect()
}

/// The moments are spread evenly over twice the time that a start takes, so that installation
/// is hit at many points. Before the program's first instruction no signal can be minded: there
/// the signal may end it, and nothing was installed.
#[test]
fn a_signal_at_any_moment_leaves_nothing() {
    const MOMENTS: u32 = 150;
    let node = Namespace::forwarding("node");
    let begin = Instant::now();
    forward().start(&node).stop(Signal::SIGTERM).expect_exit(0);
    let longest = begin.elapsed() * 2;
    let mut clean = 0;
    for moment in 0..MOMENTS {
        let mut forwarder = forward().spawn(&node);
        thread::sleep(longest * moment / MOMENTS);
        forwarder.signal(Signal::SIGTERM);
        let outcome = forwarder.finish();
        if was_ended_at_birth(&outcome) {
            assert_eq!(outcome.stderr, "", "{outcome:?}");
        } else {
            outcome.expect_exit(0);
            clean += 1;
        }
        assert_eq!(node.ruleset(), "", "after {:?}", longest * moment / MOMENTS);
    }
    assert!(
        clean >= MOMENTS / 4,
        "only {clean} of {MOMENTS} ended with status 0"
    );
}

fn was_ended_at_birth(outcome: &Outcome) -> bool {
    outcome.status.signal() == Some(Signal::SIGTERM as i32)
}

#[test]
fn waiting_uses_no_cpu() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    // It is ready before it waits: let it go to sleep first.
    let mut before = effort(&forwarder);
    let deadline = Instant::now() + LIMIT;
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = effort(&forwarder);
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "never at rest: {now:?}");
        before = now;
    }
    thread::sleep(Duration::from_secs(1));
    assert_eq!(effort(&forwarder), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// What the scheduler has done for a process: clock ticks, and context switches per thread.
fn effort(process: &Process) -> (Vec<String>, Vec<String>) {
    let stat = proc_file(process.id(), "stat");
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields.split(' ').skip(11).take(2).map(str::to_owned);
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).expect("tasks");
    let switches = tasks.map(|task| {
        let status = fs::read_to_string(task.expect("a task").path().join("status"));
        let status = status.expect("its status");
        ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
            .map(|name| field(&status, name))
            .join("+")
    });
    (ticks.collect(), switches.collect())
}

#[test]
fn private_memory_stays_below_its_limit() {
    // Code that is not optimised writes more: the limit that counts is the shipped program's.
    let limit = if is_release() { 1024 } else { 8 * 1024 };
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    let rollup = proc_file(forwarder.id(), "smaps_rollup");
    // Pages of the program's file are the page cache's, and all instances share them; whether they
    // count as private depends on how many run. What it has written is its own.
    let private = kilobytes(&rollup, "Anonymous");
    assert!(
        (1..=limit).contains(&private),
        "{private} KiB of {limit} KiB"
    );
}

fn kilobytes(rollup: &str, name: &str) -> u64 {
    let size = field(rollup, name).strip_suffix(" kB").expect("kB");
    size.trim().parse().expect("a number")
}

#[test]
fn it_works_as_the_first_process_of_a_container() {
    let container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let node = Namespace::forwarding("node");
    for signal in SIGNALS {
        let unshare = forward().wrapped(&container).start(&node);
        let children = proc_file(unshare.id(), &format!("task/{}/children", unshare.id()));
        let pid = children.trim().parse().expect("one child");
        let inner = field(&proc_file(pid, "status"), "NSpid").to_owned();
        assert_eq!(inner, format!("{pid}\t1"), "not the first process");
        expect_installed(&node);

        let pid = Pid::from_raw(pid.try_into().expect("a process id"));
        kill(pid, signal).expect("kill");
        unshare.finish().expect_exit(0);
        assert_eq!(node.ruleset(), "", "{signal}");
    }
}

fn proc_file(pid: u32, name: &str) -> String {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The value of a line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| *found == name)
        .unwrap_or_else(|| panic!("no {name} in:\n{text}"))
        .1
        .trim()
}
