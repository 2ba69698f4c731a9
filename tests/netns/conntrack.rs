//! Which conntrack entries (flows) an instance deletes, leaves alone, or waits for.

mod drain;
mod flow_ownership;
mod half_open;
mod host_began;
mod many_flows;
mod new_addresses;
mod sctp_drain;
mod stale_flows;

pub use drain::{FLOOD, OTHERS};
pub use many_flows::FLOWS;
pub use stale_flows::FOREIGN_FLOWS;
