//! The formats, and where they are written.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::status;
use crate::fixture::{Namespace, Process, expect_parts, nodefwd, wait_until};

/// A sample of the Prometheus output, of a forward without connections.
const SAMPLE: &str = "nodefwd_connections_total{forwarder=\"web\",protocol=\"tcp\",ports=\"80\",family=\"ipv4\",destination=\"10.2.0.11:80\"} 0\n";

/// Fails the test unless promtool accepts these metrics without a word.
pub fn expect_metrics(node: &Namespace, metrics: &str) {
    let promtool = Command::new("promtool").arg("--version").output();
    assert!(promtool.is_ok(), "no promtool: tests/run.sh installs it");
    // It prints advice on valid metrics too.
    let outcome = node.feed(metrics, "promtool", &["check", "metrics"]);
    assert_eq!(outcome, "");
}

#[test]
fn promtool_accepts_the_metrics() {
    let node = Namespace::forwarding("node");
    let call = nodefwd(["status", "--format=prometheus"]);
    let none = call.finish(&node).expect_success();
    expect_parts(
        &none,
        ["\nnodefwd_instances 0\n", "nodefwd_build_info{version=\""],
    );
    expect_metrics(&node, &none);
    let _web = nodefwd(["--name=web", "--src-ranges=10.0.0.0/8", "tcp/80=10.2.0.11"]).start(&node);
    let metrics = call.finish(&node).expect_success();
    expect_parts(&metrics, [SAMPLE, "\nnodefwd_instances 1\n"]);
    expect_metrics(&node, &metrics);
}

/// A folder of a test's own, without what an earlier run has left.
fn folder(node: &Namespace) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(node.name());
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    entries
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect()
}

#[test]
fn a_file_is_replaced_by_a_whole_one() {
    let node = Namespace::forwarding("node");
    let folder = folder(&node);
    let file = folder.join("nodefwd.prom");
    fs::write(&file, "before").expect("written");
    let mut reader = File::open(&file).expect("a file");
    let call = nodefwd(["status", "--format=prometheus"]);
    let printed = call.finish(&node).expect_success();
    let path = file.to_str().expect("UTF-8");
    let written = call.args(&["--output", path]).finish(&node);
    assert_eq!(written.expect_success(), "");
    assert_eq!(fs::read_to_string(&file).expect("text"), printed);
    assert_eq!(names(&folder), ["nodefwd.prom"]);
    // Whoever has opened the old one reads that to its end.
    let mut before = String::new();
    reader.read_to_string(&mut before).expect("text");
    assert_eq!(before, "before");
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn what_is_no_file_is_left_as_it_is_and_said() {
    let node = Namespace::forwarding("node");
    let folder = folder(&node);
    let write = |path: &Path| {
        let path = path.to_str().expect("UTF-8");
        let outcome = nodefwd(["status", "--output", path]).finish(&node);
        outcome.expect_exit(1).stderr
    };
    let missing = folder.join("missing/file");
    expect_parts(
        &write(&missing),
        ["cannot write ", "missing/file: No such file"],
    );
    expect_parts(&write(&folder), ["and no regular file"]);
    let pipe = folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    expect_parts(&write(&pipe), ["and no regular file"]);
    let kind = fs::metadata(&pipe).expect("a pipe").file_type();
    assert!(kind.is_fifo());
    assert_eq!(names(&folder), ["pipe"]);
    fs::remove_dir_all(folder).expect("removed");
}

/// What was there stays, and nothing else does.
#[test]
fn a_file_system_without_room_keeps_what_was_there() {
    let node = Namespace::forwarding("node");
    let forwards = (1..=100).map(|port| format!("tcp/{port}=10.2.0.11"));
    let _many = nodefwd(["--name=many".to_owned()].into_iter().chain(forwards)).start(&node);
    let folder = folder(&node);
    // Prints what is there afterwards.
    const SCRIPT: &str =
        "cd $0 && mount -t tmpfs -o size=8k none . && cd $0 && echo before >file || exit 9
        \"$@\" --output file; status=$?; ls; cat file; exit $status";
    let path = folder.to_str().expect("UTF-8");
    let call = nodefwd(["status", "--format=json"]);
    let call = call.wrapped(&["unshare", "--mount", "sh", "-c", SCRIPT, path]);
    let outcome = call.finish(&node).expect_exit(1);
    assert_eq!(outcome.stdout, "file\nbefore\n");
    expect_parts(&outcome.stderr, ["cannot write file: No space left"]);
    fs::remove_dir_all(folder).expect("removed");
}

/// Has an instance watched in a format until a signal comes, and gives what was
/// printed. By then there are two snapshots at least: `complete` counts them.
fn watched(
    node: &Namespace,
    format: &str,
    signal: Signal,
    complete: impl Fn(&str) -> usize,
) -> String {
    let watch = nodefwd(["status", "--watch", format]);
    // Whoever runs the tests in the background of a shell has SIGINT ignored (POSIX, 2.11).
    let mut watch: Process = watch.wrapped(&["env", "--default-signal=INT"]).spawn(node);
    let has_two = |stdout: &String| complete(stdout) >= 2;
    wait_until("a second snapshot", || watch.stdout(), has_two);
    watch.signal(signal);
    let outcome = watch.finish();
    let outcome = outcome.expect_exit(0);
    assert_eq!(outcome.stderr, "");
    outcome.stdout
}

/// The text has the time that the instance has run in its first line.
fn without_age(text: &str) -> String {
    let lines = text.lines();
    let lines = lines.map(|line| line.split(" for ").next().unwrap_or(line).to_owned() + "\n");
    lines.collect()
}

#[test]
fn watch_prints_whole_snapshots_until_term_or_int_ends_it() {
    let node = Namespace::forwarding("node");
    // A snapshot of them is longer than a page, and shorter than a pipe's 64 KiB (pipe(7)).
    let forwards = (1..=30).map(|port| format!("tcp/{port}=10.2.0.11"));
    let _many = nodefwd(["--name=many".to_owned()].into_iter().chain(forwards)).start(&node);
    let text = nodefwd(["status"]).finish(&node).expect_success();
    let text = without_age(&text);
    let forwards = &status(&node)["instances"][0]["forwards"];
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let last_line = text.lines().last().expect("a line");
        let complete = |printed: &str| printed.matches(last_line).count();
        let printed = watched(&node, "--format=text", signal, complete);
        let count = complete(&printed);
        assert_eq!(without_age(&printed), text.repeat(count), "{signal}");

        // JSON Lines: each line is an object.
        let complete = |printed: &str| printed.matches('\n').count();
        let printed = watched(&node, "--format=json", signal, complete);
        for line in printed.lines() {
            let document: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(&document["instances"][0]["forwards"], forwards);
        }
    }
}

/// For such a process a signal without a handler has no effect (pid_namespaces(7)).
#[test]
fn watch_as_the_first_process_of_a_container_ends_at_a_signal() {
    let node = Namespace::forwarding("node");
    let container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let watch = nodefwd(["status", "--watch"]).wrapped(&container);
        let unshare = watch.spawn(&node);
        let said = |stdout: &String| !stdout.is_empty();
        wait_until("a snapshot", || unshare.stdout(), said);
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let child = fs::read_to_string(children).expect("its child");
        let child = child.trim().parse().expect("one child");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), signal).expect("sent");
        unshare.finish().expect_exit(0);
    }
}
