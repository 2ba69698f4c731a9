//! Requests on their way to the kernel.

use super::{Failure, Refusal, Socket, outcome};
use nix::libc;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::io;
use thiserror::Error;

/// A request that does not fit into the socket's send buffer, which may not be enlarged so far.
#[derive(Debug, Error)]
#[error(
    "{bytes} bytes, but net.core.wmem_max = {limit} allows {} of them: on the host, outside of this user namespace, run: sysctl -w net.core.wmem_max={}",
    2 * limit - RESERVED,
    (bytes + RESERVED).div_ceil(2)
)]
pub struct TooLong {
    bytes: usize,
    limit: usize,
}

/// How much of its send buffer a socket leaves free: 32 bytes (netlink_sendmsg in
/// net/netlink/af_netlink.c).
const RESERVED: usize = 32;

impl Socket {
    /// Sends a batch of any length in one piece, and reads the replies up to `last_sequence`'s.
    pub fn transact(&self, bytes: &[u8], last_sequence: u32) -> Result<(), Failure> {
        self.enlarge_send_buffer(bytes.len());
        self.send(bytes)?;
        let mut refusal = None;
        let mut acknowledged = false;
        self.replies(|message| match outcome(&message, libc::NLMSG_ERROR) {
            // Several messages can fail; the first is the cause of the others.
            Some(Err(found)) => refusal = refusal.or(Some(found)),
            Some(Ok(())) => acknowledged |= message.sequence == last_sequence,
            None => {}
        })?;
        match refusal {
            Some(refusal) => Err(Failure::Refused(refusal)),
            None if acknowledged => Ok(()),
            None => Err(Failure::NoReply),
        }
    }

    /// Sends requests without `NLM_F_ACK`, to which the kernel replies only if they fail; gives the first
    /// refusal.
    pub fn transmit(&self, bytes: &[u8]) -> io::Result<Option<Refusal>> {
        self.send(bytes)?;
        let mut refusal = None;
        self.replies(|message| {
            let found = outcome(&message, libc::NLMSG_ERROR).and_then(Result::err);
            refusal = refusal.or(found);
        })?;
        Ok(refusal)
    }

    /// Sends requests in one piece.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = loop {
            match self.socket.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    return Err(io::Error::other(self.too_long(bytes.len())));
                }
                result => break result?,
            }
        };
        if sent != bytes.len() {
            return Err(io::Error::other(
                "the kernel took only a part of the request",
            ));
        }
        Ok(())
    }

    fn too_long(&self, bytes: usize) -> TooLong {
        // The kernel doubles what is asked for.
        let limit = getsockopt(self, sockopt::SndBuf).unwrap_or(0) / 2;
        TooLong { bytes, limit }
    }

    /// Makes the send buffer large enough for a request, which the kernel takes whole or not at all
    /// (netlink_sendmsg). If it may not be enlarged so far, sending fails with EMSGSIZE: of processes that
    /// the whole machine does not trust, a user namespace's for example, net.core.wmem_max limits it
    /// (sk_setsockopt in net/core/sock.c).
    fn enlarge_send_buffer(&self, length: usize) {
        let wanted = length + RESERVED;
        let default = getsockopt(self, sockopt::SndBuf).unwrap_or(0);
        if wanted > default && setsockopt(self, sockopt::SndBufForce, &wanted).is_err() {
            let _ = setsockopt(self, sockopt::SndBuf, &wanted);
        }
    }
}
