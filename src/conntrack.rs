//! The kernel's conntrack entries: listed, deleted, and the events of their end.

mod dump;
#[cfg(test)]
mod tests;

pub use dump::{Dump, Wanted};

use crate::capability::MissingNetAdmin;
use crate::config::{Backend, Family, Protocol, Service};
use crate::netlink::{
    Attributes, Failure, MAX_DUMP_RETRIES, Message, Overrun, Request, Socket, address,
};
use crate::uapi::*;
use dump::plan;
use nix::errno::Errno;
use nix::libc;
use std::cell::Cell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::{fs, io};
use thiserror::Error;

/// Why conntrack entries cannot be listed, deleted or waited for.
#[derive(Debug, Error)]
pub enum ConntrackError {
    #[error("cannot talk to conntrack over netlink")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    NotPermitted(#[from] MissingNetAdmin),
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
    /// The client's address.
    pub source: IpAddr,
    /// The address and the port that the client sent its first packet to.
    pub destination: IpAddr,
    pub port: u16,
    /// Where DNAT sent it instead.
    pub backend: Option<Backend>,
    /// Whether its source was translated.
    pub masqueraded: bool,
}

/// How many bytes of deletions are sent at once; far below the default size of a send buffer.
const DELETIONS_BYTES: usize = 1 << 16;

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
        let ids = self.list(wanted, |message| {
            let runs = !is_over(message) && flow(message).is_some_and(|flow| matches(&flow));
            runs.then(|| message.attributes().u32(CTA_ID)).flatten()
        })?;
        Ok(ids.into_iter().collect())
    }

    /// The flows of services whose destination was translated, and perhaps others.
    pub fn translated(
        &self,
        services: impl Iterator<Item = Service>,
    ) -> Result<Vec<Flow>, ConntrackError> {
        let wanted: Vec<Wanted> = services.map(Wanted::translated).collect();
        self.list(&wanted, |message| {
            flow(message).filter(|flow| flow.backend.is_some())
        })
    }

    /// Deletes the matching entries, and says how many of them still ran. Only `wanted` ones can match.
    /// One that ends by itself meanwhile counts too.
    pub fn delete(
        &self,
        wanted: &[Wanted],
        matches: &dyn Fn(&Flow) -> bool,
    ) -> Result<usize, ConntrackError> {
        let deletions = self.list(wanted, |message| {
            flow(message).filter(matches)?;
            Some((deletion(message)?, !is_over(message)))
        })?;
        let mut buffer = Vec::new();
        for (deletion, _) in &deletions {
            if buffer.len() + deletion.bytes().len() > DELETIONS_BYTES {
                self.send_deletions(&buffer)?;
                buffer.clear();
            }
            buffer.extend_from_slice(deletion.bytes());
        }
        self.send_deletions(&buffer)?;
        Ok(deletions.iter().filter(|(_, ran)| *ran).count())
    }

    /// What `read` finds in each entry that the kernel sends for these, and in others that it may send
    /// too: `read` has to tell.
    fn list<T>(
        &self,
        wanted: &[Wanted],
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, ConntrackError> {
        self.list_by(&(self.plan)(wanted, entries()), Dump::request, read)
    }

    /// The same in these dumps, which are in order of family. A kernel before 5.8 sends the whole
    /// family for the first of them, which is then not asked for again.
    fn list_by<T>(
        &self,
        dumps: &[Dump],
        request: impl Fn(&Dump) -> Request,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, ConntrackError> {
        let mut found = Vec::new();
        for of_family in dumps.chunk_by(|one, next| one.family == next.family) {
            let before = found.len();
            for dump in of_family {
                let is_whole_family = Cell::new(false);
                let entries = self.socket.list(&request(dump), |message| {
                    if !dump.selects(message) {
                        is_whole_family.set(true);
                    }
                    read(message)
                })?;
                if is_whole_family.get() {
                    found.truncate(before);
                }
                found.extend(entries);
                if is_whole_family.get() {
                    break;
                }
            }
        }
        Ok(found)
    }

    fn send_deletions(&self, deletions: &[u8]) -> Result<(), ConntrackError> {
        if deletions.is_empty() {
            return Ok(());
        }
        match self.socket.transmit(deletions)? {
            // The entry is gone, or another has taken its place.
            Some(refusal) if refusal.errno != Errno::ENOENT => {
                Err(ConntrackError::Refused(refusal.errno))
            }
            _ => Ok(()),
        }
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

/// Events of conntrack entries that change or end.
pub struct FlowEvents(Socket);

impl FlowEvents {
    /// Subscribes to them. Takes CAP_NET_ADMIN.
    pub fn open() -> Result<Self, ConntrackError> {
        let groups = [
            libc::NFNLGRP_CONNTRACK_UPDATE,
            libc::NFNLGRP_CONNTRACK_DESTROY,
        ];
        match Socket::subscribe(&groups) {
            // netlink_bind in net/netlink/af_netlink.c
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(MissingNetAdmin.into()),
            socket => Ok(FlowEvents(socket?)),
        }
    }

    /// Hands over the id of each flow that has ended. Says whether the ends of others were lost.
    pub fn ended(&self, mut each: impl FnMut(u32)) -> io::Result<Overrun> {
        self.0.events(|message| {
            if message.kind == message_type(IPCTNL_MSG_CT_DELETE) || is_over(&message) {
                message
                    .attributes()
                    .u32(CTA_ID)
                    .into_iter()
                    .for_each(&mut each);
            }
        })
    }
}

impl AsFd for FlowEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

/// Names the entry by its original direction, its zone and its id, so that a new entry with the same
/// addresses is not mistaken for it.
pub fn deletion(message: &Message<'_>) -> Option<Request> {
    let attributes = message.attributes();
    let original = CTA_TUPLE_ORIG | libc::NLA_F_NESTED as u16;
    let family = *message.payload.first()?;
    let mut request = Request::new(message_type(IPCTNL_MSG_CT_DELETE), 0, family, 2)
        .attribute(original, attributes.get(CTA_TUPLE_ORIG)?);
    for kind in [CTA_ID, CTA_ZONE] {
        if let Some(value) = attributes.get(kind) {
            request = request.attribute(kind, value);
        }
    }
    Some(request)
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
        destination: destination(original)?,
        port: port(original, CTA_PROTO_DST_PORT)?,
        backend: (status & IPS_DST_NAT != 0).then_some(backend),
        masqueraded: status & IPS_SRC_NAT != 0,
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
