//! Messages of DNS (RFC 1035, section 4): a question for the addresses of a name, and what an answer to it says.

use crate::config::Family;
use simple_dns::rdata::RData;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};
use std::net::IpAddr;

/// The fixed part before the sections.
const HEADER: usize = 12;

/// As many records as a section of an answer may have.
const MAX_RECORDS: u16 = 2048;

/// How many names a chain of aliases may have.
const MAX_ALIASES: usize = 16;

/// How many addresses a name may have.
const MAX_ADDRESSES: usize = 256;

/// A question with its number.
pub struct Query {
    id: u16,
    name: String,
    family: Family,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// At least one address, and for how many seconds they hold.
    Found(Vec<IpAddr>, u32),
    /// The name is there, but has no address of this family.
    NoAddress,
    /// NXDOMAIN
    NoSuchName,
    /// It did not fit: ask again over TCP.
    Truncated,
    /// The server cannot answer, with this code.
    Error(&'static str),
    /// More addresses than a name may have.
    TooMany,
}

impl Query {
    /// Asks for the addresses of one family.
    pub fn new(id: u16, name: &str, family: Family) -> Self {
        Query {
            id,
            name: name.to_owned(),
            family,
        }
    }

    fn kind(&self) -> TYPE {
        match self.family {
            Family::Ipv4 => TYPE::A,
            Family::Ipv6 => TYPE::AAAA,
        }
    }

    /// As it is sent; `None` if the name is none, as a domain that is searched may not be.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let mut packet = Packet::new_query(self.id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(&self.name).ok()?;
        let question = Question::new(name, self.kind().into(), CLASS::IN.into(), false);
        packet.questions.push(question);
        packet.build_bytes_vec().ok()
    }

    /// What a datagram says; `None` if it is no answer to this question.
    pub fn reply(&self, bytes: &[u8]) -> Option<Reply> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let is_sane = number(0) == self.id
            && number(4) == 1
            && [6, 8, 10].into_iter().all(|at| number(at) <= MAX_RECORDS);
        if !is_sane {
            return None;
        }
        let packet = Packet::parse(bytes).ok()?;
        let [question] = &packet.questions[..] else {
            return None;
        };
        let asked = Name::new(&self.name).ok()?;
        let is_answer = packet.has_flags(PacketFlag::RESPONSE)
            && same(&question.qname, &asked)
            && question.qtype == QTYPE::TYPE(self.kind())
            && question.qclass == QCLASS::CLASS(CLASS::IN);
        if !is_answer {
            return None;
        }
        if packet.has_flags(PacketFlag::TRUNCATION) {
            return Some(Reply::Truncated);
        }
        Some(match packet.rcode() {
            RCODE::NoError => self.found(&asked, &packet.answers),
            RCODE::NameError => Reply::NoSuchName,
            RCODE::FormatError => Reply::Error("FORMERR"),
            RCODE::ServerFailure => Reply::Error("SERVFAIL"),
            RCODE::NotImplemented => Reply::Error("NOTIMP"),
            RCODE::Refused => Reply::Error("REFUSED"),
            _ => Reply::Error("an error"),
        })
    }

    /// The addresses of a name, or of the one that it is an alias of.
    fn found(&self, asked: &Name<'_>, records: &[ResourceRecord<'_>]) -> Reply {
        let mut name = asked;
        let mut ttl = u32::MAX;
        for _ in 0..MAX_ALIASES {
            let own = || {
                let own = records.iter().filter(|record| same(&record.name, name));
                own.filter(|record| record.class == CLASS::IN)
            };
            let mut addresses = Vec::new();
            for record in own() {
                let address = match &record.rdata {
                    RData::A(a) if self.family == Family::Ipv4 => a.address.to_be_bytes().into(),
                    RData::AAAA(aaaa) if self.family == Family::Ipv6 => {
                        aaaa.address.to_be_bytes().into()
                    }
                    _ => continue,
                };
                addresses.push(address);
                ttl = ttl.min(record.ttl);
            }
            addresses.sort();
            addresses.dedup();
            match addresses.len() {
                0 => {}
                1..=MAX_ADDRESSES => return Reply::Found(addresses, ttl),
                _ => return Reply::TooMany,
            }
            let alias = own().find_map(|record| match &record.rdata {
                RData::CNAME(alias) => Some((&alias.0, record.ttl)),
                _ => None,
            });
            let Some((alias, of_alias)) = alias else {
                break;
            };
            (name, ttl) = (alias, ttl.min(of_alias));
        }
        Reply::NoAddress
    }
}

/// Whether two names are the same: letters of both cases are.
fn same(one: &Name<'_>, other: &Name<'_>) -> bool {
    one.as_bytes()
        .map(<[u8]>::to_ascii_lowercase)
        .eq(other.as_bytes().map(<[u8]>::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    const ID: u16 = 0x1234;

    fn query(family: Family) -> Query {
        Query::new(ID, "www.example", family)
    }

    /// An answer, as servers write it: names are pointers to the question's (RFC 1035, section 4.1.4).
    fn answer(flags: u16, kind: u16, records: &[&[u8]]) -> Vec<u8> {
        let counts = [ID, 0x8180 | flags, 1, records.len() as u16, 0, 0];
        let mut bytes = counts.map(u16::to_be_bytes).concat();
        bytes.extend(b"\x03wwW\x07example\x00");
        bytes.extend([kind, 1].map(u16::to_be_bytes).concat());
        bytes.extend(records.concat());
        bytes
    }

    const FIRST: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\x0a\0\0\x07";
    const SECOND: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x05";
    /// www.example is an alias of a.example.
    const ALIAS: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x09\0\x04\x01a\xc0\x10";
    const OF_ALIAS: &[u8] = b"\x01A\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x05";
    /// a.example is an alias of www.example.
    const BACK: &[u8] = b"\x01a\xc0\x10\0\x05\0\x01\0\0\0\x09\0\x02\xc0\x0c";

    #[test]
    fn a_question_is_as_it_should_be() {
        let bytes = query(Family::Ipv6).bytes().unwrap();
        assert_eq!(
            bytes,
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x1c\0\x01"
        );
    }

    #[test]
    fn every_kind_of_answer() {
        let ipv4 = |octets: [u8; 4]| IpAddr::from(octets);
        let reply =
            |flags, records: &[&[u8]]| query(Family::Ipv4).reply(&answer(flags, 1, records));
        let both = Reply::Found(vec![ipv4([10, 0, 0, 5]), ipv4([10, 0, 0, 7])], 60);
        assert_eq!(reply(0, &[FIRST, SECOND, FIRST]), Some(both));
        let of_alias = Reply::Found(vec![ipv4([10, 0, 0, 5])], 9);
        assert_eq!(reply(0, &[OF_ALIAS, ALIAS]), Some(of_alias));
        // Of another name.
        assert_eq!(reply(0, &[OF_ALIAS]), Some(Reply::NoAddress));
        assert_eq!(reply(0, &[ALIAS, BACK]), Some(Reply::NoAddress));
        assert_eq!(reply(0, &[]), Some(Reply::NoAddress));
        assert_eq!(reply(0x0200, &[FIRST]), Some(Reply::Truncated));
        assert_eq!(reply(3, &[FIRST]), Some(Reply::NoSuchName));
        assert_eq!(reply(2, &[]), Some(Reply::Error("SERVFAIL")));
        assert_eq!(reply(5, &[]), Some(Reply::Error("REFUSED")));
        let many: Vec<Vec<u8>> = (0..=MAX_ADDRESSES as u16)
            .map(|number| [&FIRST[..14], &number.to_be_bytes()].concat())
            .collect();
        let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        assert_eq!(reply(0, &many), Some(Reply::TooMany));
        // An address of the other family.
        let ipv6 = query(Family::Ipv6).reply(&answer(0, 28, &[FIRST]));
        assert_eq!(ipv6, Some(Reply::NoAddress));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_ignored() {
        let good = answer(0, 1, &[FIRST]);
        let ignored = |bytes: &[u8]| query(Family::Ipv4).reply(bytes).is_none();
        assert!(!ignored(&good));
        // Number, response bit, count of questions, name, type, class.
        for at in [0, 1, 2, 5, 13, 17, 26, 28] {
            let mut bytes = good.clone();
            bytes[at] ^= if at == 2 { 0x80 } else { 1 };
            assert!(ignored(&bytes), "byte {at}");
        }
        // A class that there is, but was not asked for (CHAOS).
        let chaos = [&good[..28], &[3], &good[29..]].concat();
        assert!(ignored(&chaos));
        for length in 0..good.len() {
            assert!(ignored(&good[..length]), "{length} bytes");
        }
        // A name that leads to itself, and counts of what is not there.
        assert!(ignored(
            &[&good[..29], b"\xc0\x1d\0\x01\0\x01\0\0\0\0\0\0"].concat()
        ));
        for at in [6, 8, 10] {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            assert!(ignored(&bytes), "count at {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50_000))]

        #[test]
        fn no_bytes_panic(
            edits in vec((any::<Index>(), any::<u8>()), 0..8),
            cut in any::<Index>(),
            more in vec(any::<u8>(), 0..40),
            whole: bool,
        ) {
            let mut bytes = answer(0, 1, &[ALIAS, OF_ALIAS, FIRST, BACK]);
            if !whole {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes.extend(more);
            for (index, byte) in edits {
                if let Some(place) = bytes.get_mut(index.index(600)) {
                    *place = byte;
                }
            }
            for family in Family::ALL {
                let reply = query(family).reply(&bytes);
                if let Some(Reply::Found(addresses, _)) = reply {
                    prop_assert!(!addresses.is_empty());
                    prop_assert!(addresses.iter().all(|ip| Family::of(*ip) == family));
                }
            }
        }

        #[test]
        fn garbage_after_a_right_header_does_not_panic(rest in vec(any::<u8>(), 0..200)) {
            let bytes = [&answer(0, 1, &[])[..12], &rest].concat();
            let _ = query(Family::Ipv4).reply(&bytes);
            let question = &answer(0, 1, &[FIRST])[..29];
            let _ = query(Family::Ipv4).reply(&[question, &rest].concat());
        }
    }
}
