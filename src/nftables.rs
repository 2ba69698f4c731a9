//! nf_tables over netlink: a ruleset installed in one transaction and removed, tables, chains, rules
//! and sets listed, and changes noticed.
//!
//! [`Nftables`] talks to the kernel. `encode` turns a ruleset into messages (`expr` for the expressions
//! of rules, `matches` for those that choose packets, `set` for sets, `flowtable` for the fast path, `libnftnl` for what libnftnl
//! writes), `batch` puts them together, and [`list`] reads what is there.

mod batch;
mod choice;
mod client;
mod encode;
mod error;
mod expr;
mod flowtable;
#[allow(unsafe_code)]
mod libnftnl;
pub mod list;
mod matches;
mod monitor;
mod set;
#[cfg(test)]
pub mod tests;

pub use client::{Installation, Nftables};
pub use error::NftablesError;
pub use monitor::{Changed, TableEvents};
