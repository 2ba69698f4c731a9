//! What a rule does with a packet.

use super::super::message::Attributes;
use super::super::socket::Failure;
use super::fields::{self, LONGEST};
use super::packet::{Bytes, Packet, known, unknown};
use super::registers::Registers;
use super::set::{Found, Value, within};
use super::{Truth, xtables};
use nftnl::nftnl_sys::libc;

/// What a rule does.
pub struct Effect {
    /// Whether it surely does that; if not, it may do one of these or nothing.
    pub sure: bool,
    /// Nothing, if the packet goes on to the next rule.
    pub verdicts: Vec<Verdict>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves the hook's chain well.
    Accept,
    /// It is dropped, refused, or sent elsewhere.
    End,
    /// A program decides.
    Unknown,
    /// It goes through another chain and comes back.
    Jump(String),
    /// It goes on in another chain.
    Goto(String),
    /// It goes back to where the chain was entered from.
    Return,
    /// It goes on to the next rule.
    Continue,
}

/// Where look-ups look.
pub trait Sets {
    /// How many bytes a key has.
    fn key_length(&mut self, set: &str) -> Result<usize, Failure>;
    /// What a set or map has for a key.
    fn find(&mut self, set: &str, key: &Bytes) -> Result<Found, Failure>;
}

// linux/netfilter/nf_tables.h: enum nft_expr_attributes, nft_data_attributes
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// What the rule with these expressions does with the packet.
pub fn effect(
    expressions: Attributes<'_>,
    packet: &Packet,
    sets: &mut impl Sets,
) -> Result<Effect, Failure> {
    let mut state = State {
        packet,
        registers: Registers::unknown(),
        sure: true,
    };
    for (_, bytes) in expressions.iter() {
        let expression = Attributes(bytes);
        let name = expression.text(EXPR_NAME).unwrap_or_default();
        match state.step(name, expression.nested(EXPR_DATA), sets)? {
            Step::Next(Truth::Yes) => {}
            Step::Next(Truth::Maybe) => state.sure = false,
            Step::Next(Truth::No) => break,
            Step::End(verdicts) => {
                let sure = state.sure && verdicts.len() < 2;
                return Ok(Effect { sure, verdicts });
            }
        }
    }
    Ok(Effect {
        sure: true,
        verdicts: Vec::new(),
    })
}

enum Step {
    /// On to the next expression, if the packet is one that this one is for.
    Next(Truth),
    /// The rule ends.
    End(Vec<Verdict>),
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
    ) -> Result<Step, Failure> {
        let next = match name {
            "counter" | "log" | "objref" | "notrack" | "last" | "flow_offload" => Truth::Yes,
            "meta" => self.load(data, 1, |packet| fields::meta(packet, data)),
            "payload" => self.load(data, 1, |packet| fields::payload(packet, data)),
            "ct" => self.load(data, 1, |packet| fields::conntrack(packet, data)),
            "fib" => self.load(data, 1, |packet| fields::fib(packet, data)),
            "bitwise" => self.bitwise(data),
            "cmp" => self.compare(data),
            "range" => self.range(data),
            "lookup" => return self.look_up(data, sets),
            "match" => xtables::matches(data, self.packet),
            "immediate" => match verdict(data.nested(2)) {
                Some(verdict) => return Ok(Step::End(vec![verdict])),
                None => self.load(data, 1, |_| data.nested(2).get(DATA_VALUE).map(known)),
            },
            "target" => match xtables::target(data) {
                Some(verdict) => return Ok(Step::End(vec![verdict])),
                None => Truth::Yes,
            },
            "reject" | "redir" | "nat" => return Ok(Step::End(vec![Verdict::End])),
            "queue" => return Ok(Step::End(vec![Verdict::Unknown])),
            // Whatever it is, it may depend on anything and write anywhere.
            _ => {
                self.registers = Registers::unknown();
                Truth::Maybe
            }
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
    ) -> Truth {
        if let Some(register) = data.u32(register) {
            let value = value(self.packet).unwrap_or(unknown(LONGEST));
            self.registers.write(register, &value);
        }
        Truth::Yes
    }

    fn bitwise(&mut self, data: Attributes<'_>) -> Truth {
        // linux/netfilter/nf_tables.h: enum nft_bitwise_attributes; NFT_BITWISE_MASK_XOR is 0
        const SOURCE: u16 = 1;
        const DESTINATION: u16 = 2;
        const LENGTH: u16 = 3;
        const OPERATION: u16 = 6;
        let value = |kind| data.nested(kind).get(DATA_VALUE).unwrap_or_default();
        let (mask, flip) = (value(4), value(5));
        let length = data.u32(LENGTH).unwrap_or(0) as usize;
        let source = self.registers.read(data.u32(SOURCE), length);
        let changed = match data.u32(OPERATION).unwrap_or(0) {
            0 => {
                let masks = mask.iter().zip(flip);
                let change = |(byte, (mask, flip)): (Option<u8>, (&u8, &u8))| match byte {
                    None if *mask == 0 => Some(*flip),
                    byte => byte.map(|byte| byte & mask ^ flip),
                };
                source.into_iter().zip(masks).map(change).collect()
            }
            _ => unknown(length),
        };
        if let Some(register) = data.u32(DESTINATION) {
            self.registers.write(register, &changed);
        }
        Truth::Yes
    }

    fn compare(&self, data: Attributes<'_>) -> Truth {
        // linux/netfilter/nf_tables.h: enum nft_cmp_attributes
        const SOURCE: u16 = 1;
        const OPERATION: u16 = 2;
        const DATA: u16 = 3;
        let wanted = data.nested(DATA).get(DATA_VALUE).unwrap_or_default();
        let found = self.registers.read(data.u32(SOURCE), wanted.len());
        let equal = within(&found, wanted, wanted);
        let all: Option<Vec<u8>> = found.into_iter().collect();
        let ordered = |good: fn(&[u8], &[u8]) -> bool| {
            all.as_deref()
                .map_or(Truth::Maybe, |found| good(found, wanted).into())
        };
        match data.u32(OPERATION).map(|operation| operation as i32) {
            Some(libc::NFT_CMP_EQ) => equal,
            Some(libc::NFT_CMP_NEQ) => equal.not(),
            Some(libc::NFT_CMP_LT) => ordered(|found, wanted| found < wanted),
            Some(libc::NFT_CMP_LTE) => ordered(|found, wanted| found <= wanted),
            Some(libc::NFT_CMP_GT) => ordered(|found, wanted| found > wanted),
            Some(libc::NFT_CMP_GTE) => ordered(|found, wanted| found >= wanted),
            _ => Truth::Maybe,
        }
    }

    fn range(&self, data: Attributes<'_>) -> Truth {
        // linux/netfilter/nf_tables.h: enum nft_range_attributes; NFT_RANGE_EQ is 0
        const SOURCE: u16 = 1;
        const OPERATION: u16 = 2;
        let value = |kind| data.nested(kind).get(DATA_VALUE).unwrap_or_default();
        let (first, last) = (value(3), value(4));
        let found = self.registers.read(data.u32(SOURCE), first.len());
        let inside = within(&found, first, last);
        match data.u32(OPERATION) {
            Some(0) => inside,
            _ => inside.not(),
        }
    }

    fn look_up(&mut self, data: Attributes<'_>, sets: &mut impl Sets) -> Result<Step, Failure> {
        // linux/netfilter/nf_tables.h: enum nft_lookup_attributes, NFT_LOOKUP_F_INV
        const SET: u16 = 1;
        const SOURCE: u16 = 2;
        const DESTINATION: u16 = 3;
        const FLAGS: u16 = 5;
        const INVERTED: u32 = 1;
        let set = data.text(SET).unwrap_or_default();
        let key = self.registers.read(data.u32(SOURCE), sets.key_length(set)?);
        let register = data.u32(DESTINATION);
        // A list of sources may be long, and nobody knows the source.
        if register.is_none() && !key.is_empty() && key.iter().all(Option::is_none) {
            return Ok(Step::Next(Truth::Maybe));
        }
        let Found { is_there, values } = sets.find(set, &key)?;
        let Some(register) = register else {
            let inverted = data.u32(FLAGS).unwrap_or(0) & INVERTED != 0;
            return Ok(Step::Next(if inverted { is_there.not() } else { is_there }));
        };
        if is_there == Truth::Maybe {
            self.sure = false;
        }
        let mut verdicts = Vec::new();
        let mut bytes = Vec::new();
        for value in values {
            match value {
                Value::Verdict(verdict) => verdicts.push(verdict),
                Value::Bytes(value) => bytes.push(value),
            }
        }
        if register == libc::NFT_REG_VERDICT as u32 && is_there != Truth::No {
            return Ok(Step::End(verdicts));
        }
        let value = match &bytes[..] {
            [value] if is_there == Truth::Yes => known(value),
            _ => unknown(LONGEST),
        };
        self.registers.write(register, &value);
        Ok(Step::Next(is_there))
    }
}

/// The verdict in these attributes of data, if there is one.
pub fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    // linux/netfilter/nf_tables.h: enum nft_verdict_attributes
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    let verdict = data.nested(DATA_VERDICT);
    let chain = || verdict.text(CHAIN).unwrap_or_default().to_owned();
    Some(match verdict.u32(CODE)? as i32 {
        libc::NF_ACCEPT => Verdict::Accept,
        libc::NF_DROP => Verdict::End,
        libc::NFT_JUMP => Verdict::Jump(chain()),
        libc::NFT_GOTO => Verdict::Goto(chain()),
        libc::NFT_RETURN => Verdict::Return,
        libc::NFT_CONTINUE | libc::NFT_BREAK => Verdict::Continue,
        _ => Verdict::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::message::Request;
    use super::*;
    use crate::config::{Family, Protocol};
    use proptest::prelude::*;

    /// Has whatever is looked up, or nothing.
    struct Any(bool);

    impl Sets for Any {
        fn key_length(&mut self, _: &str) -> Result<usize, Failure> {
            Ok(usize::MAX)
        }

        fn find(&mut self, _: &str, key: &Bytes) -> Result<Found, Failure> {
            let values = key.iter().flatten().map(|byte| Value::Bytes(vec![*byte]));
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
        let empty = Request::new(0, 0, 0, 0);
        let request = list.iter().fold(empty, |request, (kind, value)| {
            request.attribute(*kind, value)
        });
        request.bytes()[20..].to_vec()
    }

    /// Numbers that are often valid, data, and anything.
    fn any_attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
        let number = (0u32..20).prop_map(|number| number.to_be_bytes().to_vec());
        let bytes = proptest::collection::vec(any::<u8>(), 0..200);
        let data = bytes
            .clone()
            .prop_map(|bytes| attributes(&[(DATA_VALUE, bytes)]));
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
                    (1, attributes(&[(EXPR_NAME, name), (EXPR_DATA, attributes(&data))]))
                })
                .collect();
            let bytes = attributes(&expressions);
            prop_assert!(effect(Attributes(&bytes), &packet, &mut Any(found)).is_ok());
        }
    }
}
