//! The kernel's table of connections: read, and told to forget some.

use super::NetfilterError;
use super::error::unheard;
use super::message::{Attributes, Message, Request};
use super::socket::{Failure, Lost, Socket};
use crate::config::{Family, Protocol};
use crate::flow::Flow;
use nftnl::nftnl_sys::libc;
use nix::errno::Errno;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

// linux/netfilter/nfnetlink_conntrack.h: enum cntl_msg_types, ctattr_type, ctattr_tuple, ctattr_ip,
// ctattr_l4proto
const GET: u16 = 1;
const DELETE: u16 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const TCP: u16 = 1;
const SCTP: u16 = 3;
const STATE: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const STATUS_MASK: u16 = 26;
const ADDRESSES: u16 = 1;
const TRANSPORT: u16 = 2;
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// linux/netfilter/nf_conntrack_common.h
const IPS_SEEN_REPLY: u32 = 1 << 1;
const IPS_SRC_NAT: u32 = 1 << 4;
const IPS_DST_NAT: u32 = 1 << 5;

/// linux/netfilter/nfnetlink_compat.h: NF_NETLINK_CONNTRACK_UPDATE, NF_NETLINK_CONNTRACK_DESTROY
const GROUP_UPDATE: u32 = 1 << 1;
const GROUP_DESTROY: u32 = 1 << 2;

/// How many bytes of deletions are sent at once; far below the default size of a send buffer.
const SEND_BYTES: usize = 1 << 16;

/// The numbers of the flows that run and that `wanted` says so of.
pub fn running(socket: &Socket, wanted: impl Fn(&Flow) -> bool) -> Result<HashSet<u32>, Failure> {
    let mut running = HashSet::new();
    socket.dump(&dump(), |message| match message {
        None => running.clear(),
        Some(message) => {
            if !is_over(&message) && flow(&message).is_some_and(|flow| wanted(&flow)) {
                running.extend(message.attributes().u32(ID));
            }
        }
    })?;
    Ok(running)
}

/// News of flows that change or end.
pub struct FlowEvents(Socket);

impl FlowEvents {
    /// Begins to listen.
    pub fn open() -> Result<Self, NetfilterError> {
        let socket = Socket::subscribe(GROUP_UPDATE | GROUP_DESTROY).map_err(unheard)?;
        Ok(FlowEvents(socket))
    }

    /// Hands over the number of each flow that has ended since. Says whether others may have ended of
    /// which the news was lost.
    pub fn ended(&self, mut each: impl FnMut(u32)) -> io::Result<Lost> {
        self.0.news(|message| {
            if message.kind == conntrack(DELETE) || is_over(&message) {
                message.attributes().u32(ID).into_iter().for_each(&mut each);
            }
        })
    }
}

impl AsFd for FlowEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether both sides of a connection have closed it, or one has broken it off: the kernel
/// remembers those for a while, TCP's for minutes.
pub fn is_over(message: &Message<'_>) -> bool {
    let attributes = message.attributes();
    let states = attributes.nested(PROTOCOL_INFO);
    // linux/netfilter/nf_conntrack_tcp.h: TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE
    let over = matches!(states.nested(TCP).get(STATE), Some([7 | 8]));
    // linux/netfilter/nf_conntrack_sctp.h: SCTP_CONNTRACK_CLOSED. A connection begins in that state
    // too, and leaves it at the first answer (sctp_conntracks in nf_conntrack_proto_sctp.c).
    let closed = matches!(states.nested(SCTP).get(STATE), Some([1]));
    let status = attributes.u32(STATUS).unwrap_or_default();
    over || closed && status & IPS_SEEN_REPLY != 0
}

/// Has the kernel forget every flow that `condemned` says so of, and says how many of them still ran.
/// A flow that ends by itself meanwhile counts too.
pub fn end_flows(socket: &Socket, condemned: &dyn Fn(&Flow) -> bool) -> Result<usize, Failure> {
    let mut deletions: Vec<Request> = Vec::new();
    let mut ended = 0;
    socket.dump(&dump(), |message| match message {
        None => {
            deletions.clear();
            ended = 0;
        }
        Some(message) => {
            if flow(&message).is_some_and(|flow| condemned(&flow)) {
                deletions.extend(deletion(&message));
                ended += usize::from(!is_over(&message));
            }
        }
    })?;
    let mut buffer = Vec::new();
    for deletion in &deletions {
        if buffer.len() + deletion.bytes().len() > SEND_BYTES {
            send_deletions(socket, &buffer)?;
            buffer.clear();
        }
        buffer.extend_from_slice(deletion.bytes());
    }
    send_deletions(socket, &buffer)?;
    Ok(ended)
}

fn dump() -> Request {
    Request::new(
        conntrack(GET),
        libc::NLM_F_DUMP as u16,
        libc::AF_UNSPEC as u8,
        1,
    )
}

/// The flows that go elsewhere than their clients think.
pub fn translated_flows(socket: &Socket) -> Result<Vec<Flow>, Failure> {
    let flags = libc::NLM_F_DUMP as u16;
    let translated = IPS_DST_NAT.to_be_bytes();
    // A kernel that knows CTA_STATUS_MASK leaves the others out; an older one takes no notice.
    let request = Request::new(conntrack(GET), flags, libc::AF_UNSPEC as u8, 1)
        .attribute(STATUS, &translated)
        .attribute(STATUS_MASK, &translated);
    let mut flows = Vec::new();
    socket.dump(&request, |message| match message {
        None => flows.clear(),
        Some(message) => {
            flows.extend(flow(&message).filter(|flow| flow.target.is_some()));
        }
    })?;
    Ok(flows)
}

fn send_deletions(socket: &Socket, deletions: &[u8]) -> Result<(), Failure> {
    if deletions.is_empty() {
        return Ok(());
    }
    match socket.transmit(deletions)? {
        // The flow has ended by itself, or is not the one that was looked at any more.
        Some(refusal) if refusal.errno != Errno::ENOENT => Err(Failure::Refused(refusal)),
        _ => Ok(()),
    }
}

/// Names the flow by its original direction, its zone and its number, so that a new flow of the
/// same addresses is not mistaken for it.
pub fn deletion(message: &Message<'_>) -> Option<Request> {
    let attributes = message.attributes();
    let nested = libc::NLA_F_NESTED as u16;
    let mut request = Request::new(conntrack(DELETE), 0, *message.payload.first()?, 2)
        .attribute(ORIGINAL | nested, attributes.get(ORIGINAL)?);
    for kind in [ID, ZONE] {
        if let Some(value) = attributes.get(kind) {
            request = request.attribute(kind, value);
        }
    }
    Some(request)
}

/// Nothing for a flow of another protocol.
pub fn flow(message: &Message<'_>) -> Option<Flow> {
    let attributes = message.attributes();
    let original = attributes.nested(ORIGINAL);
    let reply = attributes.nested(REPLY);
    let number = *original.nested(TRANSPORT).get(NUMBER)?.first()?;
    let source = address(original, Side::Source)?;
    let status = attributes.u32(STATUS)?;
    // The answers come from where the packets really went.
    let target = (address(reply, Side::Source)?, port(reply, SOURCE_PORT)?);
    Some(Flow {
        family: Family::of(source),
        protocol: Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.number() == number)?,
        source,
        destination: address(original, Side::Destination)?,
        port: port(original, DESTINATION_PORT)?,
        target: (status & IPS_DST_NAT != 0).then_some(target),
        masqueraded: status & IPS_SRC_NAT != 0,
    })
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn address(tuple: Attributes<'_>, side: Side) -> Option<IpAddr> {
    let (ipv4, ipv6) = match side {
        Side::Source => (1, 3),
        Side::Destination => (2, 4),
    };
    let addresses = tuple.nested(ADDRESSES);
    if let Some(octets) = addresses.get(ipv4) {
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(addresses.get(ipv6)?).ok()?).into())
}

fn port(tuple: Attributes<'_>, kind: u16) -> Option<u16> {
    Some(u16::from_be_bytes(
        tuple.nested(TRANSPORT).get(kind)?.try_into().ok()?,
    ))
}

/// The number of a message to conntrack.
fn conntrack(message: u16) -> u16 {
    ((libc::NFNL_SUBSYS_CTNETLINK as u16) << 8) | message
}

#[cfg(test)]
mod tests {
    use super::super::message::messages;
    use super::*;
    use proptest::prelude::*;

    fn tuple(source: [u8; 4], destination: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
        let addresses = attributes(&[(1, &source), (2, &destination)]);
        let [source, destination] = ports.map(u16::to_be_bytes);
        let transport = attributes(&[(1, &[17]), (2, &source), (3, &destination)]);
        attributes(&[(ADDRESSES, &addresses), (TRANSPORT, &transport)])
    }

    fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
        let empty = Request::new(0, 0, 0, 0);
        let request = list.iter().fold(empty, |request, (kind, value)| {
            request.attribute(*kind, value)
        });
        request.bytes()[20..].to_vec()
    }

    #[test]
    fn a_translated_flow_reads_back() {
        let original = tuple([10, 1, 0, 2], [10, 1, 0, 1], [4000, 53]);
        let reply = tuple([10, 2, 0, 11], [10, 2, 0, 1], [5353, 999]);
        let request = Request::new(conntrack(0), 0, 2, 1)
            .attribute(ORIGINAL, &original)
            .attribute(REPLY, &reply)
            .attribute(STATUS, &(IPS_DST_NAT | 8).to_be_bytes())
            .attribute(ID, &7u32.to_be_bytes());
        let message = messages(request.bytes()).next().unwrap();
        let flow = flow(&message).unwrap();
        assert_eq!(flow.protocol, Protocol::Udp);
        assert_eq!(flow.source, IpAddr::from([10, 1, 0, 2]));
        assert_eq!(
            (flow.destination, flow.port),
            (IpAddr::from([10, 1, 0, 1]), 53)
        );
        assert_eq!(flow.target, Some((IpAddr::from([10, 2, 0, 11]), 5353)));

        let deletion = deletion(&message).unwrap();
        let deletion = messages(deletion.bytes()).next().unwrap();
        assert_eq!(
            deletion.attributes().get(ORIGINAL),
            Some(original.as_slice())
        );
        assert_eq!(deletion.attributes().u32(ID), Some(7));
    }

    #[test]
    fn closed_and_broken_off_connections_are_over() {
        let over = |protocol, state, status: u32| {
            let states = attributes(&[(protocol, &attributes(&[(STATE, &[state])]))]);
            let request = Request::new(conntrack(0), 0, 2, 1)
                .attribute(PROTOCOL_INFO, &states)
                .attribute(STATUS, &status.to_be_bytes());
            is_over(&messages(request.bytes()).next().unwrap())
        };
        let states = |protocol, status| -> Vec<u8> {
            (0..=10)
                .filter(|state| over(protocol, *state, status))
                .collect()
        };
        for status in [IPS_DST_NAT, IPS_DST_NAT | IPS_SEEN_REPLY] {
            assert_eq!(states(TCP, status), [7, 8]);
        }
        assert_eq!(states(SCTP, IPS_DST_NAT | IPS_SEEN_REPLY), [1]);
        assert_eq!(states(SCTP, IPS_DST_NAT), Vec::<u8>::new());
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
