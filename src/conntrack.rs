//! The kernel's conntrack entries: listed, deleted, and the events of their end.

use crate::capability::MissingNetAdmin;
use crate::config::{Backend, Family, Protocol};
use crate::netlink::{
    Attributes, Failure, MAX_DUMP_RETRIES, Message, Overrun, Request, Socket, address,
};
use crate::uapi::*;
use nix::errno::Errno;
use nix::libc;
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
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
pub struct Conntrack(Socket);

impl Conntrack {
    /// Connects to the kernel. Needs no privileges.
    pub fn open() -> Result<Self, ConntrackError> {
        Ok(Conntrack(Socket::netfilter()?))
    }

    /// The ids of the matching flows that still run.
    pub fn running(&self, matches: impl Fn(&Flow) -> bool) -> Result<HashSet<u32>, ConntrackError> {
        let ids = self.0.list(&dump_request(), |message| {
            let runs = !is_over(message) && flow(message).is_some_and(|flow| matches(&flow));
            runs.then(|| message.attributes().u32(CTA_ID)).flatten()
        })?;
        Ok(ids.into_iter().collect())
    }

    /// The flows whose destination was translated.
    pub fn translated(&self) -> Result<Vec<Flow>, ConntrackError> {
        let translated = IPS_DST_NAT.to_be_bytes();
        // A kernel that knows CTA_STATUS_MASK leaves the others out; an older one ignores it.
        let request = dump_request()
            .attribute(CTA_STATUS, &translated)
            .attribute(CTA_STATUS_MASK, &translated);
        let flows = self.0.list(&request, |message| {
            flow(message).filter(|flow| flow.backend.is_some())
        })?;
        Ok(flows)
    }

    /// Deletes the matching entries, and says how many of them still ran. One that ends by itself
    /// meanwhile counts too.
    pub fn delete(&self, matches: &dyn Fn(&Flow) -> bool) -> Result<usize, ConntrackError> {
        let deletions = self.0.list(&dump_request(), |message| {
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

    fn send_deletions(&self, deletions: &[u8]) -> Result<(), ConntrackError> {
        if deletions.is_empty() {
            return Ok(());
        }
        match self.0.transmit(deletions)? {
            // The entry is gone, or another has taken its place.
            Some(refusal) if refusal.errno != Errno::ENOENT => {
                Err(ConntrackError::Refused(refusal.errno))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
impl AsFd for Conntrack {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

fn dump_request() -> Request {
    let flags = libc::NLM_F_DUMP as u16;
    let family = libc::AF_UNSPEC as u8;
    Request::new(message_type(IPCTNL_MSG_CT_GET), flags, family, 1)
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
    let number = *original
        .nested(CTA_TUPLE_PROTO)
        .get(CTA_PROTO_NUM)?
        .first()?;
    let source = source(original)?;
    let status = attributes.u32(CTA_STATUS)?;
    // Replies come from where the packets were sent.
    let backend = (self::source(reply)?, port(reply, CTA_PROTO_SRC_PORT)?);
    Some(Flow {
        family: Family::of(source),
        protocol: Protocol::from_number(number)?,
        source,
        destination: destination(original)?,
        port: port(original, CTA_PROTO_DST_PORT)?,
        backend: (status & IPS_DST_NAT != 0).then_some(backend),
        masqueraded: status & IPS_SRC_NAT != 0,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attributes, messages};
    use proptest::prelude::*;

    fn tuple(source: [u8; 4], destination: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
        let addresses = attributes(&[(CTA_IP_V4_SRC, &source), (CTA_IP_V4_DST, &destination)]);
        let [source, destination] = ports.map(u16::to_be_bytes);
        let transport = attributes(&[
            (CTA_PROTO_NUM, &[17]),
            (CTA_PROTO_SRC_PORT, &source),
            (CTA_PROTO_DST_PORT, &destination),
        ]);
        attributes(&[(CTA_TUPLE_IP, &addresses), (CTA_TUPLE_PROTO, &transport)])
    }

    #[test]
    fn a_translated_flow_reads_back() {
        let original = tuple([10, 1, 0, 2], [10, 1, 0, 1], [4000, 53]);
        let reply = tuple([10, 2, 0, 11], [10, 2, 0, 1], [5353, 999]);
        let request = Request::new(message_type(0), 0, 2, 1)
            .attribute(CTA_TUPLE_ORIG, &original)
            .attribute(CTA_TUPLE_REPLY, &reply)
            .attribute(CTA_STATUS, &(IPS_DST_NAT | 8).to_be_bytes())
            .attribute(CTA_ID, &7u32.to_be_bytes());
        let message = messages(request.bytes()).next().unwrap();
        let flow = flow(&message).unwrap();
        assert_eq!(flow.protocol, Protocol::Udp);
        assert_eq!(flow.source, IpAddr::from([10, 1, 0, 2]));
        assert_eq!(
            (flow.destination, flow.port),
            (IpAddr::from([10, 1, 0, 1]), 53)
        );
        assert_eq!(flow.backend, Some((IpAddr::from([10, 2, 0, 11]), 5353)));

        let deletion = deletion(&message).unwrap();
        let deletion = messages(deletion.bytes()).next().unwrap();
        assert_eq!(
            deletion.attributes().get(CTA_TUPLE_ORIG),
            Some(original.as_slice())
        );
        assert_eq!(deletion.attributes().u32(CTA_ID), Some(7));
    }

    #[test]
    fn closed_and_reset_connections_are_over() {
        let over = |protocol, state, status: u32| {
            let states = attributes(&[(
                protocol,
                &attributes(&[(CTA_PROTOINFO_TCP_STATE, &[state])]),
            )]);
            let request = Request::new(message_type(0), 0, 2, 1)
                .attribute(CTA_PROTOINFO, &states)
                .attribute(CTA_STATUS, &status.to_be_bytes());
            is_over(&messages(request.bytes()).next().unwrap())
        };
        let states = |protocol, status| -> Vec<u8> {
            (0..=10)
                .filter(|state| over(protocol, *state, status))
                .collect()
        };
        for status in [IPS_DST_NAT, IPS_DST_NAT | IPS_SEEN_REPLY] {
            assert_eq!(states(CTA_PROTOINFO_TCP, status), [7, 8]);
        }
        assert_eq!(
            states(CTA_PROTOINFO_SCTP, IPS_DST_NAT | IPS_SEEN_REPLY),
            [1]
        );
        assert_eq!(states(CTA_PROTOINFO_SCTP, IPS_DST_NAT), Vec::<u8>::new());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            for message in messages(&bytes) {
                flow(&message);
                deletion(&message);
                is_over(&message);
            }
        }
    }
}
