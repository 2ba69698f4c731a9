//! What the counters of rules have counted that a change replaces: those that take their place go on from there.

use crate::nftables::list::Count;
use crate::ruleset::{Chain, Dnat, Rule, Statement, main_chain_name};
use std::collections::HashMap;

/// For each forward, by its chain, and each of its destinations.
#[derive(Default)]
pub struct Counts(HashMap<(String, Dnat), Count>);

impl Counts {
    /// Adds what the rules of a chain have counted, in their order.
    pub fn add(&mut self, chain: &Chain, counts: &[Option<Count>]) {
        for (rule, count) in chain.rules.iter().zip(counts) {
            if let (Some(key), Some(count)) = (key(&chain.name, rule), count) {
                let sum = self.0.entry(key).or_default();
                sum.packets = sum.packets.saturating_add(count.packets);
                sum.bytes = sum.bytes.saturating_add(count.bytes);
            }
        }
    }

    /// What the counter of a rule begins with: the first one to a destination has it all.
    pub fn take(&mut self, chain: &str, rule: &Rule) -> Count {
        if self.0.is_empty() {
            return Count::default();
        }
        let count = key(chain, rule).and_then(|key| self.0.remove(&key));
        count.unwrap_or_default()
    }
}

/// Whose connections a rule counts.
fn key(chain: &str, rule: &Rule) -> Option<(String, Dnat)> {
    match &rule[..] {
        [.., Statement::Counter, Statement::Dnat(to)] => {
            Some((main_chain_name(chain).to_owned(), to.clone()))
        }
        _ => None,
    }
}
