//! Entries as messages, and those of a kernel, asked for in every way.

mod plans;

use super::*;
use crate::netlink::{any_messages, attributes, messages};
use crate::netns::in_own_namespace;

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

/// An entry with these tuples, in zone 9.
fn entry(original: &[u8], reply: &[u8]) -> Request {
    Request::new(message_type(0), 0, 2, 1)
        .attribute(CTA_TUPLE_ORIG, original)
        .attribute(CTA_TUPLE_REPLY, reply)
        .attribute(CTA_STATUS, &(IPS_DST_NAT | 8).to_be_bytes())
        .attribute(CTA_ID, &7u32.to_be_bytes())
        .attribute(CTA_ZONE, &9u16.to_be_bytes())
}

#[test]
fn a_translated_flow_reads_back() {
    let original = tuple([10, 1, 0, 2], [10, 1, 0, 1], [4000, 53]);
    let reply = tuple([10, 2, 0, 11], [10, 2, 0, 1], [5353, 999]);
    let request = entry(&original, &reply);
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
    assert_eq!(deletion.attributes().get(CTA_ZONE), Some(&[0, 9][..]));

    let change = changes::acceptance_of_resets(&message).unwrap();
    let change = messages(change.bytes()).next().unwrap().attributes();
    assert_eq!(change.get(CTA_TUPLE_ORIG), Some(original.as_slice()));
    assert_eq!(change.get(CTA_ZONE), Some(&[0, 9][..]));
    let tcp = change.nested(CTA_PROTOINFO).nested(CTA_PROTOINFO_TCP);
    for direction in [
        CTA_PROTOINFO_TCP_FLAGS_ORIGINAL,
        CTA_PROTOINFO_TCP_FLAGS_REPLY,
    ] {
        assert_eq!(
            tcp.get(direction),
            Some(&[0, IP_CT_TCP_FLAG_MAXACK_SET][..])
        );
    }
}

/// It may have ended by itself meanwhile.
#[test]
fn an_entry_that_is_gone_is_no_error() {
    let refused = in_own_namespace(|| {
        let send = |change: &Request| {
            let mut changes = Changes::open().unwrap();
            changes.push(change).unwrap();
            changes.send()
        };
        let [original, reply] = [1, 2].map(|host| tuple([10, 1, 0, host], [10, 1, 0, 9], [1, 1]));
        let gone = entry(&original, &reply);
        let gone = messages(gone.bytes()).next().unwrap();
        send(&deletion(&gone).unwrap()).unwrap();
        send(&entry(&[], &[])).unwrap_err()
    });
    assert!(matches!(refused, ConntrackError::Refused(_)), "{refused:?}");
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

#[test]
fn no_message_panics() {
    any_messages(4, |message| {
        flow(message);
        deletion(message);
        is_over(message);
    });
}
