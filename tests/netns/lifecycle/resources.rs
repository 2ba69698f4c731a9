//! What a running instance uses.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Process, field, is_release, nodefwd, proc_file, wait_until};

const FORWARD: &str = "tcp/80=10.2.0.11,fd00:2::11";

#[test]
fn waiting_uses_no_cpu_time() {
    let node = Namespace::forwarding("node");
    let forwarder = nodefwd([FORWARD]).start(&node);
    // It is ready a moment before it begins to wait.
    let two_samples = || {
        let first = cpu_use(&forwarder);
        thread::sleep(Duration::from_millis(100));
        [first, cpu_use(&forwarder)]
    };
    let [_, before] = wait_until("rest", two_samples, |[first, second]| first == second);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(cpu_use(&forwarder), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// What the scheduler has done for a process: clock ticks, and context switches of each thread.
fn cpu_use(process: &Process) -> (Vec<String>, Vec<String>) {
    let stat = proc_file(process.id(), "stat");
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields.split(' ').skip(11).take(2).map(str::to_owned);
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).expect("tasks");
    let switches = tasks.map(|task| {
        let status = fs::read_to_string(task.expect("a task").path().join("status"));
        let status = status.expect("a status file");
        ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
            .map(|name| field(&status, name))
            .join("+")
    });
    (ticks.collect(), switches.collect())
}

#[test]
fn written_memory_stays_below_its_limit() {
    // Code that is not optimised writes more: the limit that counts is that of the release.
    let limit = if is_release() { 1024 } else { 8 * 1024 };
    let node = Namespace::forwarding("node");
    let forwarder = nodefwd([FORWARD]).start(&node);
    let written = forwarder.written_memory();
    assert!((1..=limit).contains(&written), "{written} KiB of {limit}");
}
