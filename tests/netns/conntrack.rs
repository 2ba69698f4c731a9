//! Which conntrack entries (flows) an instance deletes, leaves alone, or waits for.

mod drain;
mod flow_ownership;
mod sctp_drain;
mod stale_flows;

pub use stale_flows::FOREIGN_FLOWS;
