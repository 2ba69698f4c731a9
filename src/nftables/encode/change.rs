//! What changes of a ruleset that is installed: chains, the fast path, and what closes it.

use super::{Counts, Encoder, c_string, overlap_name};
use crate::nftables::batch::{Batch, Step, Transaction};
use crate::nftables::flowtable::{add_flowtable, delete_flowtable};
use crate::ruleset::{self, FAST_PATH, Flowtable, Ruleset, main_chain_name};
use nftnl::{Chain, MsgType, ProtoFamily, Rule, Table};
use std::collections::{HashMap, HashSet};

/// The forwards that differ between two rulesets, by their chains, and other chains that do.
///
/// All chains of such a forward are changed: a destination that comes back has been counted in any of them.
fn changed<'a>(before: &'a Ruleset, after: &'a Ruleset) -> HashSet<&'a str> {
    let [old, new] = [before, after].map(rules);
    let chains = old.iter().map(|(name, rules)| (name, rules, new.get(name)));
    let added = new.iter().map(|(name, rules)| (name, rules, old.get(name)));
    let differ = chains
        .chain(added)
        .filter(|(_, rules, other)| *other != Some(*rules));
    differ.map(|(name, ..)| main_chain_name(name)).collect()
}

/// The rules of each chain.
fn rules(ruleset: &Ruleset) -> HashMap<&str, &[ruleset::Rule]> {
    let chains = ruleset.chains.iter();
    chains.map(|chain| (&*chain.name, &*chain.rules)).collect()
}

/// The chains whose rules [`change`] replaces.
pub fn changed_chains<'a>(before: &'a Ruleset, after: &'a Ruleset) -> Vec<&'a ruleset::Chain> {
    let changed = changed(before, after);
    let is_changed = |chain: &&ruleset::Chain| changed.contains(main_chain_name(&chain.name));
    before.chains.iter().filter(is_changed).collect()
}

/// The messages that turn the chains of one ruleset into those of another, which has the same sets: only those of
/// forwards that differ, whose counters go on. None if nothing does.
pub fn change(before: &Ruleset, after: &Ruleset, counts: Counts) -> Option<Transaction> {
    let mut encoder = Encoder {
        batch: Batch::new(None),
        table: Table::new(c_string(&after.table), ProtoFamily::Inet),
        overlap: false,
        counts,
    };
    let [old, new] = [before, after].map(rules);
    let changed = changed(before, after);
    let is_changed = |chain: &ruleset::Chain| changed.contains(main_chain_name(&chain.name));
    for chain in before.chains.iter().filter(|chain| is_changed(chain)) {
        let chain = Chain::new(c_string(&chain.name), &encoder.table);
        // All its rules, as in `close`.
        let rules = Rule::new(&chain);
        encoder.batch.add(Step::Table, &rules, MsgType::Del);
    }
    encoder.chains(after, &|chain| !old.contains_key(&*chain.name));
    encoder.rules(after, &is_changed);
    let gone = |chain: &&ruleset::Chain| !new.contains_key(&*chain.name);
    for chain in before.chains.iter().filter(gone) {
        let chain = Chain::new(c_string(&chain.name), &encoder.table);
        encoder.batch.add(Step::Table, &chain, MsgType::Del);
    }
    let transaction = encoder.batch.finish();
    (transaction.last_sequence() > 0).then_some(transaction)
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
