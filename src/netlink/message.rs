//! Netlink messages as bytes (netlink(7), linux/netlink.h): made, and taken apart without trusting any
//! length in them. Numbers in headers are in host byte order, those in netfilter's attributes in
//! network byte order.

use super::names;
use crate::uapi::NLMSGERR_ATTR_OFFS;
use nix::libc;
use std::net::IpAddr;

/// Length in bytes of `struct nlmsghdr`, and where it has its fields.
const HEADER: usize = 16;
const NLMSG_LEN: usize = 0;
/// Where a header has the message's type.
pub const NLMSG_TYPE: usize = 4;
/// Offset of the `NLM_F_*` flags in a message.
pub const NLMSG_FLAGS: usize = 6;
const NLMSG_SEQ: usize = 8;
/// Offset of the port of the sender's socket.
pub const NLMSG_PID: usize = 12;
/// Length in bytes of `struct nfgenmsg`, which every netfilter message starts with.
const FAMILY_HEADER: usize = 4;
/// Length in bytes of `struct nlattr`, and where it has its fields.
const ATTRIBUTE_HEADER: usize = 4;
const NLA_LEN: usize = 0;
const NLA_TYPE: usize = 2;

/// A message that asks the kernel for something.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A message of this type (subsystem and message number), with `NLM_F_*` flags, for a family of
    /// `NFPROTO_*`. `NLM_F_REQUEST` is set always.
    pub fn new(message: u16, flags: u16, family: u8, sequence: u32) -> Self {
        Self::with_resource(message, flags, family, 0, sequence)
    }

    /// The same with a resource number, which the messages that begin and end a batch carry.
    pub fn with_resource(
        message: u16,
        flags: u16,
        family: u8,
        resource: u16,
        sequence: u32,
    ) -> Self {
        let [high, low] = resource.to_be_bytes();
        let header = [family, libc::NFNETLINK_V0 as u8, high, low];
        Self::with_header(message, flags, &header, sequence)
    }

    /// A message of another subsystem, with its own header (a multiple of 4 bytes) in place of
    /// netfilter's.
    pub fn with_header(message: u16, flags: u16, header: &[u8], sequence: u32) -> Self {
        let flags = flags | libc::NLM_F_REQUEST as u16;
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(((HEADER + header.len()) as u32).to_ne_bytes());
        bytes.extend(message.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(header);
        Request(bytes)
    }

    /// Requests a dump of all objects of a type, with that subsystem's own header.
    pub fn dump(message: u16, header: &[u8]) -> Self {
        Self::with_header(message, libc::NLM_F_DUMP as u16, header, 1)
    }

    /// The same message with another sequence number.
    pub fn with_sequence(mut self, sequence: u32) -> Self {
        self.0[NLMSG_SEQ..NLMSG_SEQ + 4].copy_from_slice(&sequence.to_ne_bytes());
        self
    }

    /// Adds an attribute; `payload` must be shorter than 64 KiB.
    pub fn attribute(self, kind: u16, payload: &[u8]) -> Self {
        self.payload(kind, |bytes| bytes.extend_from_slice(payload))
    }

    /// Adds an attribute with the payload that `write` adds.
    pub fn payload(mut self, kind: u16, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let start = self.begin(kind);
        write(&mut self.0);
        self.end(start);
        self
    }

    /// Adds an attribute that holds those that `fill` adds.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.begin(kind | libc::NLA_F_NESTED as u16);
        let mut filled = fill(self);
        filled.end(start);
        filled
    }

    /// Adds the header of an attribute, and gives where it starts.
    fn begin(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        let [low, high] = kind.to_ne_bytes();
        self.0.extend_from_slice(&[0, 0, low, high]);
        start
    }

    /// Writes the length of the attribute that starts there, and of the message.
    fn end(&mut self, start: usize) {
        let length = (self.0.len() - start) as u16;
        let field = start + NLA_LEN;
        self.0[field..field + 2].copy_from_slice(&length.to_ne_bytes());
        while self.0.len() % 4 != 0 {
            self.0.push(0);
        }
        let total = self.0.len() as u32;
        self.0[NLMSG_LEN..NLMSG_LEN + 4].copy_from_slice(&total.to_ne_bytes());
    }

    /// Adds an attribute that is a 32-bit number, in network byte order.
    pub fn u32(self, kind: u16, number: u32) -> Self {
        self.attribute(kind, &number.to_be_bytes())
    }

    /// Adds an attribute that is a string or a [`name`](Attributes::name), with the NUL that ends it.
    pub fn text(self, kind: u16, text: &str) -> Self {
        self.attribute(kind, &[&names::encode(text)[..], &[0]].concat())
    }

    /// Whether it asks for a list, which ends with `NLMSG_DONE`.
    pub fn is_dump(&self) -> bool {
        let flags = u16_at(&self.0, NLMSG_FLAGS).unwrap_or_default();
        flags & libc::NLM_F_DUMP as u16 == libc::NLM_F_DUMP as u16
    }

    /// Header and attributes, ready to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message that came from the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Subsystem and message number.
    pub kind: u16,
    /// `NLM_F_*`
    pub flags: u16,
    /// The sequence number of the request that it is a reply to; 0 for an event.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages in one datagram. Ends at the first length that cannot be true.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, NLMSG_LEN)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let message = Message {
            kind: u16_at(bytes, NLMSG_TYPE)?,
            flags: u16_at(bytes, NLMSG_FLAGS)?,
            sequence: u32_at(bytes, NLMSG_SEQ)?,
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

impl<'a> Message<'a> {
    /// The attributes of a netfilter message.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(FAMILY_HEADER..).unwrap_or_default())
    }

    /// What an `NLMSG_ERROR` holds: a positive errno, 0 for an acknowledgement, and, if the kernel
    /// gives it, the offset in the request of the attribute that it refused.
    pub fn error(&self) -> Option<(i32, Option<usize>)> {
        // linux/netlink.h: struct nlmsgerr holds errno and the request's header; with NETLINK_CAP_ACK
        // attributes follow right there.
        let errno = u32_at(self.payload, 0)? as i32;
        let attributes = Attributes(self.payload.get(4 + HEADER..).unwrap_or_default());
        let offset = match self.flags & libc::NLM_F_ACK_TLVS as u16 {
            0 => None,
            _ => attributes
                .get(NLMSGERR_ATTR_OFFS)
                .and_then(|value| u32_at(value, 0)),
        };
        Some((errno.checked_neg()?, offset.map(|offset| offset as usize)))
    }
}

/// Attributes that follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// Each attribute's kind, without the flags for nesting and byte order, and its payload. Ends
    /// at the first length that cannot be true.
    pub fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut bytes = self.0;
        std::iter::from_fn(move || {
            let length = u16_at(bytes, NLA_LEN)? as usize;
            let kind = u16_at(bytes, NLA_TYPE)? & libc::NLA_TYPE_MASK as u16;
            let payload = bytes.get(ATTRIBUTE_HEADER..length)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, payload))
        })
    }

    /// The payload of the first attribute of this kind.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, payload)| payload)
    }

    /// The attributes inside an attribute.
    pub fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    /// The string in an attribute, without the NUL that ends it.
    pub fn text(self, kind: u16) -> Option<&'a str> {
        let payload = self.get(kind)?;
        std::str::from_utf8(payload.strip_suffix(&[0]).unwrap_or(payload)).ok()
    }

    /// The name in an attribute, which may hold any bytes: [`Request::text`] sends them back.
    pub fn name(self, kind: u16) -> Option<String> {
        self.get(kind).map(name)
    }

    /// The 32-bit number in an attribute, from network byte order.
    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// The 64-bit number in an attribute, from network byte order.
    pub fn u64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }
}

/// The name in these bytes, without the NUL that ends it.
pub fn name(payload: &[u8]) -> String {
    names::decode(payload.strip_suffix(&[0]).unwrap_or(payload))
}

/// An address in network byte order, as attributes and keys hold it.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address that these bytes are; `None` unless there are 4 or 16.
pub fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(<[u8; 4]>::try_from(octets).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(octets).ok()?.into()),
        _ => None,
    }
}

/// Attributes as bytes, for tests that make up what the kernel sends.
#[cfg(test)]
pub fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
    let empty = Request::new(0, 0, 0, 0);
    let request = list.iter().fold(empty, |request, (kind, value)| {
        request.attribute(*kind, value)
    });
    request.bytes()[HEADER + FAMILY_HEADER..].to_vec()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(offset..offset + 2)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::super::any_messages;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_reads_back() {
        let request = Request::new(0x0a01, 0x300, 1, 7)
            .text(1, "nodefwd-web")
            .u32(2, 9)
            .nest(4, |list| {
                list.text(1, "one").nest(5, |inner| inner.text(6, "two"))
            });
        let read: Vec<Message<'_>> = messages(request.bytes()).collect();
        assert_eq!(read.len(), 1);
        assert_eq!(
            (read[0].kind, read[0].flags, read[0].sequence),
            (0x0a01, 0x301, 7)
        );
        assert_eq!(read[0].attributes().text(1), Some("nodefwd-web"));
        assert_eq!(read[0].attributes().u32(2), Some(9));
        assert_eq!(read[0].attributes().get(3), None);
        let nested = read[0].attributes().nested(4);
        assert_eq!(nested.text(1), Some("one"));
        assert_eq!(nested.nested(5).text(6), Some("two"));
    }

    #[test]
    fn addresses_read_back() {
        for text in ["10.2.0.11", "fd00:2::11"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(address(&octets(ip)), Some(ip));
        }
        assert_eq!(address(&[10, 2, 0]), None);
    }

    #[test]
    fn lengths_that_cannot_be_true_end_the_reading() {
        for length in [0u32, 15, 21, u32::MAX] {
            let mut bytes = Request::new(1, 0, 1, 1).bytes().to_vec();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bytes).count(), 0, "{length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let attribute = [length.to_ne_bytes().as_slice(), &[1, 0, 7, 7, 7, 7]].concat();
            assert_eq!(Attributes(&attribute).iter().count(), 0, "{length}");
        }
    }

    #[test]
    fn no_message_panics() {
        any_messages(FAMILY_HEADER, |message| {
            message.error();
            message.attributes().nested(1).iter().count();
            message.attributes().text(1);
            address(message.payload);
        });
    }

    proptest! {
        /// Most lengths in headers are small.
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(prop_oneof![Just(0), 0..64u8, any::<u8>()], 0..128)) {
            messages(&bytes).for_each(|message| {
                message.error();
            });
        }
    }
}
