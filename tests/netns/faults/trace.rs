//! The system calls of a run, as strace(1) records them, by which tests make one of them fail.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Nodefwd};

/// The lines of a run that was stopped once it was ready.
pub struct Trace {
    pub until_ready: String,
    pub whole: String,
}

impl Trace {
    /// Runs a call with these options of strace; `name` is that of a file of its own.
    pub fn of(call: &Nodefwd, options: &[&str], name: &str) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let output = format!("--output={}", file.display());
        let traced = call.clone().traced(&[options, &[&output]].concat());
        let forwarder = traced.start(&Namespace::forwarding("node"));
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        let whole = fs::read_to_string(file).expect("a trace");
        let (until_ready, _) = whole.split_once("\"ready: ").expect("the line 'ready: '");
        Trace {
            until_ready: until_ready.to_owned(),
            whole,
        }
    }
}
