//! Replies that no kernel sends: recorded messages with bytes changed, cut and combined, and any bytes at
//! all. No reader may panic, wait for more, or take a part for the whole.

use crate::config::{Family, Protocol};
use crate::conntrack::{self, Conntrack, Dump, Which};
use crate::firewall::Firewall;
use crate::netlink::{Attributes, Message, messages, replace_descriptor};
use crate::netns::in_own_namespace;
use crate::nftables::list::{self, Table};
use crate::nftables::tests::recorded::{self, TABLE};
use crate::nftables::{Nftables, TableEvents};
use crate::siblings::{self, Claims};
use crate::status;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestCaseError, TestRunner};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

/// How many replies are tried: each with every decoder, and with one of the readers.
pub const REPLIES: u32 = 100_000;

/// How many threads try them.
const THREADS: usize = 2;

/// The number of the last message of a transaction.
const LAST: u32 = 3;

#[test]
fn no_reply_is_mistaken_for_a_complete_one() {
    let recorded = recorded::messages();
    let run = || {
        in_own_namespace(|| {
            let readers = Readers::new();
            let mut runner = TestRunner::new(Runs {
                cases: REPLIES / THREADS as u32,
                failure_persistence: None,
                rng_algorithm: RngAlgorithm::XorShift,
                ..Runs::default()
            });
            let result = runner.run(&(reply(&recorded), any::<Index>()), |(reply, reader)| {
                decode(&reply);
                readers.read(&reply, reader)
            });
            result.map_err(|failure| failure.to_string())
        })
    };
    thread::scope(|scope| {
        for thread in [(); THREADS].map(|()| scope.spawn(run)) {
            thread
                .join()
                .unwrap()
                .unwrap_or_else(|failure| panic!("{failure}"));
        }
    });
}

/// The datagrams of a reply.
type Reply = Vec<Vec<u8>>;

fn reply(recorded: &[Vec<u8>]) -> impl Strategy<Value = Reply> {
    let datagram = vec(part(recorded), 1..4).prop_map(|parts| parts.concat());
    let end = prop_oneof![
        Just(None),
        Just(Some(recorded::end_of_list())),
        Just(Some(recorded::acknowledgement(LAST))),
    ];
    (vec(datagram, 1..3), end).prop_map(|(mut datagrams, end)| {
        datagrams.extend(end);
        datagrams
    })
}

fn part(recorded: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> {
    let recorded = recorded.to_vec();
    let edits = vec((any::<Index>(), any::<Edit>()), 0..6);
    let edited = (any::<Index>(), edits).prop_map(move |(index, edits)| {
        let mut bytes = index.get(&recorded).clone();
        edits
            .into_iter()
            .for_each(|(index, edit)| edit.make(&mut bytes, index));
        bytes
    });
    prop_oneof![7 => edited, 1 => vec(any::<u8>(), 0..64)]
}

/// What is done to a message; twelve in sixteen are changes of a byte.
#[derive(Clone, Copy, Debug)]
struct Edit {
    kind: u8,
    byte: u8,
}

impl Arbitrary for Edit {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        (0..16u8, any::<u8>())
            .prop_map(|(kind, byte)| Edit { kind, byte })
            .boxed()
    }
}

impl Edit {
    fn make(self, bytes: &mut Vec<u8>, index: Index) {
        if bytes.is_empty() {
            return;
        }
        let index = index.index(bytes.len());
        match self.kind {
            0..8 => bytes[index] = self.byte,
            // Most numbers and lengths are small.
            8..12 => bytes[index] = self.byte % 8,
            12 => bytes.truncate(index),
            13 => bytes.insert(index, self.byte),
            14 => drop(bytes.drain(..index)),
            // What is left is a message of the right length.
            _ if bytes.len() >= 4 => {
                let length = bytes.len() as u32;
                bytes[..4].copy_from_slice(&length.to_ne_bytes());
            }
            _ => {}
        }
    }
}

/// What the kernel may be asked for, and may ignore.
const ONE_PORT: Dump = Dump {
    family: Some(Family::Ipv4),
    protocol: Some(Protocol::Udp),
    port: Some(53),
    which: Which::All,
};

/// Everything that reads replies or events, each with a socket on which the test replies in the kernel's
/// place.
struct Readers {
    nftables: Nftables,
    conntrack: Conntrack,
    tables: TableEvents,
    kernel: OwnedFd,
}

impl Readers {
    fn new() -> Self {
        let nftables = Nftables::open().unwrap();
        let conntrack = Conntrack::asking(|_, _| vec![ONE_PORT]);
        let tables = TableEvents::open(TABLE, &nftables).unwrap();
        // Of a pair that keeps datagrams apart, and that ignores an address to send to.
        let flags = SockFlag::SOCK_CLOEXEC;
        let kind = SockType::SeqPacket;
        let (kernel, ours) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        for reader in [nftables.as_fd(), conntrack.as_fd(), tables.as_fd()] {
            replace_descriptor(reader, &ours);
        }
        Readers {
            nftables,
            conntrack,
            tables,
            kernel,
        }
    }

    /// Has one reader read the reply. A reader may only take it for complete if it holds the message that
    /// says so.
    fn read(&self, reply: &Reply, reader: Index) -> Result<(), TestCaseError> {
        self.queue(reply);
        let holds = |kind, sequence: Option<u32>| {
            let messages = reply.iter().flat_map(|bytes| messages(bytes));
            let mut messages = messages.filter(|message| says_zero(message, kind));
            messages.any(|message| sequence.is_none_or(|sequence| message.sequence == sequence))
        };
        let (nftables, socket) = (&self.nftables, self.nftables.socket());
        let table = Table::inet(TABLE);
        let complete = match reader.index(15) {
            0 => nftables.tables().is_ok_and(|found| !found.is_empty()),
            1 => list::elements(socket, &table, "dropped4").is_ok_and(|found| !found.is_empty()),
            2 => list::rules(socket, &table, None).is_ok_and(|found| !found.is_empty()),
            3 => {
                list::rules(socket, &table, Some("prerouting")).is_ok_and(|found| !found.is_empty())
            }
            4 => self
                .conntrack
                .running(&[], &|_| true)
                .is_ok_and(|found| !found.is_empty()),
            5 => self
                .conntrack
                .translated(std::iter::empty())
                .is_ok_and(|found| !found.is_empty()),
            6 => self
                .conntrack
                .delete(&[], &|_| true)
                .is_ok_and(|count| count > 0),
            7 => {
                let done = socket.transact(b"", LAST).is_ok();
                let acknowledged = holds(libc::NLMSG_ERROR, Some(LAST));
                prop_assert!(!done || acknowledged, "it was not acknowledged");
                false
            }
            8 => {
                self.tables.changed()?;
                false
            }
            9 => {
                socket.transmit(b"")?;
                false
            }
            // These go on to request more, to which nothing replies.
            10 => Claims::read(nftables, TABLE).is_ok_and(|claims| {
                claims.is_none_or(|it| !it.services.is_empty() || !it.addresses.is_empty())
            }),
            11 => status::forwards(socket, &table, 9).is_ok_and(|found| found != Some(Vec::new())),
            12 => status::accepts_connections(socket, &table).is_ok_and(|accepts| accepts),
            13 => Firewall::read(nftables, 1000).is_ok_and(|found| !found.chains().is_empty()),
            _ => {
                let generation = nftables.generation();
                let any = reply.iter().any(|bytes| messages(bytes).next().is_some());
                prop_assert!(any || generation.is_err(), "no reply is no generation");
                false
            }
        };
        let ended = holds(libc::NLMSG_DONE, None);
        prop_assert!(!complete || ended, "a part was taken for the whole");
        Ok(())
    }

    /// Queues a reply, and drops the requests that were sent before.
    fn queue(&self, reply: &Reply) {
        let kernel = self.kernel.as_raw_fd();
        let mut requests = [0; 4096];
        while recv(kernel, &mut requests, MsgFlags::MSG_DONTWAIT).is_ok() {}
        for datagram in reply.iter().filter(|datagram| !datagram.is_empty()) {
            send(kernel, datagram, MsgFlags::MSG_DONTWAIT).unwrap();
        }
    }
}

/// Whether it is a whole message of this kind that tells of no error.
fn says_zero(message: &Message<'_>, kind: i32) -> bool {
    i32::from(message.kind) == kind && message.payload.first_chunk() == Some(&[0; 4])
}

/// Decodes it in every way.
fn decode(reply: &Reply) {
    for message in reply.iter().flat_map(|bytes| messages(bytes)) {
        message.error();
        conntrack::flow(&message);
        conntrack::deletion(&message);
        conntrack::is_over(&message);
        if let Some(rule) = list::rule(&message, TABLE) {
            status::action(rule.expressions());
        }
        for (_, inside) in message.attributes().iter() {
            for (_, bytes) in Attributes(inside).iter() {
                if let Some(element) = list::decode_element(Attributes(bytes)) {
                    siblings::service(Family::Ipv4, &element);
                }
            }
        }
    }
}

/// The table of faults has the figure of this test.
#[test]
fn the_table_of_faults_has_this_figure() {
    let document = include_str!("../tests/README.md").replace(',', "");
    let row = document
        .lines()
        .find(|line| line.starts_with("| truncated"));
    let row = row.expect("a row of the table");
    assert!(
        row.split(' ').any(|word| word == REPLIES.to_string()),
        "{row}"
    );
}
