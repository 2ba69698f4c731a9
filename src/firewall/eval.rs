//! What a rule does with a packet.

use super::action::Action;
use super::fields::{self, LONGEST};
use super::packet::{Bytes, Packet, known, unknown};
use super::registers::{REGISTER_BYTES, Registers};
use super::set::{Found, within};
use super::{Tristate, xtables};
use crate::netlink::Attributes;
use crate::nftables::NftablesError;
use crate::nftables::list::{self, Data};
use crate::uapi::*;
use nix::libc;

/// What a rule does with a packet.
pub struct Evaluation {
    /// Whether it surely does that; if not, it may do one of the actions, or none.
    pub sure: bool,
    /// None, if the packet goes on to the next rule.
    pub actions: Vec<Action>,
}

/// The sets that rules look into.
pub trait Sets {
    /// Length of a key in bytes.
    fn key_length(&mut self, set: &str) -> Result<usize, NftablesError>;
    /// What a set or map has for a key.
    fn find(&mut self, set: &str, key: &Bytes) -> Result<Found, NftablesError>;
}

/// Evaluates the rule with these expressions for a packet.
pub fn eval(
    expressions: Attributes<'_>,
    packet: &Packet,
    sets: &mut impl Sets,
) -> Result<Evaluation, NftablesError> {
    let mut state = State {
        packet,
        registers: Registers::unknown(),
        sure: true,
    };
    for (_, bytes) in expressions.iter() {
        let expression = Attributes(bytes);
        let name = expression.text(NFTA_EXPR_NAME).unwrap_or_default();
        match state.step(name, expression.nested(NFTA_EXPR_DATA), sets)? {
            Step::Next(Tristate::Yes) => {}
            Step::Next(Tristate::Maybe) => state.sure = false,
            Step::Next(Tristate::No) => break,
            Step::End(actions) => {
                let sure = state.sure && actions.len() < 2;
                return Ok(Evaluation { sure, actions });
            }
        }
    }
    Ok(Evaluation {
        sure: true,
        actions: Vec::new(),
    })
}

/// Expressions whose outcome is not known.
const MATCHES: [&str; 14] = [
    "byteorder",
    "connlimit",
    "dynset",
    "exthdr",
    "hash",
    "inner",
    "limit",
    "numgen",
    "osf",
    "quota",
    "rt",
    "socket",
    "tunnel",
    "xfrm",
];

/// Objects that let every packet go on to the next expression.
const UNLIMITED_OBJECTS: [u32; 6] = [
    NFT_OBJECT_COUNTER,
    NFT_OBJECT_CT_HELPER,
    NFT_OBJECT_TUNNEL,
    NFT_OBJECT_CT_TIMEOUT,
    NFT_OBJECT_SECMARK,
    NFT_OBJECT_CT_EXPECT,
];

enum Step {
    /// On to the next expression, if the packet matches this one.
    Next(Tristate),
    /// The rule ends.
    End(Vec<Action>),
}

struct State<'a> {
    packet: &'a Packet,
    registers: Registers,
    sure: bool,
}

impl State<'_> {
    fn step(
        &mut self,
        name: &str,
        data: Attributes<'_>,
        sets: &mut impl Sets,
    ) -> Result<Step, NftablesError> {
        let next = match name {
            "counter" | "log" | "last" | "flow_offload" | "dup" => Tristate::Yes,
            "objref" => match data.u32(NFTA_OBJREF_IMM_TYPE) {
                Some(kind) if UNLIMITED_OBJECTS.contains(&kind) => Tristate::Yes,
                Some(NFT_OBJECT_SYNPROXY) => return Ok(Step::End(vec![Action::NotFollowed])),
                // One out of a map, or a limit.
                _ => Tristate::Maybe,
            },
            "payload" if fields::redirects(data) => {
                return Ok(Step::End(vec![Action::NotFollowed]));
            }
            "ct" if fields::changes_zone(data) => {
                return Ok(Step::End(vec![Action::NotFollowed]));
            }
            "meta" => self.load(data, NFTA_META_DREG, |packet| fields::meta(packet, data)),
            "payload" => self.load(data, NFTA_PAYLOAD_DREG, |packet| {
                fields::payload(packet, data)
            }),
            "ct" => self.load(data, NFTA_CT_DREG, |packet| fields::conntrack(packet, data)),
            "fib" => self.load(data, NFTA_FIB_DREG, |packet| fields::fib(packet, data)),
            "bitwise" => self.bitwise(data),
            "cmp" => self.compare(data),
            "range" => self.range(data),
            "lookup" => return self.look_up(data, sets),
            "match" => xtables::matches(data, self.packet),
            "immediate" => {
                let value = data.nested(NFTA_IMMEDIATE_DATA);
                if let Some(verdict) = list::verdict(value) {
                    return Ok(Step::End(vec![verdict.into()]));
                }
                let value = value.get(NFTA_DATA_VALUE);
                self.load(data, NFTA_IMMEDIATE_DREG, |_| value.map(known))
            }
            "target" => match xtables::target(data) {
                Some(action) => return Ok(Step::End(vec![action])),
                None => Tristate::Yes,
            },
            "redir" | "nat" | "masq" => return Ok(Step::End(vec![Action::Translate])),
            // Without conntrack nothing is translated: it goes on, but is not forwarded.
            "reject" | "notrack" | "fwd" => {
                return Ok(Step::End(vec![Action::End]));
            }
            "queue" => return Ok(Step::End(vec![Action::Unknown])),
            // They may depend on anything and write anywhere, but leave the packet alone.
            name if MATCHES.contains(&name) => {
                self.registers = Registers::unknown();
                Tristate::Maybe
            }
            _ => return Ok(Step::End(vec![Action::NotFollowed])),
        };
        Ok(Step::Next(next))
    }

    /// Loads what `value` says of the packet into the register that an attribute names. Without
    /// that attribute the expression changes the packet.
    fn load(
        &mut self,
        data: Attributes<'_>,
        register: u16,
        value: impl Fn(&Packet) -> Option<Bytes>,
    ) -> Tristate {
        if let Some(register) = data.u32(register) {
            let value = value(self.packet).unwrap_or(unknown(LONGEST));
            self.registers.write(register, &value);
        }
        Tristate::Yes
    }

    fn bitwise(&mut self, data: Attributes<'_>) -> Tristate {
        let (mask, flip) = (
            value(data, NFTA_BITWISE_MASK),
            value(data, NFTA_BITWISE_XOR),
        );
        let length = data.u32(NFTA_BITWISE_LEN).unwrap_or(0) as usize;
        let length = length.min(REGISTER_BYTES);
        let source = self.registers.read(data.u32(NFTA_BITWISE_SREG), length);
        let changed = match data.u32(NFTA_BITWISE_OP) {
            None | Some(NFT_BITWISE_MASK_XOR) => {
                let masks = mask.iter().zip(flip);
                let change = |(byte, (mask, flip)): (Option<u8>, (&u8, &u8))| match byte {
                    None if *mask == 0 => Some(*flip),
                    byte => byte.map(|byte| byte & mask ^ flip),
                };
                source.into_iter().zip(masks).map(change).collect()
            }
            _ => unknown(length),
        };
        if let Some(register) = data.u32(NFTA_BITWISE_DREG) {
            self.registers.write(register, &changed);
        }
        Tristate::Yes
    }

    fn compare(&self, data: Attributes<'_>) -> Tristate {
        let wanted = value(data, NFTA_CMP_DATA);
        let found = self.registers.read(data.u32(NFTA_CMP_SREG), wanted.len());
        let equal = within(&found, wanted, wanted);
        let all: Option<Vec<u8>> = found.into_iter().collect();
        let ordered = |good: fn(&[u8], &[u8]) -> bool| {
            all.as_deref()
                .map_or(Tristate::Maybe, |found| good(found, wanted).into())
        };
        match data.u32(NFTA_CMP_OP).map(|operation| operation as i32) {
            Some(libc::NFT_CMP_EQ) => equal,
            Some(libc::NFT_CMP_NEQ) => equal.not(),
            Some(libc::NFT_CMP_LT) => ordered(|found, wanted| found < wanted),
            Some(libc::NFT_CMP_LTE) => ordered(|found, wanted| found <= wanted),
            Some(libc::NFT_CMP_GT) => ordered(|found, wanted| found > wanted),
            Some(libc::NFT_CMP_GTE) => ordered(|found, wanted| found >= wanted),
            _ => Tristate::Maybe,
        }
    }

    fn range(&self, data: Attributes<'_>) -> Tristate {
        let (first, last) = (
            value(data, NFTA_RANGE_FROM_DATA),
            value(data, NFTA_RANGE_TO_DATA),
        );
        let found = self.registers.read(data.u32(NFTA_RANGE_SREG), first.len());
        let inside = within(&found, first, last);
        match data.u32(NFTA_RANGE_OP).map(|operation| operation as i32) {
            Some(libc::NFT_RANGE_EQ) => inside,
            _ => inside.not(),
        }
    }

    fn look_up(
        &mut self,
        data: Attributes<'_>,
        sets: &mut impl Sets,
    ) -> Result<Step, NftablesError> {
        let set = &data.name(NFTA_LOOKUP_SET).unwrap_or_default();
        let length = sets.key_length(set)?;
        let key = self.registers.read(data.u32(NFTA_LOOKUP_SREG), length);
        let register = data.u32(NFTA_LOOKUP_DREG);
        // A set of sources may be large, and the source is not known.
        if register.is_none() && !key.is_empty() && key.iter().all(Option::is_none) {
            return Ok(Step::Next(Tristate::Maybe));
        }
        let Found { is_there, values } = sets.find(set, &key)?;
        let Some(register) = register else {
            let flags = data.u32(NFTA_LOOKUP_FLAGS).unwrap_or(0);
            let inverted = flags & libc::NFT_LOOKUP_F_INV as u32 != 0;
            return Ok(Step::Next(if inverted { is_there.not() } else { is_there }));
        };
        if is_there == Tristate::Maybe {
            self.sure = false;
        }
        let mut actions = Vec::new();
        let mut bytes = Vec::new();
        for value in values {
            match value {
                Data::Verdict(verdict) => actions.push(verdict.into()),
                Data::Value(value) => bytes.push(value),
            }
        }
        if register == libc::NFT_REG_VERDICT as u32 && is_there != Tristate::No {
            return Ok(Step::End(actions));
        }
        let value = match &bytes[..] {
            [value] if is_there == Tristate::Yes => known(value),
            _ => unknown(LONGEST),
        };
        self.registers.write(register, &value);
        Ok(Step::Next(is_there))
    }
}

/// The value in an attribute that holds data; empty if there is none.
fn value(data: Attributes<'_>, kind: u16) -> &[u8] {
    data.nested(kind).get(NFTA_DATA_VALUE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Family, Protocol};
    use crate::netlink;
    use proptest::prelude::*;

    /// Has whatever is looked up, or nothing.
    struct Any(bool);

    impl Sets for Any {
        fn key_length(&mut self, _: &str) -> Result<usize, NftablesError> {
            Ok(usize::MAX)
        }

        fn find(&mut self, _: &str, key: &Bytes) -> Result<Found, NftablesError> {
            let values = key.iter().flatten().map(|byte| Data::Value(vec![*byte]));
            Ok(Found {
                is_there: self.0.into(),
                values: values.collect(),
            })
        }
    }

    const NAMES: [&str; 16] = [
        "meta",
        "payload",
        "ct",
        "fib",
        "bitwise",
        "cmp",
        "range",
        "lookup",
        "match",
        "immediate",
        "target",
        "reject",
        "nat",
        "queue",
        "counter",
        "limit",
    ];

    fn attributes(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let list: Vec<(u16, &[u8])> = list
            .iter()
            .map(|(kind, value)| (*kind, &value[..]))
            .collect();
        netlink::attributes(&list)
    }

    /// Numbers that are often valid, data, and anything.
    fn any_attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
        let number = (0u32..20).prop_map(|number| number.to_be_bytes().to_vec());
        let bytes = proptest::collection::vec(any::<u8>(), 0..200);
        let data = bytes
            .clone()
            .prop_map(|bytes| attributes(&[(NFTA_DATA_VALUE, bytes)]));
        (1u16..9, prop_oneof![number, data, bytes])
    }

    proptest! {
        #[test]
        fn no_rule_panics(
            rule in proptest::collection::vec(
                (0..NAMES.len(), proptest::collection::vec(any_attribute(), 0..8)), 0..6),
            found: bool, udp: bool,
        ) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let packet = Packet::first(Family::Ipv4, protocol);
            let expressions: Vec<(u16, Vec<u8>)> = rule
                .into_iter()
                .map(|(name, data)| {
                    let name = NAMES[name].as_bytes().to_vec();
                    let data = attributes(&data);
                    (NFTA_LIST_ELEM, attributes(&[(NFTA_EXPR_NAME, name), (NFTA_EXPR_DATA, data)]))
                })
                .collect();
            let bytes = attributes(&expressions);
            prop_assert!(eval(Attributes(&bytes), &packet, &mut Any(found)).is_ok());
        }
    }
}
