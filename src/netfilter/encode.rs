//! Ruleset → one transaction of netlink messages.

use super::Ownership;
use super::batch::{Batch, Step, Transaction};
use super::elements::{
    TYPE_INET_SERVICE, TYPE_INTEGER, c_string, concatenated, field_type, octets, padded,
    set_elements,
};
use super::expression::{self, Expression, REG_1, REG_2, SetReference, register_after};
use super::load::{
    address_length, choose, destination, destination_port, is_family, nfproto, service, source,
};
use super::set::{
    Data, ELEMENTS_PER_MESSAGE, ElementData, ElementsMessage, NFT_SET_CONCAT, NftSet,
    SetDescription, SetMessage,
};
use super::table::TableMessage;
use crate::config::Family;
use crate::ruleset::{Dnat, FieldType, Hook, Ruleset, Statement};
use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{Chain, ChainType, MsgType, Policy, ProtoFamily, Rule, Table};
use std::ffi::CString;
use std::net::{IpAddr, Ipv6Addr};

/// The messages that make the whole ruleset, in one transaction; with `replaced` in place of a table
/// of the same name.
pub fn install(
    ruleset: &Ruleset,
    ownership: Ownership,
    replaced: bool,
    generation: Option<u32>,
) -> Transaction {
    let name = c_string(&ruleset.table);
    let mut encoder = Encoder {
        batch: Batch::new(generation),
        table: Table::new(&name, ProtoFamily::Inet),
        name,
        next_set: ruleset.sets.len() as u32 + 1,
    };
    let table = TableMessage::new(&encoder.name, ownership);
    if replaced {
        encoder.batch.add(Step::Table, &table, MsgType::Del);
    }
    encoder.batch.add(Step::Table, &table, MsgType::Add);
    encoder.chains(ruleset);
    encoder.sets(ruleset);
    encoder.rules(ruleset);
    encoder.batch.finish()
}

/// The messages that empty the chains through which new connections come in.
pub fn close(ruleset: &Ruleset) -> Transaction {
    let table = Table::new(c_string(&ruleset.table), ProtoFamily::Inet);
    let mut batch = Batch::new(None);
    for (index, chain) in ruleset.chains.iter().enumerate() {
        if matches!(chain.hook, Some(Hook::Prerouting | Hook::Output)) {
            let chain = Chain::new(c_string(&chain.name), &table);
            // A rule without a handle stands for all rules of the chain (nf_tables_delrule).
            batch.add(Step::Chain(index), &Rule::new(&chain), MsgType::Del);
        }
    }
    batch.finish()
}

struct Encoder {
    batch: Batch,
    table: Table,
    name: CString,
    /// The number that the next anonymous set gets; named ones have those of their places.
    next_set: u32,
}

impl Encoder {
    fn chains(&mut self, ruleset: &Ruleset) {
        for (index, chain) in ruleset.chains.iter().enumerate() {
            let mut message = Chain::new(c_string(&chain.name), &self.table);
            if let Some(hook) = chain.hook {
                let (hook, priority) = match hook {
                    Hook::Prerouting => (nftnl::Hook::PreRouting, libc::NF_IP_PRI_NAT_DST),
                    Hook::Output => (nftnl::Hook::Out, libc::NF_IP_PRI_NAT_DST),
                    Hook::Postrouting => (nftnl::Hook::PostRouting, libc::NF_IP_PRI_NAT_SRC),
                };
                message.set_type(ChainType::Nat);
                message.set_hook(hook, priority);
                message.set_policy(Policy::Accept);
            }
            self.batch.add(Step::Chain(index), &message, MsgType::Add);
        }
    }

    fn sets(&mut self, ruleset: &Ruleset) {
        for (index, set) in ruleset.sets.iter().enumerate() {
            let name = c_string(&set.name);
            let types: Vec<(u32, u8)> = set.key.iter().map(|field| field_type(*field)).collect();
            let fields: Vec<u8> = types.iter().map(|(_, length)| *length).collect();
            let mut flags = 0;
            if set.interval {
                flags |= libc::NFT_SET_INTERVAL as u32;
                if set.key.len() > 1 {
                    flags |= NFT_SET_CONCAT;
                }
            }
            if set.verdicts {
                flags |= libc::NFT_SET_MAP as u32;
            }
            let description = SetDescription {
                table: &self.name,
                name: &name,
                id: index as u32 + 1,
                flags,
                key_type: concatenated(types.iter().map(|(number, _)| *number)),
                key_fields: &fields,
                data: set
                    .verdicts
                    .then_some((libc::NFT_DATA_VERDICT, VERDICT_LENGTH)),
                size: None,
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
                    self.statement(ruleset, step, statement, &mut expressions);
                }
                let chain = Chain::new(c_string(&chain.name), &self.table);
                let mut message = Rule::new(&chain);
                for expression in &expressions {
                    message.add_expr(expression);
                }
                self.batch.add(step, &message, MsgType::Add);
            }
        }
    }

    fn statement(
        &mut self,
        ruleset: &Ruleset,
        step: Step,
        statement: &Statement,
        out: &mut Vec<Expression>,
    ) {
        match statement {
            Statement::Family(family) => out.extend(is_family(*family)),
            Statement::Protocol(protocol) => {
                out.push(expression::meta(libc::NFT_META_L4PROTO, REG_1));
                out.push(expression::equal(&[protocol.number()]));
            }
            Statement::LocalDestination => {
                out.push(expression::destination_type());
                out.push(expression::equal(&u32::from(libc::RTN_LOCAL).to_ne_bytes()));
            }
            Statement::LoopbackDestination(Family::Ipv4) => {
                out.extend(is_family(Family::Ipv4));
                let first_byte =
                    expression::payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 16, 1, REG_1);
                out.extend([first_byte, expression::equal(&[127])]);
            }
            Statement::LoopbackDestination(Family::Ipv6) => {
                out.extend(is_family(Family::Ipv6));
                out.push(destination(Family::Ipv6));
                out.push(expression::equal(&Ipv6Addr::LOCALHOST.octets()));
            }
            Statement::DestinationIn(family, set) => {
                out.extend(is_family(*family));
                out.push(destination(*family));
                with_set(ruleset, set, |set| out.push(expression::lookup(set)));
            }
            Statement::SourceNotIn(family, set) => {
                out.extend(is_family(*family));
                out.push(source(*family, REG_1));
                with_set(ruleset, set, |set| out.push(expression::lookup_not(set)));
            }
            Statement::SourceAmong(family, addresses) => {
                out.extend(is_family(*family));
                out.push(source(*family, REG_1));
                out.push(match addresses[..] {
                    [address] => expression::equal(&octets(address)),
                    _ => expression::lookup(SetReference {
                        name: ANONYMOUS_SET,
                        id: self.anonymous_addresses(step, *family, addresses),
                    }),
                });
            }
            Statement::Dispatch(map) => {
                out.extend(service(0));
                with_set(ruleset, map, |map| {
                    out.push(expression::lookup_map(map, expression::VERDICT))
                });
            }
            Statement::Choose(family, balance, chains) => {
                let id = self.anonymous_verdicts(step, chains);
                out.extend(choose(*family, *balance, chains.len() as u32));
                let map = SetReference {
                    name: ANONYMOUS_MAP,
                    id,
                };
                out.push(expression::lookup_map(map, expression::VERDICT));
            }
            Statement::Translated => {
                out.push(expression::conntrack_status());
                out.push(expression::mask(IPS_DST_NAT));
                out.push(expression::not_equal(&0u32.to_ne_bytes()));
            }
            Statement::TargetIn(family, set) => {
                out.extend(is_family(*family));
                out.push(destination(*family));
                out.extend(service(address_length(*family)));
                with_set(ruleset, set, |set| out.push(expression::lookup(set)));
            }
            Statement::Counter => out.push(expression::counter()),
            Statement::Drop => out.push(expression::verdict(libc::NF_DROP)),
            Statement::Return => out.push(expression::verdict(libc::NFT_RETURN)),
            Statement::Dnat(to) => self.dnat(step, *to, out),
            Statement::Masquerade => out.push(expression::masquerade_fully_random()),
        }
    }

    fn dnat(&mut self, step: Step, to: Dnat, out: &mut Vec<Expression>) {
        let family = to.family();
        let nfproto = i32::from(nfproto(family));
        match to {
            Dnat::SamePort(address) => {
                out.push(expression::immediate(&octets(address), REG_1));
                out.push(expression::destination_nat(nfproto, None));
            }
            Dnat::Port(address, port) => {
                out.push(expression::immediate(&octets(address), REG_1));
                out.push(expression::immediate(&port.to_be_bytes(), REG_2));
                out.push(expression::destination_nat(nfproto, Some(REG_2)));
            }
            Dnat::PortByPort { address, from, to } => {
                let ports = (from.first()..=from.last()).zip(to.first()..=to.last());
                let elements = ports.map(|(from, to)| ElementData {
                    key: from.to_be_bytes().to_vec(),
                    key_end: None,
                    interval_end: false,
                    data: Some(Data::Bytes(
                        [octets(address), padded(&to.to_be_bytes())].concat(),
                    )),
                });
                let (address_type, length) = field_type(FieldType::address(family));
                let data = (
                    concatenated([address_type, TYPE_INET_SERVICE].into_iter()),
                    u32::from(length) + 4,
                );
                let id = self.anonymous(step, TYPE_INET_SERVICE, 2, Some(data), elements.collect());
                out.push(destination_port(REG_1));
                out.push(expression::lookup_map(
                    SetReference {
                        name: ANONYMOUS_MAP,
                        id,
                    },
                    REG_1,
                ));
                let port_register = register_after(address_length(family));
                out.push(expression::destination_nat(nfproto, Some(port_register)));
            }
        }
    }

    fn anonymous_addresses(&mut self, step: Step, family: Family, addresses: &[IpAddr]) -> u32 {
        let (number, length) = field_type(FieldType::address(family));
        let elements = addresses.iter().map(|address| ElementData {
            key: octets(*address),
            key_end: None,
            interval_end: false,
            data: None,
        });
        self.anonymous(step, number, length, None, elements.collect())
    }

    fn anonymous_verdicts(&mut self, step: Step, chains: &[String]) -> u32 {
        let elements = (0u32..).zip(chains).map(|(index, chain)| ElementData {
            key: index.to_ne_bytes().to_vec(),
            key_end: None,
            interval_end: false,
            data: Some(Data::Goto(c_string(chain))),
        });
        let data = (libc::NFT_DATA_VERDICT, VERDICT_LENGTH);
        self.anonymous(step, TYPE_INTEGER, 4, Some(data), elements.collect())
    }

    /// Adds a set or map that belongs to one rule; gives its number in the transaction.
    fn anonymous(
        &mut self,
        step: Step,
        key_type: u32,
        key_length: u8,
        data: Option<(u32, u32)>,
        elements: Vec<ElementData>,
    ) -> u32 {
        let id = self.next_set;
        self.next_set += 1;
        let mut flags = (libc::NFT_SET_ANONYMOUS | libc::NFT_SET_CONSTANT) as u32;
        if data.is_some() {
            flags |= libc::NFT_SET_MAP as u32;
        }
        let description = SetDescription {
            table: &self.name,
            name: if data.is_some() {
                ANONYMOUS_MAP
            } else {
                ANONYMOUS_SET
            },
            id,
            flags,
            key_type,
            key_fields: &[key_length],
            data,
            size: Some(elements.len() as u32),
        };
        let message = NftSet::new(&description);
        if key_type == TYPE_INTEGER {
            message.bytes(sys::NFTNL_SET_USERDATA, &HOST_ORDER_KEY);
        }
        self.batch.add(step, &SetMessage(&message), MsgType::Add);
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let message = NftSet::elements(&description, chunk);
            self.batch
                .add(step, &ElementsMessage(&message), MsgType::Add);
        }
        id
    }
}

/// The kernel puts a free number in place of `%d`.
const ANONYMOUS_SET: &std::ffi::CStr = c"__set%d";
const ANONYMOUS_MAP: &std::ffi::CStr = c"__map%d";
/// Size of a verdict; the kernel has its own idea and takes none of it.
const VERDICT_LENGTH: u32 = 16;
/// linux/netfilter/nf_conntrack_common.h
const IPS_DST_NAT: u32 = 1 << 5;
/// A note to nft (NFTNL_UDATA_SET_KEYBYTEORDER in libnftnl's udata.h: type, length, value) that a
/// key is in host byte order, so that it shows 1 as 1.
#[cfg(target_endian = "little")]
const HOST_ORDER_KEY: [u8; 6] = [0, 4, 1, 0, 0, 0];
#[cfg(target_endian = "big")]
const HOST_ORDER_KEY: [u8; 6] = [0, 4, 0, 0, 0, 1];

fn with_set(ruleset: &Ruleset, name: &str, then: impl FnOnce(SetReference<'_>)) {
    let place = ruleset.sets.iter().position(|set| set.name == name);
    let id = place.map_or(0, |place| place as u32 + 1);
    then(SetReference {
        name: &c_string(name),
        id,
    });
}
