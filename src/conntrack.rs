//! The kernel's conntrack entries, listed and deleted.

mod changes;
mod dump;
mod idle;
#[cfg(test)]
mod tests;

pub use changes::deletion;
pub use dump::{Dump, Wanted, Which};

use crate::config::{Backend, Family, Protocol, Service};
use crate::netlink::{Attributes, Failure, MAX_DUMP_RETRIES, Message, Request, Socket, address};
use crate::uapi::*;
use changes::{Changes, acceptance_of_resets};
use dump::plan;
use idle::Timeouts;
use nix::errno::Errno;
use nix::libc;
use std::collections::HashSet;
use std::net::IpAddr;
#[cfg(test)]
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use std::{fs, io};
use thiserror::Error;

/// Why conntrack entries cannot be listed or deleted.
#[derive(Debug, Error)]
pub enum ConntrackError {
    #[error("cannot talk to conntrack over netlink")]
    Socket(#[from] io::Error),
    #[error(
        "cannot read the kernel's conntrack entries: load the module with modprobe nf_conntrack_netlink"
    )]
    Refused(#[source] Errno),
    #[error("the kernel did not list all conntrack entries")]
    NoReply,
    #[error(
        "conntrack entries keep changing: {MAX_DUMP_RETRIES} attempts to list them were interrupted"
    )]
    Contended,
}

impl From<Failure> for ConntrackError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Socket(error) => ConntrackError::Socket(error),
            Failure::Refused(refusal) => ConntrackError::Refused(refusal.errno),
            Failure::NoReply => ConntrackError::NoReply,
            Failure::Contended => ConntrackError::Contended,
        }
    }
}

/// A conntrack entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub family: Family,
    pub protocol: Protocol,
    /// The client's address and port.
    pub source: IpAddr,
    pub source_port: u16,
    /// The address and the port that the client sent its first packet to.
    pub destination: IpAddr,
    pub port: u16,
    /// Where DNAT sent it instead.
    pub backend: Option<Backend>,
    /// Whether its source was translated.
    pub masqueraded: bool,
    /// The address and the port that replies come to.
    pub replies_to: (IpAddr, u16),
    /// Whether there has been a reply.
    pub replied: bool,
}

/// The conntrack entries of this network namespace. Reading and deleting them takes CAP_NET_ADMIN
/// (nfnetlink_rcv in net/netfilter/nfnetlink.c).
pub struct Conntrack {
    socket: Socket,
    /// Chooses the dumps for wanted flows among so many entries, if that is known.
    plan: fn(&[Wanted], Option<u64>) -> Vec<Dump>,
}

impl Conntrack {
    /// Connects to the kernel. Needs no privileges.
    pub fn open() -> Result<Self, ConntrackError> {
        let socket = Socket::netfilter()?;
        Ok(Conntrack { socket, plan })
    }

    /// The ids of the matching flows that still run. Only `wanted` ones can match.
    pub fn running(
        &self,
        wanted: &[Wanted],
        matches: &dyn Fn(&Flow) -> bool,
    ) -> Result<HashSet<u32>, ConntrackError> {
        let mut ids = HashSet::new();
        self.visit(wanted, &mut |message| {
            let runs = !is_over(message) && flow(message).is_some_and(|flow| matches(&flow));
            ids.extend(runs.then(|| message.attributes().u32(CTA_ID)).flatten());
        })?;
        Ok(ids)
    }

    /// The ids of the matching TCP connections of which no packet has come by for longer than that, as far as the kernel
    /// tells. Only `wanted` ones can match.
    pub fn idle(
        &self,
        wanted: &[Wanted],
        matches: &dyn Fn(&Flow) -> bool,
        limit: Duration,
    ) -> Result<HashSet<u32>, ConntrackError> {
        let mut ids = HashSet::new();
        let Some(timeouts) = Timeouts::read() else {
            return Ok(ids);
        };
        self.visit(wanted, &mut |message| {
            let idles = timeouts.idle(message).is_some_and(|idle| idle > limit);
            let idles = idles && flow(message).is_some_and(|flow| matches(&flow));
            ids.extend(idles.then(|| message.attributes().u32(CTA_ID)).flatten());
        })?;
        Ok(ids)
    }

    /// The flows of services whose destination was translated, and perhaps others.
    pub fn translated(
        &self,
        services: impl Iterator<Item = Service>,
    ) -> Result<Vec<Flow>, ConntrackError> {
        let which = Which::Translated;
        let wanted: Vec<Wanted> = services.map(|service| Wanted { service, which }).collect();
        let mut flows = Vec::new();
        self.visit(&wanted, &mut |message| {
            flows.extend(flow(message).filter(|flow| flow.backend.is_some()));
        })?;
        Ok(flows)
    }

    /// Hands over each masqueraded flow of services, and where it leads.
    pub fn masqueraded(
        &self,
        services: impl Iterator<Item = Service>,
        each: &mut dyn FnMut(&Flow, Backend),
    ) -> Result<(), ConntrackError> {
        let which = Which::Translated;
        let wanted: Vec<Wanted> = services.map(|service| Wanted { service, which }).collect();
        self.visit(&wanted, &mut |message| {
            let flow = flow(message).filter(|flow| flow.masqueraded);
            if let Some((flow, backend)) = flow.and_then(|flow| Some((flow, flow.backend?))) {
                each(&flow, backend);
            }
        })
    }

    /// Deletes the matching entries, and says how many of them still ran. Only `wanted` ones can match.
    /// One that ends by itself meanwhile counts too.
    pub fn delete(
        &self,
        wanted: &[Wanted],
        matches: &dyn Fn(&Flow) -> bool,
    ) -> Result<usize, ConntrackError> {
        let mut ran = 0;
        self.change(wanted, matches, &mut |message| {
            let deletion = deletion(message)?;
            ran += usize::from(!is_over(message));
            Some(deletion)
        })?;
        Ok(ran)
    }

    /// Has a RST end the matching TCP connections, also those that have sent while they were in a flowtable, unless
    /// they send more before. Only `wanted` ones can match.
    pub fn accept_resets(
        &self,
        wanted: &[Wanted],
        matches: &dyn Fn(&Flow) -> bool,
    ) -> Result<(), ConntrackError> {
        let matches = |flow: &Flow| flow.protocol == Protocol::Tcp && matches(flow);
        self.change(wanted, &matches, &mut |message| {
            acceptance_of_resets(message)
        })
    }

    /// Changes the matching entries. They are while the kernel lists others: it holds on to the entry that it goes on
    /// with (ctnetlink_dump_table), and there may be more than there is memory for.
    fn change(
        &self,
        wanted: &[Wanted],
        matches: &dyn Fn(&Flow) -> bool,
        change: &mut dyn FnMut(&Message<'_>) -> Option<Request>,
    ) -> Result<(), ConntrackError> {
        let mut changes = Changes::open()?;
        let mut pushed = Ok(());
        self.visit(wanted, &mut |message| {
            let matching = flow(message).filter(matches).is_some() && pushed.is_ok();
            if let Some(change) = matching.then(|| change(message)).flatten() {
                pushed = changes.push(&change);
            }
        })?;
        pushed?;
        changes.send()
    }

    /// Hands over each entry that the kernel sends for these flows, and others that it may send too: the
    /// receiver has to tell.
    fn visit(
        &self,
        wanted: &[Wanted],
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), ConntrackError> {
        self.visit_by(&(self.plan)(wanted, entries()), &Dump::request, each)
    }

    /// The same in these dumps, which are in order of family. A kernel before 5.8 sends the whole
    /// family for the first of them, which is then not asked for again. If the first has shown nothing
    /// else, a later one may, and only what it selects is new.
    fn visit_by(
        &self,
        dumps: &[Dump],
        request: &dyn Fn(&Dump) -> Request,
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), ConntrackError> {
        for of_family in dumps.chunk_by(|one, next| one.family == next.family) {
            for (index, dump) in of_family.iter().enumerate() {
                let mut is_whole_family = false;
                self.socket.visit(&request(dump), &mut |message| {
                    let selects = dump.selects(message);
                    is_whole_family |= !selects;
                    if selects || index == 0 {
                        each(message);
                    }
                })?;
                if is_whole_family && index == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Conntrack {
    /// One that asks in these dumps, whatever is wanted.
    pub fn asking(plan: fn(&[Wanted], Option<u64>) -> Vec<Dump>) -> Self {
        let socket = Socket::netfilter().unwrap();
        Conntrack { socket, plan }
    }
}

#[cfg(test)]
impl AsFd for Conntrack {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether both ends of a connection have closed it, or one has reset it: the kernel keeps such entries
/// for a while, TCP's for minutes.
pub fn is_over(message: &Message<'_>) -> bool {
    let attributes = message.attributes();
    let states = attributes.nested(CTA_PROTOINFO);
    let tcp = states
        .nested(CTA_PROTOINFO_TCP)
        .get(CTA_PROTOINFO_TCP_STATE);
    let over = matches!(tcp, Some([TCP_CONNTRACK_TIME_WAIT | TCP_CONNTRACK_CLOSE]));
    // An entry begins in this state too, and leaves it at the first reply (sctp_conntracks in
    // nf_conntrack_proto_sctp.c).
    let sctp = states
        .nested(CTA_PROTOINFO_SCTP)
        .get(CTA_PROTOINFO_SCTP_STATE);
    let closed = sctp == Some(&[SCTP_CONNTRACK_CLOSED]);
    let status = attributes.u32(CTA_STATUS).unwrap_or_default();
    over || closed && status & IPS_SEEN_REPLY != 0
}

/// Whether this network namespace has no conntrack entry.
pub fn is_empty() -> bool {
    entries() == Some(0)
}

/// How many entries this network namespace has; `None` if the kernel does not say.
fn entries() -> Option<u64> {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok()?;
    count.trim_end().parse().ok()
}

/// `None` for an entry of another protocol.
pub fn flow(message: &Message<'_>) -> Option<Flow> {
    let attributes = message.attributes();
    let original = attributes.nested(CTA_TUPLE_ORIG);
    let reply = attributes.nested(CTA_TUPLE_REPLY);
    let protocol = Protocol::from_number(protocol_number(original)?)?;
    let source = source(original)?;
    let status = attributes.u32(CTA_STATUS)?;
    // Replies come from where the packets were sent.
    let backend = (self::source(reply)?, port(reply, CTA_PROTO_SRC_PORT)?);
    Some(Flow {
        family: Family::of(source),
        protocol,
        source,
        source_port: port(original, CTA_PROTO_SRC_PORT)?,
        destination: destination(original)?,
        port: port(original, CTA_PROTO_DST_PORT)?,
        backend: (status & IPS_DST_NAT != 0).then_some(backend),
        masqueraded: status & IPS_SRC_NAT != 0,
        replies_to: (destination(reply)?, port(reply, CTA_PROTO_DST_PORT)?),
        replied: status & IPS_SEEN_REPLY != 0,
    })
}

/// IANA's number.
fn protocol_number(tuple: Attributes<'_>) -> Option<u8> {
    let number = tuple.nested(CTA_TUPLE_PROTO).get(CTA_PROTO_NUM)?;
    number.first().copied()
}

fn source(tuple: Attributes<'_>) -> Option<IpAddr> {
    let addresses = tuple.nested(CTA_TUPLE_IP);
    address(
        addresses
            .get(CTA_IP_V4_SRC)
            .or_else(|| addresses.get(CTA_IP_V6_SRC))?,
    )
}

fn destination(tuple: Attributes<'_>) -> Option<IpAddr> {
    let addresses = tuple.nested(CTA_TUPLE_IP);
    address(
        addresses
            .get(CTA_IP_V4_DST)
            .or_else(|| addresses.get(CTA_IP_V6_DST))?,
    )
}

fn port(tuple: Attributes<'_>, kind: u16) -> Option<u16> {
    let port = tuple.nested(CTA_TUPLE_PROTO).get(kind)?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}

/// The type of a message to conntrack.
fn message_type(message: u16) -> u16 {
    ((libc::NFNL_SUBSYS_CTNETLINK as u16) << 8) | message
}
