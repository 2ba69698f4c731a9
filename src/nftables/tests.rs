//! Tests against the kernel, each in a network namespace of its own.

mod bytes;
mod contention;
pub mod recorded;
mod rejected;
