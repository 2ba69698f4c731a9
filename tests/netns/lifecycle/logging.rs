//! What is logged: `-v`, `-q` and RUST_LOG, and colours.

use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Nodefwd, Outcome, nodefwd, wait_until};

/// How a line of each level starts, from the most important on. Lines of level info have no label.
const LINES: [(&str, &str); 5] = [
    ("error", "error: "),
    ("warn", "warning: SRC_RANGES (--src-ranges): 10.1.0.1/24"),
    ("info", "ready: forwarding tcp/80"),
    ("debug", "debug: sending a transaction of "),
    ("trace", "trace: message 1: table inet nodefwd-tcp-80"),
];

/// The flags, RUST_LOG, and the least important level that is logged with them.
const LEVELS: [(&str, Option<&str>, &str); 22] = [
    ("", None, "info"),
    ("-v", None, "debug"),
    ("--verbose", None, "debug"),
    ("-vv", None, "trace"),
    ("-v -v", None, "trace"),
    ("-vvv", None, "trace"),
    ("-q", None, "warn"),
    ("--quiet", None, "warn"),
    ("-qq", None, "error"),
    ("-qqq", None, "error"),
    ("run -v", None, "debug"),
    ("run -q", None, "warn"),
    // RUST_LOG overrides the flags, up and down.
    ("", Some("trace"), "trace"),
    ("", Some("debug"), "debug"),
    ("-qq", Some("info"), "info"),
    ("-q", Some("debug"), "debug"),
    ("-vv", Some("info"), "info"),
    ("-v", Some("warn"), "warn"),
    ("-vv", Some("error"), "error"),
    ("-vv", Some("off"), "off"),
    // Empty is unset, as for every other variable.
    ("", Some(""), "info"),
    ("-v", Some(""), "debug"),
];

/// How many of [`LINES`] are logged.
fn logged(level: &str) -> usize {
    let index = LINES.iter().position(|(name, _)| *name == level);
    index.map_or(0, |index| index + 1)
}

fn with_rust_log(call: Nodefwd, level: Option<&str>) -> Nodefwd {
    match level {
        Some(level) => call.env("RUST_LOG", level),
        None => call,
    }
}

/// Runs it from its start to its end. Without a line that says that it is ready, its table does.
fn run(node: &Namespace, call: &Nodefwd) -> Outcome {
    let forwarder = call.spawn(node);
    let is_installed = |ruleset: &String| ruleset.contains("table inet nodefwd-tcp-80");
    wait_until("a table", || node.ruleset(), is_installed);
    forwarder.stop(Signal::SIGTERM).expect_exit(0)
}

#[test]
fn v_and_q_and_rust_log_say_how_much_is_logged() {
    let node = Namespace::forwarding("node");
    for (flags, rust_log, level) in LEVELS {
        let call = nodefwd(flags.split_whitespace());
        let call = call.args(&["--src-ranges=10.1.0.1/24", "tcp/80=10.2.0.11"]);
        let Outcome { stdout, stderr, .. } = run(&node, &with_rust_log(call, rust_log));
        // An error is in no run that succeeds.
        for (index, (name, start)) in LINES.iter().enumerate().skip(1) {
            let found = stderr.lines().any(|line| line.starts_with(start));
            let expected = index < logged(level);
            assert_eq!(
                found, expected,
                "'{flags}', RUST_LOG={rust_log:?}, {name}:\n{stderr}"
            );
        }
        // Nothing of a level that is not logged, whatever it says.
        if logged(level) <= 1 {
            assert_eq!(stderr, "", "'{flags}', RUST_LOG={rust_log:?}");
        }
        assert_eq!(stdout, "");
    }
}

#[test]
fn an_error_is_logged_whatever_the_flags_but_not_with_rust_log_off() {
    for (flags, rust_log, level) in LEVELS {
        let call = nodefwd(flags.split_whitespace()).args(&["tcp/80=10.2.0.256"]);
        let outcome = with_rust_log(call, rust_log).finish_here().expect_exit(2);
        let found = outcome.stderr.starts_with("error: ");
        let expected = logged(level) >= 1;
        assert_eq!(found, expected, "'{flags}', RUST_LOG={rust_log:?}");
    }
}

#[test]
fn v_and_q_exclude_each_other() {
    let outcome = nodefwd(["-v", "-q", "tcp/80=10.2.0.11"]).finish_here();
    let stderr = outcome.expect_exit(2).stderr;
    assert!(stderr.contains("--quiet"), "{stderr}");
}

/// Each has a terminal show colours, or says that there is one.
const COLOURFUL: [(&str, &str); 4] = [
    ("TERM", "xterm-256color"),
    ("COLORTERM", "truecolor"),
    ("CLICOLOR", "1"),
    ("CI", "true"),
];

const ESCAPE: char = '\u{1b}';

/// A call with a warning.
fn warning() -> Nodefwd {
    let call = nodefwd(["render", "--src-ranges=10.1.0.1/24", "tcp/80=10.2.0.11"]);
    let set = |call: Nodefwd, (name, value): (&str, &str)| call.env(name, value);
    COLOURFUL.into_iter().fold(call, set)
}

#[test]
fn a_pipe_gets_no_colours() {
    let stderr = warning().finish_here().expect_exit(0).stderr;
    assert!(stderr.starts_with("warning: SRC_RANGES"), "{stderr:?}");
    assert!(!stderr.contains(ESCAPE), "{stderr:?}");
    let error = nodefwd(["tcp/80=10.2.0.256"]).env("TERM", "xterm");
    let stderr = error.finish_here().expect_exit(2).stderr;
    assert!(stderr.starts_with("error: "), "{stderr:?}");
    assert!(!stderr.contains(ESCAPE), "{stderr:?}");
}

#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    // script(1) runs a command in a terminal of its own, and prints what that shows.
    const SCRIPT: &str = "exec script --quiet --return --command \"$0 $*\" /dev/null";
    let call = warning().wrapped(&["sh", "-c", SCRIPT]);
    let shown = call.finish_here().expect_success();
    let coloured = format!("{ESCAPE}[33mwarning:{ESCAPE}[0m SRC_RANGES");
    assert!(shown.contains(&coloured), "{shown:?}");
    let shown = call.env("NO_COLOR", "1").finish_here().expect_success();
    assert!(shown.contains("warning: SRC_RANGES"), "{shown:?}");
    assert!(!shown.contains(ESCAPE), "{shown:?}");
}
