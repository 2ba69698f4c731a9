//! Netlink (netlink(7)): messages, and the sockets that carry them.
//!
//! Knows nothing of this program: nf_tables, conntrack and routing are above it.

mod message;
mod socket;
#[allow(unsafe_code)]
mod sys;

#[cfg(test)]
pub use message::attributes;
pub use message::{Attributes, Message, Request, address, messages, octets};
pub use socket::{Failure, MAX_RETRIES, Overrun, Refusal, Socket, give_up_when};
#[cfg(test)]
pub use sys::replace_descriptor;
pub use sys::{receive_descriptors, send_descriptors};
