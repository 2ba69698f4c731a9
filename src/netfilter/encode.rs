//! Ruleset → one transaction of netlink messages.

use super::Ownership;
use super::batch::{Batch, Step, Transaction};
use super::elements::{
    CHOICES_TYPE, c_string, concatenated, field_type, octets, set_elements, set_flags, value_type,
};
use super::expression::{self, Expression, REG_1, REG_2, SetReference, VERDICT, register_after};
use super::load::{address_length, choose, destination, is_family, nfproto, service, source};
use super::set::{ELEMENTS_PER_MESSAGE, ElementsMessage, NftSet, SetDescription, SetMessage};
use super::table::TableMessage;
use crate::config::Family;
use crate::ruleset::{self, AddressType, Dnat, FieldType, Hook, Ruleset, Statement};
use nftnl::nftnl_sys::libc;
use nftnl::{Chain, ChainType, MsgType, Policy, ProtoFamily, Rule, Table};
use std::ffi::CString;
use std::net::Ipv6Addr;

/// The messages that make the whole ruleset, in one transaction; with `replaced` in place of a table
/// of the same name.
pub fn install(
    ruleset: &Ruleset,
    ownership: Ownership,
    replaced: bool,
    generation: Option<u32>,
) -> Transaction {
    batch(ruleset, ownership, replaced, generation).finish()
}

/// The same under another name, with one more message at its end that must fail: it deletes a table
/// that is not there.
pub fn trial(ruleset: &Ruleset, ownership: Ownership) -> Transaction {
    let renamed = Ruleset {
        table: format!("{}.trial", ruleset.table),
        ..ruleset.clone()
    };
    let mut batch = batch(&renamed, ownership, false, None);
    let missing = c_string(&format!("{}.none", ruleset.table));
    let table = TableMessage::new(&missing, Ownership::Nobody);
    batch.add(Step::Table, &table, MsgType::Del);
    batch.finish()
}

fn batch(
    ruleset: &Ruleset,
    ownership: Ownership,
    replaced: bool,
    generation: Option<u32>,
) -> Batch {
    let name = c_string(&ruleset.table);
    let mut encoder = Encoder {
        batch: Batch::new(generation),
        table: Table::new(&name, ProtoFamily::Inet),
        name,
        overlap: replaced,
    };
    let table = TableMessage::new(&encoder.name, ownership);
    if replaced {
        encoder.batch.add(Step::Table, &table, MsgType::Del);
    }
    encoder.batch.add(Step::Table, &table, MsgType::Add);
    encoder.chains(ruleset);
    encoder.sets(ruleset);
    encoder.rules(ruleset);
    encoder.batch
}

/// The messages that empty the chains through which new connections come in.
pub fn close(ruleset: &Ruleset) -> Transaction {
    let table = Table::new(c_string(&ruleset.table), ProtoFamily::Inet);
    let mut batch = Batch::new(None);
    for (index, chain) in ruleset.chains.iter().enumerate() {
        if chain.takes_connections() {
            let chain = Chain::new(c_string(&chain.name), &table);
            // A rule without a handle stands for all rules of the chain (nf_tables_delrule).
            batch.add(Step::Chain(index), &Rule::new(&chain), MsgType::Del);
        }
    }
    batch.finish()
}

/// The messages that remove what only a replacement needs.
pub fn end_overlap(ruleset: &Ruleset) -> Transaction {
    let table = Table::new(c_string(&ruleset.table), ProtoFamily::Inet);
    let mut batch = Batch::new(None);
    for (index, chain) in ruleset.chains.iter().enumerate() {
        if chain.hook.is_some() {
            let chain = Chain::new(c_string(&overlap_name(chain)), &table);
            batch.add(Step::Chain(index), &chain, MsgType::Del);
        }
    }
    batch.finish()
}

/// Of chains with the same priority, the kernel asks the newest first (nf_hook_entries_grow in
/// net/netfilter/core.c). So a packet could meet the new chain before the commit and the old one
/// behind it, and neither has rules for it then. A replacement therefore has each of its chains at a
/// hook a second time, one place behind all others, until the old ones are gone.
fn overlap_name(chain: &ruleset::Chain) -> String {
    format!("{}-overlap", chain.name)
}

struct Encoder {
    batch: Batch,
    table: Table,
    name: CString,
    /// Whether chains at a hook are there twice.
    overlap: bool,
}

impl Encoder {
    fn chains(&mut self, ruleset: &Ruleset) {
        for (index, chain) in ruleset.chains.iter().enumerate() {
            for (name, places_behind) in self.names(chain).iter().zip(0..) {
                let mut message = Chain::new(c_string(name), &self.table);
                if let Some(hook) = chain.hook {
                    let (hook, priority) = match hook {
                        Hook::Prerouting => (nftnl::Hook::PreRouting, libc::NF_IP_PRI_NAT_DST),
                        Hook::Output => (nftnl::Hook::Out, libc::NF_IP_PRI_NAT_DST),
                        Hook::Postrouting => (nftnl::Hook::PostRouting, libc::NF_IP_PRI_NAT_SRC),
                    };
                    message.set_type(ChainType::Nat);
                    message.set_hook(hook, priority + places_behind);
                    message.set_policy(Policy::Accept);
                }
                self.batch.add(Step::Chain(index), &message, MsgType::Add);
            }
        }
    }

    /// The names under which a chain is there.
    fn names(&self, chain: &ruleset::Chain) -> Vec<String> {
        let mut names = vec![chain.name.clone()];
        if self.overlap && chain.hook.is_some() {
            names.push(overlap_name(chain));
        }
        names
    }

    fn sets(&mut self, ruleset: &Ruleset) {
        for (index, set) in ruleset.sets.iter().enumerate() {
            let name = c_string(&set.name);
            let types: Vec<(u32, u8)> = set.key.iter().map(|field| field_type(*field)).collect();
            let fields: Vec<u8> = types.iter().map(|(_, length)| *length).collect();
            let description = SetDescription {
                table: &self.name,
                name: &name,
                id: index as u32 + 1,
                flags: set_flags(set),
                key_type: concatenated(types.iter().map(|(number, _)| *number)),
                key_fields: &fields,
                data: set.values.map(value_type),
                user_data: match set.key[..] {
                    [FieldType::Number] => Some(&CHOICES_TYPE),
                    _ => None,
                },
            };
            let message = NftSet::new(&description);
            self.batch
                .add(Step::Set(index), &SetMessage(&message), MsgType::Add);
            let elements = set_elements(set);
            for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
                let message = NftSet::elements(&description, chunk);
                self.batch.add(
                    Step::Elements(index),
                    &ElementsMessage(&message),
                    MsgType::Add,
                );
            }
        }
    }

    fn rules(&mut self, ruleset: &Ruleset) {
        for (chain_index, chain) in ruleset.chains.iter().enumerate() {
            for (rule_index, rule) in chain.rules.iter().enumerate() {
                let step = Step::Rule(chain_index, rule_index);
                let mut expressions = Vec::new();
                for statement in rule {
                    encode(ruleset, statement, &mut expressions);
                }
                for name in self.names(chain) {
                    let chain = Chain::new(c_string(&name), &self.table);
                    let mut message = Rule::new(&chain);
                    for expression in &expressions {
                        message.add_expr(expression);
                    }
                    self.batch.add(step, &message, MsgType::Add);
                }
            }
        }
    }
}

fn encode(ruleset: &Ruleset, statement: &Statement, out: &mut Vec<Expression>) {
    let set = |name: &str| reference(ruleset, name);
    match statement {
        Statement::Family(family) => out.extend(is_family(*family)),
        Statement::Protocol(protocol) => {
            out.push(expression::meta(libc::NFT_META_L4PROTO, REG_1));
            out.push(expression::equal(&[protocol.number()]));
        }
        Statement::DestinationType(kind) => out.extend(is_type(*kind)),
        Statement::LoopbackDestination(family) => {
            out.extend(is_family(*family));
            out.extend(loopback_destination(*family));
        }
        Statement::DestinationIn(family, name) => {
            out.extend(is_in(*family, [destination(*family)], &set(name)));
        }
        Statement::SourceNotIn(family, name) => {
            out.extend(is_family(*family));
            out.push(source(*family, REG_1));
            out.push(expression::lookup_not(&set(name)));
        }
        Statement::SourceIn(family, name) => {
            out.extend(is_in(*family, [source(*family, REG_1)], &set(name)));
        }
        Statement::SourceAndServiceIn(family, name) => {
            let key = with_service(*family, source(*family, REG_1));
            out.extend(is_in(*family, key, &set(name)));
        }
        Statement::TargetIn(family, name) => {
            let key = with_service(*family, destination(*family));
            out.extend(is_in(*family, key, &set(name)));
        }
        Statement::Dispatch(map) => {
            out.extend(service(0));
            out.push(expression::lookup_map(&set(map), VERDICT));
        }
        Statement::Choose(choice) => {
            out.extend(choose(choice));
            out.push(expression::lookup_map(&set(&choice.map), VERDICT));
        }
        Statement::Translated => out.extend(is_translated()),
        Statement::Counter => out.push(expression::counter()),
        Statement::Drop => out.push(expression::verdict(libc::NF_DROP)),
        Statement::Return => out.push(expression::verdict(libc::NFT_RETURN)),
        Statement::Dnat(to) => out.extend(dnat(ruleset, to)),
        Statement::Masquerade => out.push(expression::masquerade_fully_random()),
    }
}

fn is_type(kind: AddressType) -> [Expression; 2] {
    let number = match kind {
        AddressType::Local => libc::RTN_LOCAL,
        AddressType::Broadcast => libc::RTN_BROADCAST,
        AddressType::Multicast => libc::RTN_MULTICAST,
    };
    [
        expression::destination_type(),
        expression::equal(&u32::from(number).to_ne_bytes()),
    ]
}

fn loopback_destination(family: Family) -> [Expression; 2] {
    match family {
        Family::Ipv4 => [
            // The first byte of the destination address.
            expression::payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 16, 1, REG_1),
            expression::equal(&[127]),
        ],
        Family::Ipv6 => [
            destination(family),
            expression::equal(&Ipv6Addr::LOCALHOST.octets()),
        ],
    }
}

/// An address in the first register, and protocol and port behind it.
fn with_service(family: Family, address: Expression) -> Vec<Expression> {
    let mut key = vec![address];
    key.extend(service(address_length(family)));
    key
}

/// Whether it is of this family, and the key in the set.
fn is_in(
    family: Family,
    key: impl IntoIterator<Item = Expression>,
    set: &SetReference,
) -> Vec<Expression> {
    let mut expressions = Vec::from(is_family(family));
    expressions.extend(key);
    expressions.push(expression::lookup(set));
    expressions
}

/// Whether the connection goes elsewhere than its client thinks.
fn is_translated() -> [Expression; 3] {
    // linux/netfilter/nf_conntrack_common.h
    const IPS_DST_NAT: u32 = 1 << 5;
    [
        expression::conntrack_status(),
        expression::mask(IPS_DST_NAT),
        expression::not_equal(&0u32.to_ne_bytes()),
    ]
}

fn dnat(ruleset: &Ruleset, to: &Dnat) -> Vec<Expression> {
    match to {
        Dnat::SamePort(address) => vec![
            expression::immediate(&octets(*address), REG_1),
            expression::destination_nat(nfproto(Family::of(*address)), None),
        ],
        Dnat::Port(address, port) => vec![
            expression::immediate(&octets(*address), REG_1),
            expression::immediate(&port.to_be_bytes(), REG_2),
            expression::destination_nat(nfproto(Family::of(*address)), Some(REG_2)),
        ],
        Dnat::ByPort(family, map) => {
            let port_register = register_after(address_length(*family));
            let mut expressions = Vec::from(service(0));
            expressions.extend([
                expression::lookup_map(&reference(ruleset, map), REG_1),
                expression::destination_nat(nfproto(*family), Some(port_register)),
            ]);
            expressions
        }
    }
}

fn reference(ruleset: &Ruleset, name: &str) -> SetReference {
    let place = ruleset.sets.iter().position(|set| set.name == name);
    SetReference {
        name: c_string(name),
        id: place.map_or(0, |place| place as u32 + 1),
    }
}
