//! How long no packet of a TCP connection has come by.

use crate::netlink::Message;
use crate::uapi::*;
use std::fs;
use std::time::Duration;

/// The time-outs of TCP connections in this network namespace.
pub struct Timeouts {
    established: u32,
    /// The longest of an established connection that waits for an acknowledgement.
    unacknowledged: u32,
}

impl Timeouts {
    /// `None` if the kernel does not say.
    pub fn read() -> Option<Self> {
        let read = |name: &str| -> Option<u32> {
            let file = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{name}");
            fs::read_to_string(file).ok()?.trim_end().parse().ok()
        };
        Some(Timeouts {
            established: read("established")?,
            unacknowledged: read("unacknowledged")?.max(read("max_retrans")?),
        })
    }

    /// How long the connection of an entry idles at least. Each packet gives an established one its full
    /// time-out again, or a shorter one if what it sends is not acknowledged (nf_conntrack_tcp_packet in
    /// net/netfilter/nf_conntrack_proto_tcp.c). `None` for one of a shorter time-out, and for one in a flowtable, whose
    /// packets conntrack does not see.
    pub fn idle(&self, message: &Message<'_>) -> Option<Duration> {
        let attributes = message.attributes();
        let state = attributes
            .nested(CTA_PROTOINFO)
            .nested(CTA_PROTOINFO_TCP)
            .get(CTA_PROTOINFO_TCP_STATE);
        let in_flowtable = attributes.u32(CTA_STATUS)? & IPS_OFFLOAD != 0;
        if state != Some(&[TCP_CONNTRACK_ESTABLISHED]) || in_flowtable {
            return None;
        }
        let left = attributes.u32(CTA_TIMEOUT)?;
        // The kernel leaves out the part of a second.
        let idle = self.established.checked_sub(left + 1)?;
        (left > self.unacknowledged).then(|| Duration::from_secs(idle.into()))
    }
}
