//! Ruleset → one transaction of netlink messages; `change` has those that change what is installed.

mod change;
mod counts;

pub use change::{add_interfaces, change, changed_chains, close, end_overlap};
pub use counts::Counts;

use super::batch::{Batch, Step, Transaction};
use super::choice::choose;
use super::expr::{self, AFTER_SERVICE, Expression, REG_1, REG_2, SetReference, VERDICT};
use super::expr::{
    address_length, destination, is_family, nfproto, register_after, service, source,
};
use super::flowtable::add_flowtable;
use super::list::{Count, message_type};
use super::matches::{
    has_syn, has_syn_or_rst, is_bridge, is_established, is_in, is_invalid, is_original,
    is_to_others, is_translated, is_type, leads_to_input, link_local_destination,
    loopback_destination,
};
use super::set::{add_elements, add_set};
use crate::config::Family;
use crate::netlink::{Request, octets};
use crate::ruleset::{self, AddressType, Dnat, Hook, Ruleset, SourcePort, Statement};
use crate::uapi::{NF_IP_PRI_SECURITY, NF_NAT_RANGE_PROTO_RANDOM_FULLY};
use crate::uapi::{NFT_META_IIFKIND, NFT_META_OIFKIND, NFT_META_SDIFNAME, NFT_TABLE_F_OWNER};
use crate::uapi::{NFTA_FIB_F_DADDR, NFTA_FIB_F_SADDR};
use crate::uapi::{NFTA_TABLE_FLAGS, NFTA_TABLE_NAME};
use nftnl::nftnl_sys::libc;
use nftnl::{Chain, ChainType, MsgType, Policy, ProtoFamily, Rule, Table};
use std::collections::HashMap;
use std::ffi::CString;

/// The messages that install the whole ruleset; with `replaces` in place of a table of the same name.
pub fn install(ruleset: &Ruleset, replaces: bool, generation: Option<u32>) -> Transaction {
    batch(ruleset, replaces, generation).finish()
}

/// The same under another name, with one more message that the kernel must refuse: it deletes a table
/// that does not exist.
pub fn dry_run(ruleset: &Ruleset) -> Transaction {
    let renamed = Ruleset {
        table: format!("{}.dry-run", ruleset.table),
        ..ruleset.clone()
    };
    let mut batch = batch(&renamed, false, None);
    let missing = format!("{}.none", ruleset.table);
    batch.push(Step::Table, delete_table(&missing));
    batch.finish()
}

/// The message that adds a table of family `inet`; with an owner, it belongs to the socket that the message
/// is sent over. nftnl's own has no flags.
pub fn add_table(name: &str, owner: bool) -> Request {
    // NLM_F_EXCL: a table that exists already must not be taken over (EEXIST).
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    table_message(libc::NFT_MSG_NEWTABLE, flags, name)
        .u32(NFTA_TABLE_FLAGS, if owner { NFT_TABLE_F_OWNER } else { 0 })
}

/// The message that deletes a table of family `inet` with all that is in it.
pub fn delete_table(name: &str) -> Request {
    table_message(libc::NFT_MSG_DELTABLE, 0, name)
}

fn table_message(message: i32, flags: i32, name: &str) -> Request {
    let family = libc::NFPROTO_INET as u8;
    Request::new(message_type(message), flags as u16, family, 0).text(NFTA_TABLE_NAME, name)
}

fn batch(ruleset: &Ruleset, replaces: bool, generation: Option<u32>) -> Batch {
    let mut encoder = Encoder {
        batch: Batch::new(generation),
        table: Table::new(c_string(&ruleset.table), ProtoFamily::Inet),
        overlap: replaces,
        counts: Counts::default(),
    };
    if replaces {
        encoder
            .batch
            .push(Step::Table, delete_table(&ruleset.table));
    }
    let table = add_table(&ruleset.table, ruleset.owner);
    encoder.batch.push(Step::Table, table);
    encoder.chains(ruleset, &|_| true);
    encoder.sets(ruleset);
    if let Some(flowtable) = &ruleset.flowtable {
        let message = add_flowtable(&ruleset.table, flowtable);
        encoder.batch.push(Step::Flowtable, message);
    }
    encoder.rules(ruleset, &|_| true);
    encoder.elements(ruleset);
    encoder.batch
}

/// While both tables exist, a packet may meet the new chain before the commit and the old one after it,
/// and match in neither: of chains with the same priority, the newest comes first (nf_hook_entries_grow
/// in net/netfilter/core.c). So a replacement adds each base chain twice, the second one priority later,
/// until the old table is gone.
fn overlap_name(chain: &ruleset::Chain) -> String {
    format!("{}-overlap", chain.name)
}

struct Encoder {
    batch: Batch,
    table: Table,
    /// Whether base chains are added twice.
    overlap: bool,
    /// What counters go on from.
    counts: Counts,
}

impl Encoder {
    fn chains(&mut self, ruleset: &Ruleset, wanted: &dyn Fn(&ruleset::Chain) -> bool) {
        let chains = ruleset.chains.iter().enumerate();
        for (index, chain) in chains.filter(|(_, chain)| wanted(chain)) {
            for (name, later) in self.names(chain).iter().zip(0..) {
                let mut message = Chain::new(c_string(name), &self.table);
                if let Some(hook) = chain.hook {
                    let (kind, hook, priority) = at_hook(hook);
                    message.set_type(kind);
                    message.set_hook(hook, priority + later);
                    message.set_policy(Policy::Accept);
                }
                self.batch.add(Step::Chain(index), &message, MsgType::Add);
            }
        }
    }

    /// The names under which a chain is added.
    fn names(&self, chain: &ruleset::Chain) -> Vec<String> {
        let mut names = vec![chain.name.clone()];
        if self.overlap && chain.hook.is_some() {
            names.push(overlap_name(chain));
        }
        names
    }

    fn sets(&mut self, ruleset: &Ruleset) {
        for (index, set) in ruleset.sets.iter().enumerate() {
            let (table, id) = (&ruleset.table, set_id(index));
            self.batch.push(Step::Set(index), add_set(table, set, id));
        }
    }

    /// After the rules: for one that looks up in a map, the kernel goes through all that is in the map already
    /// (nf_tables_bind_set in net/netfilter/nf_tables_api.c).
    fn elements(&mut self, ruleset: &Ruleset) {
        for (index, set) in ruleset.sets.iter().enumerate() {
            for message in add_elements(&ruleset.table, set, set_id(index)) {
                self.batch.push(Step::Elements(index), message);
            }
        }
    }

    fn rules(&mut self, ruleset: &Ruleset, wanted: &dyn Fn(&ruleset::Chain) -> bool) {
        let names = ruleset.sets.iter().map(|set| &set.name[..]);
        let ids: HashMap<&str, u32> = names.zip((0..).map(set_id)).collect();
        let chains = ruleset.chains.iter().enumerate();
        for (chain_index, chain) in chains.filter(|(_, chain)| wanted(chain)) {
            for (rule_index, rule) in chain.rules.iter().enumerate() {
                let step = Step::Rule(chain_index, rule_index);
                let mut expressions = Vec::new();
                let count = self.counts.take(&chain.name, rule);
                for statement in rule {
                    encode(&ids, count, statement, &mut expressions);
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

/// Type, hook and priority of a base chain.
fn at_hook(hook: Hook) -> (ChainType, nftnl::Hook, i32) {
    match hook {
        Hook::Prerouting => (
            ChainType::Nat,
            nftnl::Hook::PreRouting,
            libc::NF_IP_PRI_NAT_DST,
        ),
        Hook::Input => (
            ChainType::Filter,
            nftnl::Hook::In,
            libc::NF_IP_PRI_FILTER - 10,
        ),
        Hook::Forward => (
            ChainType::Filter,
            nftnl::Hook::Forward,
            libc::NF_IP_PRI_FILTER - 10,
        ),
        Hook::FastPath => (
            ChainType::Filter,
            nftnl::Hook::Forward,
            NF_IP_PRI_SECURITY + 10,
        ),
        Hook::Output => (ChainType::Nat, nftnl::Hook::Out, libc::NF_IP_PRI_NAT_DST),
        Hook::Mangle => (
            ChainType::Filter,
            nftnl::Hook::PostRouting,
            libc::NF_IP_PRI_MANGLE,
        ),
        Hook::Postrouting => (
            ChainType::Nat,
            nftnl::Hook::PostRouting,
            libc::NF_IP_PRI_NAT_SRC,
        ),
    }
}

/// `ids` are the sets of the ruleset, with the numbers by which rules of the transaction know them; the rule's
/// counter begins with `count`.
///
/// Longer than a screen, as it is a table: one line or a few for each statement, which the compiler finds complete.
fn encode(
    ids: &HashMap<&str, u32>,
    count: Count,
    statement: &Statement,
    out: &mut Vec<Expression>,
) {
    let set = |name: &str| SetReference {
        name: c_string(name),
        id: ids.get(name).copied().unwrap_or(0),
    };
    match statement {
        Statement::Family(family) => out.extend(is_family(*family)),
        Statement::Protocol(protocol) => {
            out.push(expr::meta(libc::NFT_META_L4PROTO, REG_1));
            out.push(expr::equal(&[protocol.number()]));
        }
        Statement::DestinationType(kind) => out.extend(is_type(*kind, false)),
        Statement::LocalToInterface => out.extend(is_type(AddressType::Local, true)),
        Statement::FromBridge => out.extend(is_bridge(NFT_META_IIFKIND)),
        Statement::FromBridgeToBridge => {
            out.extend(is_bridge(NFT_META_IIFKIND));
            out.extend(is_bridge(NFT_META_OIFKIND));
        }
        Statement::WouldTurnBack => out.extend(leads_to_input(NFTA_FIB_F_DADDR, true)),
        Statement::ToOthers => out.extend(is_to_others()),
        Statement::SourceIsElsewhere => out.extend(leads_to_input(NFTA_FIB_F_SADDR, false)),
        Statement::VrfInterfaceIn(name) => {
            out.push(expr::meta(NFT_META_SDIFNAME, REG_1));
            out.push(expr::lookup(&set(name)));
        }
        Statement::InterfaceIn(name) => {
            out.push(expr::meta(libc::NFT_META_IIFNAME, REG_1));
            out.push(expr::lookup(&set(name)));
        }
        Statement::LoopbackDestination(family) => {
            out.extend(is_family(*family));
            out.extend(loopback_destination(*family));
        }
        Statement::LinkLocalDestination => {
            out.extend(is_family(Family::Ipv6));
            out.extend(link_local_destination());
        }
        Statement::DestinationIn(family, name) => {
            out.extend(is_in(*family, [destination(*family, REG_1)], &set(name)));
        }
        Statement::SourceIn(family, name) => {
            out.extend(is_in(*family, [source(*family, REG_1)], &set(name)));
        }
        Statement::SourceNotIn(family, name) => {
            out.extend(is_family(*family));
            out.push(source(*family, REG_1));
            out.push(expr::lookup_not(&set(name)));
        }
        Statement::SourceAndServiceIn(family, name) => {
            let key = service()
                .into_iter()
                .chain([source(*family, AFTER_SERVICE)]);
            out.extend(is_in(*family, key, &set(name)));
        }
        Statement::BackendIn(family, name) => {
            let key = service()
                .into_iter()
                .chain([destination(*family, AFTER_SERVICE)]);
            out.extend(is_in(*family, key, &set(name)));
        }
        Statement::FromBackendIn(family, name) => {
            let key = [
                expr::source_port(REG_1),
                expr::protocol_after_port(),
                source(*family, AFTER_SERVICE),
            ];
            out.extend(is_in(*family, key, &set(name)));
        }
        Statement::ServiceIn(name) => {
            out.extend(service());
            out.push(expr::lookup(&set(name)));
        }
        Statement::ServiceVmap(map) => {
            out.extend(service());
            out.push(expr::lookup_map(&set(map), VERDICT));
        }
        Statement::Choose(choice) => out.extend(choose(choice)),
        Statement::Translated => out.extend(is_translated()),
        Statement::Original => out.extend(is_original()),
        Statement::Established => out.extend(is_established()),
        Statement::Invalid => out.extend(is_invalid()),
        Statement::TcpSynOrRst => out.extend(has_syn_or_rst()),
        Statement::Counter => out.push(expr::counter(count)),
        Statement::Drop => out.push(expr::verdict(libc::NF_DROP)),
        Statement::Return => out.push(expr::verdict(libc::NFT_RETURN)),
        Statement::Jump(chain) => out.push(expr::to_chain(libc::NFT_JUMP, &c_string(chain))),
        Statement::Goto(chain) => out.push(expr::to_chain(libc::NFT_GOTO, &c_string(chain))),
        Statement::FlowAdd(flowtable) => out.push(expr::flow_add(&c_string(flowtable))),
        Statement::Dnat(to) => out.extend(dnat(to, set)),
        Statement::TcpSyn => out.extend(has_syn()),
        Statement::Masquerade(port) => out.push(expr::masquerade(match port {
            SourcePort::Kept => 0,
            SourcePort::FullyRandom => NF_NAT_RANGE_PROTO_RANDOM_FULLY,
        })),
        Statement::ClampMss => {
            out.push(expr::path_mss(REG_1));
            out.push(expr::to_network_order(2));
            out.push(expr::set_mss());
        }
    }
}

fn dnat(to: &Dnat, set: impl Fn(&str) -> SetReference) -> Vec<Expression> {
    match to {
        Dnat::SamePort(address) => vec![
            expr::immediate(&octets(*address), REG_1),
            expr::destination_nat(nfproto(Family::of(*address)), None),
        ],
        Dnat::Port(address, port) => vec![
            expr::immediate(&octets(*address), REG_1),
            expr::immediate(&port.to_be_bytes(), REG_2),
            expr::destination_nat(nfproto(Family::of(*address)), Some(REG_2)),
        ],
        Dnat::Map(family, map) => {
            let port_register = register_after(address_length(*family));
            let mut expressions = Vec::from(service());
            expressions.extend([
                expr::lookup_map(&set(map), REG_1),
                expr::destination_nat(nfproto(*family), Some(port_register)),
            ]);
            expressions
        }
    }
}

/// The number by which rules of the transaction know a set.
fn set_id(index: usize) -> u32 {
    index as u32 + 1
}

/// Names in a ruleset are made of letters, digits, '.', '_' and '-', so there is no NUL in them.
fn c_string(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}
