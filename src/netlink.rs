//! Netlink (netlink(7)): messages, and the sockets that carry them.
//!
//! Knows nothing of this program: nf_tables, conntrack and routing are above it.

#[cfg(test)]
mod any_messages;
mod give_up;
mod message;
mod names;
mod socket;
#[allow(unsafe_code)]
mod sys;

#[cfg(test)]
pub use any_messages::any_messages;
pub use give_up::{give_up_when, gives_up};
#[cfg(test)]
pub use message::attributes;
pub use message::{Attributes, Message, NLMSG_FLAGS, Request, address, messages, name, octets};
pub use socket::{Failure, MAX_DUMP_RETRIES, Overrun, Refusal, Socket, TooLong, or_missing};
#[cfg(test)]
pub use sys::replace_descriptor;
pub use sys::{
    in_same_namespace, is_ignored, put_off_acknowledgement, random, read_option,
    receive_descriptors, send_descriptors, socket_option,
};
