//! What a transaction says, byte by byte, on machines of either byte order: lengths and types of attributes
//! are in the machine's own, their values in that of the network, and what an expression compares with a
//! register is in the order in which the kernel fills that register.

use super::super::{encode, list};
use crate::config::{Config, Options};
use crate::netlink::messages;
use crate::ruleset::Ruleset;
use crate::uapi::{NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_HOOK_PRIORITY};
use nix::libc;
use std::collections::BTreeMap;

/// What it is, and its bytes where the lowest byte comes first, and where it comes last.
const PARTS: [(&str, &[u8], &[u8]); 9] = [
    (
        "NFNL_MSG_BATCH_BEGIN, with the subsystem as the network has it",
        &[
            20, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ],
        &[
            0, 0, 0, 20, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ],
    ),
    (
        "NFTA_TABLE_FLAGS: owner",
        &[8, 0, 2, 0, 0, 0, 0, 2],
        &[0, 8, 0, 2, 0, 0, 0, 2],
    ),
    (
        "NFTA_SET_DESC_SIZE: 1",
        &[8, 0, 1, 0, 0, 0, 0, 1],
        &[0, 8, 0, 1, 0, 0, 0, 1],
    ),
    (
        "the key of an element: port 80, TCP",
        &[12, 0, 1, 0, 0, 80, 0, 0, 6, 0, 0, 0],
        &[0, 12, 0, 1, 0, 80, 0, 0, 6, 0, 0, 0],
    ),
    (
        "the value of an element: 10.2.0.11, port 8080",
        &[12, 0, 1, 0, 10, 2, 0, 11, 31, 144, 0, 0],
        &[0, 12, 0, 1, 10, 2, 0, 11, 31, 144, 0, 0],
    ),
    (
        "NFTA_CMP_DATA: RTN_LOCAL, a number in the machine's own order",
        &[12, 0, 3, 128, 8, 0, 1, 0, 2, 0, 0, 0],
        &[0, 12, 128, 3, 0, 8, 0, 1, 0, 0, 0, 2],
    ),
    (
        "NFTA_CMP_DATA: NFPROTO_IPV4, one byte",
        &[12, 0, 3, 128, 5, 0, 1, 0, 2, 0, 0, 0],
        &[0, 12, 128, 3, 0, 5, 0, 1, 2, 0, 0, 0],
    ),
    (
        "NFTA_BITWISE_MASK: IPS_DST_NAT, a number in the machine's own order",
        &[12, 0, 4, 128, 8, 0, 1, 0, 32, 0, 0, 0],
        &[0, 12, 128, 4, 0, 8, 0, 1, 0, 0, 0, 32],
    ),
    (
        "NFTA_MASQ_FLAGS: NF_NAT_RANGE_PROTO_RANDOM_FULLY",
        &[8, 0, 1, 0, 0, 0, 0, 16],
        &[0, 8, 0, 1, 0, 0, 0, 16],
    ),
];

fn ruleset() -> Ruleset {
    let options = Options {
        forwards: vec!["tcp/80=10.2.0.11:8080".into()],
        ..Options::default()
    };
    Ruleset::new(&Config::new(&options).expect("valid"))
}

#[test]
fn bytes_are_in_the_order_that_the_kernel_expects() {
    let transaction = encode::install(&ruleset(), false, None);
    for (what, little, big) in PARTS {
        let part = if cfg!(target_endian = "big") {
            big
        } else {
            little
        };
        let is_there = transaction
            .bytes()
            .windows(part.len())
            .any(|found| found == part);
        assert!(is_there, "no {what}: {part:?} in {:?}", transaction.bytes());
    }
}

/// With the same priority it would come before the old table's chain too, and a packet could miss all of them.
#[test]
fn a_replacement_adds_each_base_chain_twice_and_one_priority_later() {
    let priorities = |replaces| -> BTreeMap<String, i32> {
        let transaction = encode::install(&ruleset(), replaces, None);
        let chains = messages(transaction.bytes())
            .filter(|message| message.kind == list::message_type(libc::NFT_MSG_NEWCHAIN));
        let priority = chains.filter_map(|message| {
            let attributes = message.attributes();
            let priority = attributes.nested(NFTA_CHAIN_HOOK).u32(NFTA_HOOK_PRIORITY)?;
            Some((attributes.name(NFTA_CHAIN_NAME)?, priority as i32))
        });
        priority.collect()
    };
    let mut expected = priorities(false);
    let later = expected.iter();
    let later = later.map(|(name, priority)| (format!("{name}-overlap"), priority + 1));
    let later: Vec<_> = later.collect();
    assert!(!later.is_empty());
    expected.extend(later);
    assert_eq!(priorities(true), expected);
}
