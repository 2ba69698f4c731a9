//! `nodefwd completions`: scripts with which shells complete the command line.
//!
//! tests/generated.rs makes them from the definitions in `cli`, ahead of time: the code that makes them
//! is larger than they are.

use clap::ValueEnum;

/// A shell that there is a script for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// fish, the friendly interactive shell
    Fish,
    /// The Z shell
    Zsh,
}

impl Shell {
    /// The script, which the shell has to read.
    pub fn script(self) -> &'static str {
        match self {
            Shell::Bash => include_str!("../deploy/completions/nodefwd.bash"),
            Shell::Fish => include_str!("../deploy/completions/nodefwd.fish"),
            Shell::Zsh => include_str!("../deploy/completions/_nodefwd"),
        }
    }
}
