//! Taking the place of a live instance of the same name, without a moment in between.
//!
//! The new process asks over the lock's socket ([`crate::lock`]), and the old one passes on the
//! socket that its table belongs to, and the lock. With those the new one replaces the table in one
//! transaction, as only its owner can; the old one waits meanwhile, and leaves when it hears that this
//! is done. If the new one hangs up before, or takes too long, the old one goes on.

mod predecessor;
mod successor;

pub use predecessor::{Predecessor, Problem, ReplaceError};
pub use successor::{Answered, answer};

use std::time::Duration;

/// What a new process asks for.
const REQUEST: &[u8] = b"nodefwd replace 1\n";

/// From the new one: its rules are in, so the old one must leave.
const DONE: u8 = b'd';

/// From the old one: it goes on, so the new one must not replace its rules any more.
const WITHDRAWN: u8 = b'w';

/// How long either waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
