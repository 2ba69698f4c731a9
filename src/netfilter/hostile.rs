//! Answers that no kernel gives: genuine ones with bytes changed, cut and put together anew, and any
//! bytes at all. Nobody may panic or wait for more, or take a part for the whole.

use super::conntrack::{self, FlowEvents};
use super::genuine;
use super::message::{Attributes, Message, messages};
use super::sandbox::in_own_namespace;
use super::watch::TableEvents;
use super::{Connection, Firewall, counters, rule, sibling, table};
use crate::config::Family;
use crate::netfilter::genuine::TABLE;
use nftnl::nftnl_sys::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestCaseError, TestRunner};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

/// How many answers are tried: each with all that takes messages apart, and with one of those who ask.
pub const ANSWERS: u32 = 100_000;

/// How many threads try them.
const THREADS: usize = 2;

/// The number of the last message of a transaction.
const LAST: u32 = 3;

#[test]
fn no_answer_is_taken_for_what_it_is_not() {
    let genuine = genuine::answers();
    let run = || {
        in_own_namespace(|| {
            let readers = Readers::new();
            let mut runner = TestRunner::new(Runs {
                cases: ANSWERS / THREADS as u32,
                failure_persistence: None,
                rng_algorithm: RngAlgorithm::XorShift,
                ..Runs::default()
            });
            let result = runner.run(&(answer(&genuine), any::<Index>()), |(answer, reader)| {
                take_apart(&answer);
                readers.read(&answer, reader)
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

/// The datagrams of an answer.
type Answer = Vec<Vec<u8>>;

fn answer(genuine: &[Vec<u8>]) -> impl Strategy<Value = Answer> {
    let datagram = vec(part(genuine), 1..4).prop_map(|parts| parts.concat());
    let end = prop_oneof![
        Just(None),
        Just(Some(genuine::end_of_list())),
        Just(Some(genuine::acknowledgement(LAST))),
    ];
    (vec(datagram, 1..3), end).prop_map(|(mut datagrams, end)| {
        datagrams.extend(end);
        datagrams
    })
}

fn part(genuine: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> {
    let genuine = genuine.to_vec();
    let edits = vec((any::<Index>(), any::<Edit>()), 0..6);
    let edited = (any::<Index>(), edits).prop_map(move |(index, edits)| {
        let mut bytes = index.get(&genuine).clone();
        edits
            .into_iter()
            .for_each(|(place, edit)| edit.make(&mut bytes, place));
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
    fn make(self, bytes: &mut Vec<u8>, place: Index) {
        if bytes.is_empty() {
            return;
        }
        let place = place.index(bytes.len());
        match self.kind {
            0..8 => bytes[place] = self.byte,
            // Most numbers and lengths are small.
            8..12 => bytes[place] = self.byte % 8,
            12 => bytes.truncate(place),
            13 => bytes.insert(place, self.byte),
            14 => drop(bytes.drain(..place)),
            // What is left is a message of the right length.
            _ if bytes.len() >= 4 => {
                let length = bytes.len() as u32;
                bytes[..4].copy_from_slice(&length.to_ne_bytes());
            }
            _ => {}
        }
    }
}

/// Everybody who reads answers or news, each with a socket that the test answers in place of the
/// kernel.
struct Readers {
    connection: Connection,
    flows: FlowEvents,
    tables: TableEvents,
    kernel: OwnedFd,
}

impl Readers {
    fn new() -> Self {
        let connection = Connection::open().unwrap();
        let flows = FlowEvents::open().unwrap();
        let tables = TableEvents::open(TABLE, &connection).unwrap();
        // Of a pair that keeps datagrams apart, and that takes no notice of an address to send to.
        let flags = SockFlag::SOCK_CLOEXEC;
        let kind = SockType::SeqPacket;
        let (kernel, ours) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        for reader in [connection.socket.as_fd(), flows.as_fd(), tables.as_fd()] {
            // SAFETY: both are open; the reader goes on to use the number, which it alone closes.
            let replaced = unsafe { libc::dup2(ours.as_raw_fd(), reader.as_raw_fd()) };
            assert_ne!(replaced, -1);
        }
        Readers {
            connection,
            flows,
            tables,
            kernel,
        }
    }

    /// Whoever is chosen reads the answer. Who takes it for complete must have been told so.
    fn read(&self, answer: &Answer, reader: Index) -> Result<(), TestCaseError> {
        self.put(answer);
        let socket = &self.connection.socket;
        let told = |kind, sequence: Option<u32>| {
            let messages = answer.iter().flat_map(|bytes| messages(bytes));
            let mut messages = messages.filter(|message| says_zero(message, kind));
            messages.any(|message| sequence.is_none_or(|sequence| message.sequence == sequence))
        };
        let complete = match reader.index(15) {
            0 => table::tables(socket).is_ok(),
            1 => table::elements(socket, TABLE, "services4").is_ok(),
            2 => sibling::instances(socket).is_ok(),
            3 => counters::takes_connections(socket, TABLE).is_ok(),
            4 => conntrack::running(socket, |_| true).is_ok(),
            5 => conntrack::translated_flows(socket).is_ok(),
            6 => conntrack::end_flows(socket, &|_| true).is_ok(),
            13 => Firewall::read(&self.connection, 1000).is_ok(),
            // These go on to ask for more, which they do not get.
            7 => sibling::claims(socket, TABLE).is_ok(),
            8 => counters::forwards(socket, TABLE).is_ok(),
            9 => {
                let done = socket.transact(b"", LAST).is_ok();
                prop_assert!(
                    !done || told(libc::NLMSG_ERROR, Some(LAST)),
                    "nobody said so"
                );
                false
            }
            10 => {
                self.flows.ended(|_| ())?;
                false
            }
            11 => {
                self.tables.changed()?;
                false
            }
            12 => {
                socket.transmit(b"")?;
                false
            }
            _ => {
                let generation = table::generation(socket);
                let any = answer.iter().any(|bytes| messages(bytes).next().is_some());
                prop_assert!(any || generation.is_err(), "no answer is no generation");
                false
            }
        };
        prop_assert!(
            !complete || told(libc::NLMSG_DONE, None),
            "a part was taken for all"
        );
        Ok(())
    }

    /// Puts an answer into the queue, and forgets what was asked before.
    fn put(&self, answer: &Answer) {
        let kernel = self.kernel.as_raw_fd();
        let mut asked = [0; 4096];
        while recv(kernel, &mut asked, MsgFlags::MSG_DONTWAIT).is_ok() {}
        for datagram in answer.iter().filter(|datagram| !datagram.is_empty()) {
            send(kernel, datagram, MsgFlags::MSG_DONTWAIT).unwrap();
        }
    }
}

/// Whether it is a whole message of this kind that tells of no error.
fn says_zero(message: &Message<'_>, kind: i32) -> bool {
    i32::from(message.kind) == kind && message.payload.first_chunk() == Some(&[0; 4])
}

/// Has everything that takes messages apart try it.
fn take_apart(answer: &Answer) {
    for message in answer.iter().flat_map(|bytes| messages(bytes)) {
        message.error();
        conntrack::flow(&message);
        conntrack::deletion(&message);
        conntrack::is_over(&message);
        counters::chain_and_action(&message, TABLE);
        let attributes = message.attributes();
        for (_, inside) in attributes.iter() {
            rule::action(Attributes(inside));
            for element in Attributes(inside)
                .iter()
                .filter_map(|(_, bytes)| table::element(bytes))
            {
                sibling::service(Family::Ipv4, &element);
                sibling::address(&element.first);
            }
        }
    }
}
