//! Outputs that take nothing: a sentence and the documented status, whatever is closed or full.

use std::fs;
use std::path::Path;

use crate::fixture::{Namespace, nodefwd, program};

/// Runs it with this redirection of a shell.
fn run(arguments: &[&str], redirection: &str) -> (Option<i32>, String) {
    let script = format!("exec \"$0\" \"$@\" {redirection}");
    let call = nodefwd(arguments.iter().copied()).wrapped(&["sh", "-c", &script]);
    let outcome = call.finish(&Namespace::forwarding("node"));
    (outcome.status.code(), outcome.stderr)
}

/// Each writes something, and changes nothing.
const PRINTING: [&[&str]; 9] = [
    &["render", "tcp/80=10.2.0.11"],
    &["check", "tcp/80=10.2.0.11"],
    &["status"],
    &["status", "--format=json"],
    &["--help"],
    &["status", "--help"],
    &["help"],
    &["version"],
    &["completions", "bash"],
];

/// Where standard output goes, and why that fails.
const OUTPUTS: [(&str, &str); 2] = [(">/dev/full", "No space left"), (">&-", "it is closed")];

#[test]
fn a_full_or_closed_standard_output_is_an_error() {
    for arguments in PRINTING {
        for (redirection, why) in OUTPUTS {
            let (status, stderr) = run(arguments, redirection);
            assert_eq!(status, Some(1), "{arguments:?} {redirection}: {stderr}");
            let expected = format!("error: cannot write to standard output: {why}");
            assert!(
                stderr.contains(&expected),
                "{arguments:?} {redirection}: {stderr}"
            );
        }
    }
}

/// As `head` does.
#[test]
fn one_that_is_closed_by_its_reader_needs_no_words() {
    for arguments in PRINTING {
        let (status, stderr) = run(arguments, "| true");
        // The shell has the status of the last command.
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// What cannot start anywhere, with its status.
const FAILING: [(&[&str], i32); 4] = [
    (&["--bogus"], 2),
    (&["status", "--format", "xml"], 2),
    (&["tcp/80=10.2.0.256"], 2),
    (&["status", "unknown"], 1),
];

const ERRORS: [&str; 3] = ["2>/dev/full", "2>&-", "<&- >&- 2>&-"];

/// Values of RUST_LOG, of which the second is wrong.
const FILTERS: [&str; 2] = ["", "a=b=c"];

#[test]
fn a_full_or_closed_standard_error_changes_no_status() {
    for (arguments, expected) in FAILING {
        for redirection in ERRORS {
            for filter in FILTERS {
                let script = format!("exec \"$0\" \"$@\" {redirection}");
                let call = nodefwd(arguments.iter().copied()).env("RUST_LOG", filter);
                let call = call.wrapped(&["sh", "-c", &script]);
                let outcome = call.finish(&Namespace::forwarding("node"));
                assert_eq!(outcome.status.code(), Some(expected), "{outcome:?}");
            }
        }
    }
}

/// How often it is run in all: without /dev/null, once more each, and to forward.
pub const CALLS: usize = PRINTING.len() * (OUTPUTS.len() + 1)
    + FAILING.len() * ERRORS.len() * FILTERS.len()
    + PRINTING.len()
    + FAILING.len()
    + 1;

/// Rust's runtime opens /dev/null in the place of a closed descriptor, and aborts without it.
#[test]
fn closed_descriptors_change_no_status_where_there_is_no_dev_null() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty-root");
    fs::create_dir_all(&root).expect("a folder");
    fs::copy(program(), root.join("nodefwd")).expect("a copy");
    let root = root.to_str().expect("UTF-8");
    let forwarding = (&["tcp/80=10.2.0.11"][..], 1);
    let printing = PRINTING.map(|arguments| (arguments, 1));
    for (arguments, expected) in FAILING.into_iter().chain(printing).chain([forwarding]) {
        let script = format!("exec chroot {root} /nodefwd \"$@\" <&- >&- 2>&-");
        let call = nodefwd(arguments.iter().copied()).wrapped(&["sh", "-c", &script]);
        let outcome = call.finish(&Namespace::forwarding("node"));
        assert_eq!(outcome.status.code(), Some(expected), "{outcome:?}");
    }
}
