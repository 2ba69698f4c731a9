//! nodefwd forwards ports of a Linux network namespace to other hosts, in the kernel.
//!
//! Data goes one way:
//!
//! ```text
//! arguments and environment   cli
//!           |
//!        Config               config     parse, don't validate
//!           |
//!        Ruleset              ruleset    plain data; prints itself as nft syntax
//!           |
//!     netlink messages        netfilter  the only unsafe code
//!           |
//!         kernel
//! ```
//!
//! [`instance`] drives it: is forwarding on ([`sysctl`]), install, wait for a signal, remove.
//! [`check`] looks at what is around, without changing anything; [`status`] reads back what instances have in the kernel.

#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod check;
pub mod cli;
#[cfg(feature = "completions")]
pub mod completions;
pub mod config;
mod drain;
mod events;
pub mod flow;
pub mod instance;
pub mod lock;
pub mod logging;
#[allow(unsafe_code)]
pub mod netfilter;
mod notify;
mod poll;
mod privileges;
mod replace;
mod rules;
pub mod ruleset;
mod signals;
pub mod status;
pub mod sysctl;
