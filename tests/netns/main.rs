//! End-to-end tests: nodefwd in network namespaces, with real traffic from real sockets.
//!
//! They need root, nft, ip, sysctl, conntrack, iptables, strace, setpriv and unshare: tests/run.sh brings
//! what a machine lacks. The variable NODEFWD_BIN has them test another binary than the one that cargo
//! built for them.

mod check;
mod crash;
mod drain;
mod encoders;
mod environment;
mod faults;
mod fixture;
mod forward;
mod forwarding;
mod forwarding_off;
mod input;
mod lifecycle;
mod local_policy;
mod neighbours;
mod notify;
mod options;
mod parity;
mod readme;
mod replace;
mod scale;
mod sctp;
mod shapes;
mod siblings;
mod source_ranges;
mod stale_flows;
mod status;
mod unowned;
mod whose_flows;
