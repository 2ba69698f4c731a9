//! What a rule of an instance does, read back from its expressions.

use crate::config::Balance;
use crate::netlink::{Attributes, address};
use crate::nftables::list::{self, Rule, Verdict};
use crate::uapi::*;
use nix::libc;
use std::net::IpAddr;

/// What a rule does with a connection that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sends it to another chain.
    Jump,
    /// Drops it, and has done so with so many packets.
    Drop { count: u64 },
    /// Translates its destination, and has done so for so many.
    Dnat { count: u64, to: DnatTo },
    /// Sends it to another chain, and does not go on.
    Goto(String),
}

/// What a `dnat` statement translates destinations to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnatTo {
    /// An address, and this port or the one that the connection was made to.
    Address(IpAddr, Option<u16>),
    /// The address and port that this map has for the port.
    Map(String),
}

/// What a register holds.
enum Loaded<'a> {
    Bytes(&'a [u8]),
    FromMap(&'a str),
}

/// What the rule with these expressions does; `None` if it leads nowhere.
pub fn action(expressions: Attributes<'_>) -> Option<Action> {
    let mut count = None;
    let mut registers: Vec<(u32, Loaded<'_>)> = Vec::new();
    for (_, bytes) in expressions.iter() {
        let expression = Attributes(bytes);
        let data = expression.nested(NFTA_EXPR_DATA);
        match expression.text(NFTA_EXPR_NAME)? {
            "counter" => count = data.u64(NFTA_COUNTER_PACKETS),
            "immediate" => {
                let value = data.nested(NFTA_IMMEDIATE_DATA);
                if let Some(verdict) = list::verdict(value) {
                    return after_verdict(verdict, count);
                }
                let loaded = value.get(NFTA_DATA_VALUE).map(Loaded::Bytes);
                registers.extend(data.u32(NFTA_IMMEDIATE_DREG).zip(loaded));
            }
            "lookup" => {
                let map = data.text(NFTA_LOOKUP_SET).map(Loaded::FromMap);
                registers.extend(data.u32(NFTA_LOOKUP_DREG).zip(map));
            }
            "nat" if data.u32(NFTA_NAT_TYPE) == Some(libc::NFT_NAT_DNAT as u32) => {
                let to = dnat_to(data, &registers)?;
                let count = count?;
                return Some(Action::Dnat { count, to });
            }
            _ => {}
        }
    }
    None
}

/// How a rule chooses among destinations, if it does.
pub fn balance(rule: &Rule) -> Option<Balance> {
    find(rule, |name, data| match (name, data.u32(NFTA_NG_TYPE)) {
        ("hash", _) => Some(Balance::Source),
        ("numgen", Some(RANDOM)) => Some(Balance::Random),
        ("numgen", Some(_)) => Some(Balance::RoundRobin),
        _ => None,
    })
}

const RANDOM: u32 = libc::NFT_NG_RANDOM as u32;

/// Whether connections that the rule masquerades get random source ports; `None` if it masquerades none.
pub fn is_fully_random(rule: &Rule) -> Option<bool> {
    find(rule, |name, data| {
        let flags = data.u32(NFTA_MASQ_FLAGS).unwrap_or(0);
        (name == "masq").then_some(flags & NF_NAT_RANGE_PROTO_RANDOM_FULLY != 0)
    })
}

/// Whether the rule leads packets to another chain and back without a look at the type of an address.
pub fn jumps_whatever_the_address(rule: &Rule) -> bool {
    let looks = find(rule, |name, _| (name == "fib").then_some(())).is_some();
    !looks && action(rule.expressions()) == Some(Action::Jump)
}

/// What there is in the first expression in which `found` finds it, out of its name and data.
fn find<T>(rule: &Rule, found: impl Fn(&str, Attributes<'_>) -> Option<T>) -> Option<T> {
    rule.expressions().iter().find_map(|(_, bytes)| {
        let expression = Attributes(bytes);
        found(
            expression.text(NFTA_EXPR_NAME)?,
            expression.nested(NFTA_EXPR_DATA),
        )
    })
}

fn after_verdict(verdict: Verdict, count: Option<u64>) -> Option<Action> {
    match verdict.code {
        libc::NFT_JUMP => Some(Action::Jump),
        libc::NFT_GOTO => Some(Action::Goto(verdict.chain?)),
        libc::NF_DROP => Some(Action::Drop { count: count? }),
        _ => None,
    }
}

fn dnat_to(nat: Attributes<'_>, registers: &[(u32, Loaded<'_>)]) -> Option<DnatTo> {
    // The last load is the one that holds.
    let held = |attribute| {
        let register = nat.u32(attribute)?;
        let mut loads = registers.iter().rev();
        loads.find_map(|(number, loaded)| (*number == register).then_some(loaded))
    };
    match held(NFTA_NAT_REG_ADDR_MIN)? {
        Loaded::FromMap(map) => Some(DnatTo::Map((*map).to_owned())),
        Loaded::Bytes(octets) => {
            let port = match held(NFTA_NAT_REG_PROTO_MIN) {
                Some(Loaded::Bytes(port)) => port.first_chunk().copied().map(u16::from_be_bytes),
                _ => None,
            };
            Some(DnatTo::Address(address(octets)?, port))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attributes;
    use proptest::prelude::*;

    type List<'a> = &'a [(u16, &'a [u8])];

    fn expression(name: &str, data: List<'_>) -> Vec<u8> {
        attributes(&[
            (NFTA_EXPR_NAME, name.as_bytes()),
            (NFTA_EXPR_DATA, &attributes(data)),
        ])
    }

    fn counter(packets: u64) -> Vec<u8> {
        expression(
            "counter",
            &[
                (NFTA_COUNTER_BYTES, &99u64.to_be_bytes()),
                (NFTA_COUNTER_PACKETS, &packets.to_be_bytes()),
            ],
        )
    }

    fn load(register: u32, value: &[u8]) -> Vec<u8> {
        let value = attributes(&[(NFTA_DATA_VALUE, value)]);
        let register = register.to_be_bytes();
        expression(
            "immediate",
            &[
                (NFTA_IMMEDIATE_DREG, &register),
                (NFTA_IMMEDIATE_DATA, &value),
            ],
        )
    }

    fn verdict(code: i32) -> Vec<u8> {
        to_chain(code, None)
    }

    fn to_chain(code: i32, chain: Option<&str>) -> Vec<u8> {
        let code = code.to_be_bytes();
        let mut verdict: Vec<(u16, &[u8])> = vec![(NFTA_VERDICT_CODE, &code)];
        verdict.extend(chain.map(|chain| (NFTA_VERDICT_CHAIN, chain.as_bytes())));
        let verdict = attributes(&verdict);
        let value = attributes(&[(NFTA_DATA_VERDICT, &verdict)]);
        let register = 0u32.to_be_bytes();
        expression(
            "immediate",
            &[
                (NFTA_IMMEDIATE_DREG, &register),
                (NFTA_IMMEDIATE_DATA, &value),
            ],
        )
    }

    fn lookup(map: &str, register: u32) -> Vec<u8> {
        let register = register.to_be_bytes();
        expression(
            "lookup",
            &[
                (NFTA_LOOKUP_SET, map.as_bytes()),
                (NFTA_LOOKUP_DREG, &register),
            ],
        )
    }

    fn nat(kind: i32, address: u32, port: Option<u32>) -> Vec<u8> {
        let (kind, address) = (kind.to_be_bytes(), address.to_be_bytes());
        let port = port.map(u32::to_be_bytes);
        let mut list: Vec<(u16, &[u8])> =
            vec![(NFTA_NAT_TYPE, &kind), (NFTA_NAT_REG_ADDR_MIN, &address)];
        list.extend(
            port.iter()
                .map(|port| (NFTA_NAT_REG_PROTO_MIN, port.as_slice())),
        );
        expression("nat", &list)
    }

    fn action_of(expressions: &[Vec<u8>]) -> Option<Action> {
        let list: Vec<(u16, &[u8])> = expressions
            .iter()
            .map(|one| (NFTA_LIST_ELEM, one.as_slice()))
            .collect();
        action(Attributes(&attributes(&list)))
    }

    #[test]
    fn rules_read_back() {
        let dnat = libc::NFT_NAT_DNAT;
        let address = IpAddr::from([10, 2, 0, 11]);
        let dnat_to = |to| Some(Action::Dnat { count: 7, to });
        let loads = [counter(7), load(1, &[10, 2, 0, 11]), load(2, &[31, 144])];

        let [count, load_address, _] = loads.clone();
        let same_port = action_of(&[count, load_address, nat(dnat, 1, None)]);
        assert_eq!(same_port, dnat_to(DnatTo::Address(address, None)));

        let port = action_of(&[&loads[..], &[nat(dnat, 1, Some(2))]].concat());
        assert_eq!(port, dnat_to(DnatTo::Address(address, Some(8080))));

        let by_map = action_of(&[
            counter(7),
            lookup("port-map4-1-1", 1),
            nat(dnat, 1, Some(9)),
        ]);
        assert_eq!(by_map, dnat_to(DnatTo::Map("port-map4-1-1".into())));

        let dropped = action_of(&[counter(7), verdict(libc::NF_DROP)]);
        assert_eq!(dropped, Some(Action::Drop { count: 7 }));
        assert_eq!(action_of(&[verdict(libc::NFT_JUMP)]), Some(Action::Jump));
        let goto = to_chain(libc::NFT_GOTO, Some("tcp-80-ipv4-1"));
        assert_eq!(
            action_of(&[goto]),
            Some(Action::Goto("tcp-80-ipv4-1".into()))
        );
    }

    #[test]
    fn rules_that_lead_nowhere_are_left_out() {
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
            const NAMES: [&str; 4] = ["counter", "immediate", "lookup", "nat"];
            let expressions: Vec<Vec<u8>> = names
                .iter()
                .map(|index| {
                    let name = NAMES[usize::from(*index) % NAMES.len()];
                    attributes(&[(NFTA_EXPR_NAME, name.as_bytes()), (NFTA_EXPR_DATA, &data)])
                })
                .collect();
            action_of(&expressions);
        }
    }
}
