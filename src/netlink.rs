//! Netlink (netlink(7)): messages, and the sockets that carry them.
//!
//! Knows nothing of this program: nf_tables, conntrack and routing are above it.

mod message;
mod socket;
#[allow(unsafe_code)]
mod sys;

#[cfg(test)]
pub use message::attributes;
pub use message::{Attributes, Message, NLMSG_FLAGS, Request, address, messages, octets};
pub use socket::{Failure, MAX_DUMP_RETRIES, Overrun, Refusal, Socket, give_up_when, or_missing};
#[cfg(test)]
pub use sys::replace_descriptor;
pub use sys::{receive_descriptors, send_descriptors};
