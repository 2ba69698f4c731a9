//! What changes of a ruleset that is installed: chains, the fast path, and what closes it.

use super::{Encoder, c_string, overlap_name};
use crate::nftables::batch::{Batch, Step, Transaction};
use crate::nftables::flowtable::{add_flowtable, delete_flowtable};
use crate::ruleset::{self, FAST_PATH, Flowtable, Ruleset};
use nftnl::{Chain, MsgType, ProtoFamily, Rule, Table};
use std::collections::HashMap;

/// The messages that turn the chains of one ruleset into those of another, which has the same sets: only what
/// differs. None if nothing does.
pub fn change(before: &Ruleset, after: &Ruleset) -> Option<Transaction> {
    let mut encoder = Encoder {
        batch: Batch::new(None),
        table: Table::new(c_string(&after.table), ProtoFamily::Inet),
        overlap: false,
    };
    let [old, new] = [before, after].map(places);
    let differs = |chain: &ruleset::Chain, other: &HashMap<&str, u32>, ruleset: &Ruleset| {
        let place = other.get(&*chain.name);
        place.is_none_or(|place| ruleset.chains[*place as usize].rules != chain.rules)
    };
    let changed = |chain: &&ruleset::Chain| differs(chain, &new, after);
    for chain in before.chains.iter().filter(changed) {
        let chain = Chain::new(c_string(&chain.name), &encoder.table);
        // All its rules, as in `close`.
        let rules = Rule::new(&chain);
        encoder.batch.add(Step::Table, &rules, MsgType::Del);
    }
    encoder.chains(after, &|chain| !old.contains_key(&*chain.name));
    encoder.rules(after, &|chain| differs(chain, &old, before));
    let gone = |chain: &&ruleset::Chain| !new.contains_key(&*chain.name);
    for chain in before.chains.iter().filter(gone) {
        let chain = Chain::new(c_string(&chain.name), &encoder.table);
        encoder.batch.add(Step::Table, &chain, MsgType::Del);
    }
    let transaction = encoder.batch.finish();
    (transaction.last_sequence() > 0).then_some(transaction)
}

/// Where each chain is in the ruleset.
fn places(ruleset: &Ruleset) -> HashMap<&str, u32> {
    let names = ruleset.chains.iter().map(|chain| &*chain.name);
    names.zip(0..).collect()
}

/// The messages that empty the chains through which new connections come in, and delete the fast path.
pub fn close(ruleset: &Ruleset) -> Transaction {
    let table = Table::new(c_string(&ruleset.table), ProtoFamily::Inet);
    let mut batch = Batch::new(None);
    for (index, chain) in ruleset.chains.iter().enumerate() {
        if chain.accepts_connections() {
            let chain = Chain::new(c_string(&chain.name), &table);
            // A rule without a handle stands for all rules of the chain (nf_tables_delrule).
            batch.add(Step::Chain(index), &Rule::new(&chain), MsgType::Del);
        }
    }
    if let Some(flowtable) = &ruleset.flowtable {
        let chain = Chain::new(c_string(FAST_PATH), &table);
        batch.add(Step::Flowtable, &Rule::new(&chain), MsgType::Del);
        batch.add(Step::Flowtable, &chain, MsgType::Del);
        let message = delete_flowtable(&ruleset.table, flowtable);
        batch.push(Step::Flowtable, message);
    }
    batch.finish()
}

/// The message that adds interfaces to a flowtable that is there.
pub fn add_interfaces(table: &str, flowtable: &Flowtable) -> Transaction {
    let mut batch = Batch::new(None);
    batch.push(Step::Flowtable, add_flowtable(table, flowtable));
    batch.finish()
}

/// The messages that delete the second base chains of a replacement.
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
