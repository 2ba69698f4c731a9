//! Messages that change or delete entries.

use super::{ConntrackError, message_type};
use crate::netlink::{Message, Request, Socket};
use crate::uapi::*;
use nix::errno::Errno;
use nix::libc;

/// How many bytes of changes are sent at once; far below the default size of a send buffer.
const BYTES: usize = 1 << 16;

/// Changes that are sent piece by piece, over a socket of their own: that of the list is in use.
pub struct Changes {
    socket: Socket,
    bytes: Vec<u8>,
}

impl Changes {
    /// Connects to the kernel.
    pub fn open() -> Result<Self, ConntrackError> {
        let socket = Socket::netfilter()?;
        let bytes = Vec::new();
        Ok(Changes { socket, bytes })
    }

    /// Sends it now or later.
    pub fn push(&mut self, change: &Request) -> Result<(), ConntrackError> {
        if self.bytes.len() + change.bytes().len() > BYTES {
            self.send()?;
        }
        self.bytes.extend_from_slice(change.bytes());
        Ok(())
    }

    /// Sends those that have not been sent. Entries that are gone are no error.
    pub fn send(&mut self) -> Result<(), ConntrackError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let refusal = self.socket.transmit(&self.bytes)?;
        self.bytes.clear();
        match refusal {
            // The entry is gone, or another has taken its place.
            Some(refusal) if refusal.errno != Errno::ENOENT => {
                Err(ConntrackError::Refused(refusal.errno))
            }
            _ => Ok(()),
        }
    }
}

/// Names the entry by its original direction, its zone and its id, so that a new entry with the same
/// addresses is not mistaken for it.
pub fn deletion(message: &Message<'_>) -> Option<Request> {
    change(IPCTNL_MSG_CT_DELETE, message, &[CTA_ID, CTA_ZONE])
}

/// Has conntrack take the next RST of a TCP connection for its end, unless another packet comes before.
///
/// What the connection sent while it was in a flowtable, conntrack has not seen. So a RST has not the sequence number
/// that it expects, and leaves the entry as it is (nf_conntrack_tcp_packet in nf_conntrack_proto_tcp.c), for five
/// minutes. Newer kernels take this flag away when a connection leaves its flowtable (flow_offload_fixup_tcp).
pub fn acceptance_of_resets(message: &Message<'_>) -> Option<Request> {
    let no_last_sequence = [0, IP_CT_TCP_FLAG_MAXACK_SET];
    let flags = |states: Request| {
        states
            .attribute(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &no_last_sequence)
            .attribute(CTA_PROTOINFO_TCP_FLAGS_REPLY, &no_last_sequence)
    };
    let change = change(IPCTNL_MSG_CT_NEW, message, &[CTA_ZONE])?;
    Some(change.nest(CTA_PROTOINFO, |states| {
        states.nest(CTA_PROTOINFO_TCP, flags)
    }))
}

/// A message about the entry, which these attributes name besides its original direction.
fn change(kind: u16, message: &Message<'_>, names: &[u16]) -> Option<Request> {
    let attributes = message.attributes();
    let original = CTA_TUPLE_ORIG | libc::NLA_F_NESTED as u16;
    let family = *message.payload.first()?;
    let mut request = Request::new(message_type(kind), 0, family, 2)
        .attribute(original, attributes.get(CTA_TUPLE_ORIG)?);
    for name in names {
        if let Some(value) = attributes.get(*name) {
            request = request.attribute(*name, value);
        }
    }
    Some(request)
}
