//! Messages that no kernel sends, for tests of what reads them.

use super::message::{Message, attributes};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// Hands over messages, of which only the length in the header is sure to be right: with a subsystem's own header
/// of this length, and attributes, some of which hold others. Every fourth is cut somewhere.
pub fn any_messages(own_header: usize, read: impl Fn(&Message<'_>)) {
    let mut runner = TestRunner::new(Config::with_cases(1000));
    let message = (0u16..128, payload(own_header), 0..4, any::<Index>());
    let result = runner.run(&message, |(kind, payload, cut, index)| {
        let length = if cut == 0 {
            index.index(payload.len() + 1)
        } else {
            payload.len()
        };
        read(&Message {
            kind,
            flags: 0,
            sequence: 1,
            payload: &payload[..length],
        });
        Ok(())
    });
    result.unwrap();
}

fn payload(own_header: usize) -> impl Strategy<Value = Vec<u8>> {
    // Most numbers in headers are small: families, states, types.
    let byte = prop_oneof![2 => Just(0), 2 => Just(2), 1 => Just(10), 3 => any::<u8>()];
    let header = vec(byte, own_header);
    (header, some(some(vec(any::<u8>(), 0..24)))).prop_map(|(header, rest)| [header, rest].concat())
}

/// Attributes with these values, or bytes that need not be attributes.
fn some(values: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let list = vec((0u16..70, values), 0..6).prop_map(|list| {
        let list: Vec<(u16, &[u8])> = list.iter().map(|(kind, it)| (*kind, &it[..])).collect();
        attributes(&list)
    });
    prop_oneof![4 => list, 1 => vec(any::<u8>(), 0..64)]
}
