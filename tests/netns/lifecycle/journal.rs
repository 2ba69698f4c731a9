//! What machines read of the log: the journal's priorities, and JSON.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::fixture::{Namespace, Nodefwd, nodefwd};

/// What it writes to a socket of which the environment says that it is the journal's, or another one.
fn written(call: &Nodefwd, is_journal: bool) -> String {
    let (mut journal, stderr) = UnixStream::pair().expect("sockets");
    let stderr = File::from(OwnedFd::from(stderr));
    let file = stderr.metadata().expect("a file");
    let inode = file.ino() + u64::from(!is_journal);
    let stream = format!("{}:{inode}", file.dev());
    let call = call.clone().env("JOURNAL_STREAM", stream);
    let node = Namespace::new("node");
    call.spawn_with_stderr(&node, stderr)
        .finish()
        .expect_exit(1);
    let mut text = String::new();
    journal.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn the_journal_gets_priorities_and_others_do_not() {
    let call = nodefwd(["--src-ranges=10.1.0.1/24", "tcp/80=10.2.0.11", "-v"]);
    let text = written(&call, true);
    for start in ["<3>error: cannot forward", "<4>warning: SRC_RANGES"] {
        assert!(text.lines().any(|line| line.starts_with(start)), "{text}");
    }
    let text = written(&call, false);
    assert!(
        text.starts_with("warning: ") && !text.contains('<'),
        "{text}"
    );
    let json = written(&call.args(&["--log-format=json"]), true);
    assert!(json.starts_with("<4>{\"time\":"), "{json}");
}

#[test]
fn json_is_one_object_on_each_line() {
    let node = Namespace::forwarding("node");
    let flag = nodefwd(["--log-format", "json", "tcp/80=10.2.0.11"]);
    let variable = nodefwd(["tcp/80=10.2.0.11"]).env("NODEFWD_LOG_FORMAT", "json");
    for call in [flag, variable] {
        let forwarder = call.spawn(&node);
        forwarder.wait_for_line("{");
        let stderr = forwarder
            .stop(nix::sys::signal::Signal::SIGTERM)
            .expect_exit(0)
            .stderr;
        let lines = stderr
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let lines: Vec<Value> = lines.collect();
        let message = |line: &Value| line["message"].as_str().expect("a message").to_owned();
        assert!(message(&lines[0]).starts_with("ready: "), "{stderr}");
        assert_eq!(lines[0]["level"], "info");
        assert_eq!(lines[0]["table"], "nodefwd-tcp-80");
        assert!(
            lines[0]["milliseconds"]
                .as_f64()
                .is_some_and(|time| time > 0.0)
        );
        // A warning of what is around may come before.
        let last = lines.last().expect("a line");
        assert!(message(last).starts_with("stopped: "), "{stderr}");
        assert_eq!(last["connections"], 0);
    }
}

#[test]
fn an_error_is_json_too_also_of_the_command_line() {
    let call = nodefwd(["tcp/80=10.0.0.256"]).env("NODEFWD_LOG_FORMAT", "json");
    for arguments in [&[][..], &["--bogus"]] {
        let stderr = call
            .clone()
            .args(arguments)
            .finish_here()
            .expect_exit(2)
            .stderr;
        let line: Value = serde_json::from_str(&stderr).expect("JSON");
        assert_eq!(line["level"], "error", "{stderr}");
    }
    let wrong = nodefwd(["tcp/80=10.0.0.5"]).env("NODEFWD_LOG_FORMAT", "xml");
    let stderr = wrong.finish_here().expect_exit(2).stderr;
    assert!(
        stderr.starts_with("error: NODEFWD_LOG_FORMAT (--log-format): 'xml' "),
        "{stderr}"
    );
}

/// Durations are in one unit and ASCII, so that programs can read them.
#[test]
fn the_time_until_it_is_ready_is_in_milliseconds() {
    let node = Namespace::forwarding("node");
    let forwarder = nodefwd(["tcp/80=10.2.0.11"]).start(&node);
    let line = forwarder.wait_for_line("ready: ");
    let (_, time) = line.split_once(" after ").expect("a time");
    let time = time.strip_suffix(" ms").expect("milliseconds");
    assert!(time.parse::<f64>().is_ok_and(|time| time > 0.0), "{line}");
    assert!(line.is_ascii(), "{line}");
}
