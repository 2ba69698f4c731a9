//! Default routes of all routing tables, and the marks that rules look at.

use super::{RTM_DST_LEN, RTM_TYPE, RTMSG, Routes, RtnetlinkError, dump};
use crate::config::Family;
use crate::netlink::{Attributes, Message};
use crate::uapi::{FRA_FWMARK, RTPROT_RA};
use nix::libc;

/// Where `struct rtmsg` has the protocol that made a route.
const RTM_PROTOCOL: usize = 5;

/// Where `struct rtnexthop` has the interface (linux/rtnetlink.h).
const RTNH_IFINDEX: usize = 4;

/// Length in bytes of `struct fib_rule_hdr` (linux/fib_rules.h).
const FIB_RULE_HDR: usize = 12;

/// A default route, of any routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The index of the interface that it leads to; of several the first.
    pub interface: u32,
    /// Whether the kernel has it from a router advertisement (RFC 4861).
    pub advertised: bool,
}

impl Routes {
    /// The default routes of a family.
    pub fn defaults(&self, family: Family) -> Result<Vec<DefaultRoute>, RtnetlinkError> {
        Ok(self
            .socket
            .list(&dump::<RTMSG>(libc::RTM_GETROUTE, family.number()), default)?)
    }

    /// The marks that routing rules look for (`fwmark` in ip-rule(8)).
    pub fn marks(&self, family: Family) -> Result<Vec<u32>, RtnetlinkError> {
        let request = dump::<FIB_RULE_HDR>(libc::RTM_GETRULE, family.number());
        Ok(self.socket.list(&request, mark)?)
    }
}

fn default(message: &Message<'_>) -> Option<DefaultRoute> {
    let attributes = Attributes(message.payload.get(RTMSG..)?);
    let is_default =
        message.payload[RTM_DST_LEN] == 0 && message.payload[RTM_TYPE] == libc::RTN_UNICAST;
    let several = attributes.get(libc::RTA_MULTIPATH);
    let first = several.and_then(|hops| hops.get(RTNH_IFINDEX..));
    let index = *attributes.get(libc::RTA_OIF).or(first)?.first_chunk()?;
    is_default.then_some(DefaultRoute {
        interface: u32::from_ne_bytes(index),
        advertised: message.payload[RTM_PROTOCOL] == RTPROT_RA,
    })
}

fn mark(message: &Message<'_>) -> Option<u32> {
    let attributes = Attributes(message.payload.get(FIB_RULE_HDR..)?);
    let mark = *attributes.get(FRA_FWMARK)?.first_chunk()?;
    Some(u32::from_ne_bytes(mark)).filter(|mark| *mark != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::any_messages;

    #[test]
    fn no_message_panics() {
        any_messages(RTMSG, |message| {
            default(message);
        });
        any_messages(FIB_RULE_HDR, |message| {
            mark(message);
        });
    }
}
