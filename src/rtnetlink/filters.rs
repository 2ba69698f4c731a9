//! Programs and filters that see packets before and after netfilter does: those of tc(8), and XDP.

use super::{IFI_INDEX, IFINFOMSG, Routes, RtnetlinkError};
use crate::netlink::{Attributes, Failure, Message, Request};
use crate::uapi::{IFLA_XDP, IFLA_XDP_ATTACHED};
use nix::libc;

/// Length in bytes of `struct tcmsg` (linux/rtnetlink.h), and where it has its fields.
const TCMSG: usize = 20;
const TCM_IFINDEX: usize = 4;
const TCM_PARENT: usize = 12;

/// Where filters are: for packets that come in and that go out (`clsact`), and those of the older `ingress`
/// (linux/pkt_sched.h).
const PARENTS: [u32; 3] = [0xffff_fff2, 0xffff_fff3, 0xffff_0000];

impl Routes {
    /// Whether an interface has filters of tc(8), or an XDP program.
    pub fn has_filters(&self, index: u32) -> Result<bool, RtnetlinkError> {
        for parent in PARENTS {
            let mut header = [0; TCMSG];
            header[TCM_IFINDEX..TCM_IFINDEX + 4].copy_from_slice(&index.to_ne_bytes());
            header[TCM_PARENT..TCM_PARENT + 4].copy_from_slice(&parent.to_ne_bytes());
            let request = Request::dump(libc::RTM_GETTFILTER, &header);
            let found = match self.socket.list(&request, |_| Some(())) {
                // A kernel may have none.
                Err(Failure::Refused(_)) => continue,
                found => found?,
            };
            if !found.is_empty() {
                return Ok(true);
            }
        }
        let mut header = [0; IFINFOMSG];
        header[IFI_INDEX..IFI_INDEX + 4].copy_from_slice(&index.to_ne_bytes());
        let request = Request::with_header(libc::RTM_GETLINK, 0, &header, 1);
        Ok(self.get(&request, has_xdp)?.is_some())
    }
}

fn has_xdp(message: &Message<'_>) -> Option<()> {
    let attributes = Attributes(message.payload.get(IFINFOMSG..)?);
    let attached = attributes.nested(IFLA_XDP).get(IFLA_XDP_ATTACHED);
    attached
        .is_some_and(|attached| attached != [0])
        .then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::any_messages;

    #[test]
    fn no_message_panics() {
        any_messages(IFINFOMSG, |message| {
            has_xdp(message);
        });
    }
}
