//! Which traffic is forwarded where, and which traffic is left alone.

mod asymmetric;
mod balance;
mod bridged;
mod by_interface;
mod clamp_mss;
mod fast_path;
mod forward_syntax;
mod hairpin;
mod health;
mod invalid;
mod iptables_parity;
mod link_local;
mod local_policy;
mod options;
mod output;
mod scale;
mod sctp;
mod source_ranges;
mod traffic;
mod vrf;
