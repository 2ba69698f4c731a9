//! What a rule does, read back from its expressions.

use super::message::Attributes;
use super::sibling;
use nftnl::nftnl_sys::libc;
use std::net::IpAddr;
use std::ops::Range;

// linux/netfilter/nf_tables.h: enum nft_expr_attributes, nft_counter_attributes,
// nft_immediate_attributes, nft_data_attributes, nft_verdict_attributes, nft_lookup_attributes,
// nft_nat_attributes, nft_ng_attributes, nft_hash_attributes
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
const IMMEDIATE_DREG: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const LOOKUP_SET: u16 = 1;
const LOOKUP_DREG: u16 = 3;
const NUMGEN_MODULUS: u16 = 2;
const NUMGEN_OFFSET: u16 = 4;
const HASH_MODULUS: u16 = 4;
const HASH_OFFSET: u16 = 6;
const NAT_TYPE: u16 = 1;
const NAT_REG_ADDR_MIN: u16 = 3;
const NAT_REG_PROTO_MIN: u16 = 5;

/// What a rule does with a connection that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Denies it.
    Deny {
        /// how many until now
        count: u64,
    },
    /// Sends it to a destination.
    Take {
        /// how many until now
        count: u64,
        /// where to
        target: Target,
    },
    /// Sends it to one of the chains in a map.
    Choose {
        /// the map
        map: String,
        /// the numbers that the map is asked for; nothing if it is asked for something else
        numbers: Option<Range<u32>>,
    },
}

/// Where a rule sends connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To this port of an address, or to the port that they were made to.
    Address(IpAddr, Option<u16>),
    /// To the address and port that this map has for the port.
    Map(String),
}

/// What a register holds.
enum Loaded<'a> {
    Bytes(&'a [u8]),
    FromMap(&'a str),
}

/// What the rule with these expressions does; nothing if it does nothing that is counted, or leads
/// nowhere.
pub fn action(expressions: Attributes<'_>) -> Option<Action> {
    let mut count = None;
    let mut numbers = None;
    let mut registers: Vec<(u32, Loaded<'_>)> = Vec::new();
    for (_, bytes) in expressions.iter() {
        let expression = Attributes(bytes);
        let data = expression.nested(EXPR_DATA);
        match expression.text(EXPR_NAME)? {
            "numgen" => numbers = range(data.u32(NUMGEN_OFFSET), data.u32(NUMGEN_MODULUS)),
            "hash" => numbers = range(data.u32(HASH_OFFSET), data.u32(HASH_MODULUS)),
            "counter" => count = data.u64(COUNTER_PACKETS),
            "immediate" => {
                let value = data.nested(IMMEDIATE_DATA);
                if value.nested(DATA_VERDICT).u32(VERDICT_CODE) == Some(libc::NF_DROP as u32) {
                    return Some(Action::Deny { count: count? });
                }
                let loaded = value.get(DATA_VALUE).map(Loaded::Bytes);
                registers.extend(data.u32(IMMEDIATE_DREG).zip(loaded));
            }
            "lookup" => match (data.u32(LOOKUP_DREG), data.text(LOOKUP_SET)) {
                (Some(register), Some(map)) if register == libc::NFT_REG_VERDICT as u32 => {
                    let map = map.to_owned();
                    return Some(Action::Choose { map, numbers });
                }
                (Some(register), Some(map)) => registers.push((register, Loaded::FromMap(map))),
                _ => {}
            },
            "nat" if data.u32(NAT_TYPE) == Some(libc::NFT_NAT_DNAT as u32) => {
                let target = target(data, &registers)?;
                return Some(Action::Take {
                    count: count?,
                    target,
                });
            }
            _ => {}
        }
    }
    None
}

/// The kernel leaves an offset of 0 out.
fn range(first: Option<u32>, count: Option<u32>) -> Option<Range<u32>> {
    let first = first.unwrap_or(0);
    Some(first..first.checked_add(count?)?)
}

fn target(nat: Attributes<'_>, registers: &[(u32, Loaded<'_>)]) -> Option<Target> {
    // The last load is the one that holds.
    let held = |attribute| {
        let register = nat.u32(attribute)?;
        let mut loads = registers.iter().rev();
        loads.find_map(|(number, loaded)| (*number == register).then_some(loaded))
    };
    match held(NAT_REG_ADDR_MIN)? {
        Loaded::FromMap(map) => Some(Target::Map((*map).to_owned())),
        Loaded::Bytes(address) => {
            let port = match held(NAT_REG_PROTO_MIN) {
                Some(Loaded::Bytes(port)) => port.first_chunk().copied().map(u16::from_be_bytes),
                _ => None,
            };
            Some(Target::Address(sibling::address(address)?, port))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Request;
    use super::*;
    use proptest::prelude::*;

    type List<'a> = &'a [(u16, &'a [u8])];

    fn attributes(list: List<'_>) -> Vec<u8> {
        let empty = Request::new(0, 0, 0, 0);
        let request = list.iter().fold(empty, |request, (kind, value)| {
            request.attribute(*kind, value)
        });
        request.bytes()[20..].to_vec()
    }

    fn expression(name: &str, data: List<'_>) -> Vec<u8> {
        attributes(&[(EXPR_NAME, name.as_bytes()), (EXPR_DATA, &attributes(data))])
    }

    fn counter(packets: u64) -> Vec<u8> {
        expression(
            "counter",
            &[
                (1, &99u64.to_be_bytes()),
                (COUNTER_PACKETS, &packets.to_be_bytes()),
            ],
        )
    }

    fn load(register: u32, value: &[u8]) -> Vec<u8> {
        let value = attributes(&[(DATA_VALUE, value)]);
        let register = register.to_be_bytes();
        expression(
            "immediate",
            &[(IMMEDIATE_DREG, &register), (IMMEDIATE_DATA, &value)],
        )
    }

    fn verdict(code: i32) -> Vec<u8> {
        let verdict = attributes(&[(VERDICT_CODE, &code.to_be_bytes())]);
        let value = attributes(&[(DATA_VERDICT, &verdict)]);
        let register = 0u32.to_be_bytes();
        expression(
            "immediate",
            &[(IMMEDIATE_DREG, &register), (IMMEDIATE_DATA, &value)],
        )
    }

    fn lookup(map: &str, register: u32) -> Vec<u8> {
        let register = register.to_be_bytes();
        expression(
            "lookup",
            &[(LOOKUP_SET, map.as_bytes()), (LOOKUP_DREG, &register)],
        )
    }

    fn nat(kind: i32, address: u32, port: Option<u32>) -> Vec<u8> {
        let (kind, address) = (kind.to_be_bytes(), address.to_be_bytes());
        let port = port.map(u32::to_be_bytes);
        let mut list: Vec<(u16, &[u8])> = vec![(NAT_TYPE, &kind), (NAT_REG_ADDR_MIN, &address)];
        list.extend(port.iter().map(|port| (NAT_REG_PROTO_MIN, port.as_slice())));
        expression("nat", &list)
    }

    fn action_of(expressions: &[Vec<u8>]) -> Option<Action> {
        let list: Vec<(u16, &[u8])> = expressions.iter().map(|one| (1, one.as_slice())).collect();
        action(Attributes(&attributes(&list)))
    }

    #[test]
    fn rules_read_back() {
        let dnat = libc::NFT_NAT_DNAT;
        let address = IpAddr::from([10, 2, 0, 11]);
        let take = |target| Some(Action::Take { count: 7, target });
        let loads = [counter(7), load(1, &[10, 2, 0, 11]), load(2, &[31, 144])];

        let [count, load_address, _] = loads.clone();
        let same_port = action_of(&[count, load_address, nat(dnat, 1, None)]);
        assert_eq!(same_port, take(Target::Address(address, None)));

        let port = action_of(&[&loads[..], &[nat(dnat, 1, Some(2))]].concat());
        assert_eq!(port, take(Target::Address(address, Some(8080))));

        let by_map = action_of(&[counter(7), lookup("shifts4-1", 1), nat(dnat, 1, Some(9))]);
        assert_eq!(by_map, take(Target::Map("shifts4-1".into())));

        let choose = |numbers| {
            let map = "choices".into();
            Some(Action::Choose { map, numbers })
        };
        let number = |name, (modulus, of), offset: List<'_>| {
            let of = u32::to_be_bytes(of);
            let list = [&[(modulus, &of[..])], offset].concat();
            action_of(&[expression(name, &list), lookup("choices", 0)])
        };
        let offset = 5u32.to_be_bytes();
        let numgen = number("numgen", (NUMGEN_MODULUS, 3), &[(NUMGEN_OFFSET, &offset)]);
        assert_eq!(numgen, choose(Some(5..8)));
        let hash = number("hash", (HASH_MODULUS, 3), &[(HASH_OFFSET, &offset)]);
        assert_eq!(hash, choose(Some(5..8)));
        assert_eq!(
            number("numgen", (NUMGEN_MODULUS, 3), &[]),
            choose(Some(0..3))
        );
        assert_eq!(
            number(
                "numgen",
                (NUMGEN_MODULUS, u32::MAX),
                &[(NUMGEN_OFFSET, &offset)]
            ),
            choose(None)
        );
        assert_eq!(action_of(&[lookup("choices", 0)]), choose(None));

        let deny = action_of(&[counter(3), verdict(libc::NF_DROP)]);
        assert_eq!(deny, Some(Action::Deny { count: 3 }));
    }

    #[test]
    fn other_rules_do_nothing_of_interest() {
        assert_eq!(action_of(&[]), None);
        assert_eq!(action_of(&[verdict(libc::NF_DROP)]), None);
        assert_eq!(action_of(&[counter(1), verdict(libc::NFT_RETURN)]), None);
        let source_nat = nat(libc::NFT_NAT_SNAT, 1, None);
        let load = load(1, &[10, 2, 0, 11]);
        assert_eq!(action_of(&[counter(1), load, source_nat]), None);
        let nothing_loaded = nat(libc::NFT_NAT_DNAT, 1, None);
        assert_eq!(action_of(&[counter(1), nothing_loaded]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            action(Attributes(&bytes));
        }

        #[test]
        fn no_data_panics(names: Vec<u8>, data: Vec<u8>) {
            const NAMES: [&str; 6] = ["counter", "immediate", "lookup", "nat", "numgen", "hash"];
            let expressions: Vec<Vec<u8>> = names
                .iter()
                .map(|index| {
                    let name = NAMES[usize::from(*index) % NAMES.len()];
                    attributes(&[(EXPR_NAME, name.as_bytes()), (EXPR_DATA, &data)])
                })
                .collect();
            action_of(&expressions);
        }
    }
}
