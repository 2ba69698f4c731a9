//! nodefwd forwards ports of a Linux network namespace to other hosts, in the kernel.
//!
//! Data goes one way: arguments and environment → [`config::Config`] → [`ruleset::Ruleset`] → a
//! transaction of netlink messages → kernel. Imports go one way too: a module imports only from the
//! lines below its own (tests/layers.rs checks it).
//!
//! ```text
//! main           cli to exit status
//! cli            commands and flags
//! instance       one running forwarder: install, wait, drain, replace, remove
//! check          would it work here, and if not, why not?
//! status         what runs here, read back from the kernel
//! firewall       other programs' rules, walked with a made-up packet
//! siblings       the other instances, and what they claim
//! fast_path      on which interfaces connections take it
//! lock           one instance of a name
//! nftables       nf_tables: install, list, notice changes
//! conntrack      conntrack entries: list, delete, wait for
//! ruleset        Config → plain data → nft text
//! sysctl         which families this host forwards
//! rtnetlink      routes, interfaces, addresses
//! resolver       addresses of names, from /etc/hosts and DNS
//! sock_diag      sockets that wait for clients
//! xfrm           policies of IPsec
//! config         what the user asked for: parse, don't validate
//! tcp            attempts to connect to a destination
//! netlink        messages and sockets
//! capability     process   logging   completions   text   uapi
//! ```

#![deny(unsafe_code)]

mod capability;
pub mod check;
pub mod cli;
#[cfg(feature = "completions")]
pub mod completions;
pub mod config;
mod conntrack;
pub mod fast_path;
mod firewall;
#[cfg(test)]
mod fuzz;
pub mod instance;
mod lock;
pub mod logging;
pub mod netlink;
#[cfg(test)]
mod netns;
mod nftables;
mod process;
pub mod resolver;
mod rtnetlink;
pub mod ruleset;
mod siblings;
mod sock_diag;
pub mod status;
mod sysctl;
mod tcp;
mod text;
mod uapi;
mod xfrm;
