//! Scripts with which shells complete the command line.
//!
//! They are made from [`crate::cli`] ahead of time, by tests/generated.rs: what makes them is larger
//! than they are.

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
            Shell::Bash => include_str!("completions/nodefwd.bash"),
            Shell::Fish => include_str!("completions/nodefwd.fish"),
            Shell::Zsh => include_str!("completions/_nodefwd"),
        }
    }
}
