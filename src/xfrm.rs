//! Policies of IPsec (ip-xfrm(8)), by which the kernel drops packets, or wants them encrypted. Reading them needs
//! CAP_NET_ADMIN.

use crate::netlink::{Message, Request, Socket, address};
use crate::uapi::{XFRM_MSG_GETPOLICY, XFRM_POLICY_FWD, XFRM_POLICY_OUT};
use ipnet::IpNet;
use nix::libc;
use std::net::IpAddr;
use std::{fmt, io};
use thiserror::Error;

/// The policies cannot be read.
#[derive(Debug, Error)]
pub enum XfrmError {
    /// A 64-bit kernel without a translator of its messages (xfrm_user_rcv_msg in net/xfrm/xfrm_user.c).
    #[error("not looked at: policies of IPsec, which this kernel shows to 64-bit programs only")]
    OnlyTo64Bit(#[source] io::Error),
    #[error("not looked at: policies of IPsec, see ip xfrm policy")]
    Unreadable(#[source] io::Error),
}

impl From<io::Error> for XfrmError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) if cfg!(target_pointer_width = "32") => Self::OnlyTo64Bit(error),
            _ => Self::Unreadable(error),
        }
    }
}

/// Which packets a policy is for, of those that this host forwards or sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    from: IpNet,
    to: IpNet,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.from, self.to)
    }
}

impl Policy {
    /// Whether it can be for packets to this host or from it.
    pub fn concerns(&self, host: IpAddr) -> bool {
        self.from.contains(&host) || self.to.contains(&host)
    }
}

/// `struct xfrm_userpolicy_info` (linux/xfrm.h), which begins with a `struct xfrm_selector`: where it has its fields,
/// and its length without the padding at its end, which i386 has not.
const SEL_DADDR: usize = 0;
const SEL_SADDR: usize = 16;
const SEL_FAMILY: usize = 40;
const SEL_PREFIXLEN_D: usize = 42;
const SEL_PREFIXLEN_S: usize = 43;
const DIR: usize = 160;
const POLICY: usize = 164;

/// The policies of this network namespace, without those of single sockets; none if the kernel knows no IPsec.
pub fn policies() -> Result<Vec<Policy>, XfrmError> {
    let socket = match Socket::xfrm() {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        socket => socket?,
    };
    // A `struct rtgenmsg` of all families.
    let all = Request::dump(XFRM_MSG_GETPOLICY, &[0; 4]);
    let listed = socket.list(&all, policy);
    listed.map_err(|failure| io::Error::from(failure).into())
}

fn policy(message: &Message<'_>) -> Option<Policy> {
    let policy: &[u8; POLICY] = message.payload.first_chunk()?;
    let family = u16::from_ne_bytes([policy[SEL_FAMILY], policy[SEL_FAMILY + 1]]);
    let octets = match i32::from(family) {
        libc::AF_INET => 4,
        libc::AF_INET6 => 16,
        _ => return None,
    };
    let network = |at: usize, length: usize| {
        let address = address(&policy[at..at + octets])?;
        IpNet::new(address, policy[length]).ok()
    };
    let is_on_the_way = [XFRM_POLICY_OUT, XFRM_POLICY_FWD].contains(&policy[DIR]);
    is_on_the_way.then_some(Policy {
        from: network(SEL_SADDR, SEL_PREFIXLEN_S)?,
        to: network(SEL_DADDR, SEL_PREFIXLEN_D)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::any_messages;

    #[test]
    fn no_message_panics() {
        any_messages(POLICY, |message| {
            policy(message);
        });
    }
}
