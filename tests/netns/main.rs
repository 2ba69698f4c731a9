//! End-to-end tests: nodefwd in network namespaces, with real traffic from real sockets.
//!
//! They need root, nft, ip, sysctl, conntrack, iptables, strace, setpriv, unshare and script: tests/run.sh
//! installs what is missing. The variable NODEFWD_BIN names another binary to test than the one that
//! cargo built.

mod check;
mod coexistence;
mod conntrack;
mod encoders;
mod faults;
mod fixture;
mod forwarding;
mod input;
mod lifecycle;
#[cfg(feature = "names")]
mod names;
mod nft_versions;
mod output;
mod readme;
mod replace;
mod status;
