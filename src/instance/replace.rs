//! `NODEFWD_REPLACE`: one process takes the place of another, without a moment in between.
//!
//! The new process asks over the lock's socket ([`crate::lock`]), and the old one passes on the socket
//! that owns its table, and the lock. With those the new one replaces the table in one transaction, as
//! only its owner can. The old one waits meanwhile, and ends when it hears that this is done. If the new
//! one hangs up before, or takes too long, the old one goes on.

mod predecessor;
mod successor;

pub use predecessor::{Predecessor, ReplaceError, ReplaceProblem};
pub use successor::serve;

use std::time::Duration;

/// What the new process asks with.
const HELLO: &[u8] = b"nodefwd replace 1\n";

/// From the new process: its rules are installed, so the old one must end.
const DONE: u8 = b'd';

/// From the old process: it goes on, so the new one must not replace its rules any more.
const CANCELLED: u8 = b'c';

/// How long either waits for the other.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
