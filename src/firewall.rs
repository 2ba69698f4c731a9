//! Other programs' rules: which of their chains a forwarded packet meets, and its outcome there.
//!
//! A packet is made up (`packet`) and led through a chain, rule by rule (`eval`, with `set` for
//! look-ups and `xtables` for what iptables-nft writes in its own format). Not everything about it
//! is known, so a rule matches it, does not, or may.

mod action;
mod eval;
mod fields;
mod packet;
mod registers;
mod set;
mod xtables;

pub use packet::Packet;

use crate::netlink::{Failure, Socket, gives_up};
use crate::nftables::list::{self, BaseChain, Hook, Rule, Table, TableHandles};
use crate::nftables::{Nftables, NftablesError};
use crate::uapi::NFT_JUMP_STACK_SIZE;
use action::Action;
use eval::Sets;
use packet::Bytes;
use set::{Found, Set};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::rc::Rc;

/// Yes, no, or not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tristate {
    No,
    Maybe,
    Yes,
}

impl Tristate {
    fn not(self) -> Self {
        match self {
            Tristate::No => Tristate::Yes,
            Tristate::Maybe => Tristate::Maybe,
            Tristate::Yes => Tristate::No,
        }
    }
}

impl From<bool> for Tristate {
    fn from(known: bool) -> Self {
        if known { Tristate::Yes } else { Tristate::No }
    }
}

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It passes unchanged.
    Passes,
    /// It is dropped, rejected or translated here.
    Ends(Location),
    /// It may be; the first location where it may.
    MayEnd(Location),
    /// There are more rules than may be gone through, it took too long, or they have changed meanwhile.
    Unread,
}

/// Where a packet ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    pub table: Table,
    pub chain: String,
    /// The rule's handle; `None` for the chain's policy.
    pub rule: Option<u64>,
    /// Whether it is known what the rule does.
    pub is_followed: bool,
}

impl Location {
    fn policy(chain: &BaseChain) -> Self {
        Location {
            table: chain.table.clone(),
            chain: chain.name.clone(),
            rule: None,
            is_followed: true,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(handle) => write!(f, "rule {handle}")?,
            None => f.write_str("the policy")?,
        }
        let Location { table, chain, .. } = self;
        write!(f, " of chain {chain} in table {table}")
    }
}

/// The tables of this network namespace, read as far as they are needed.
pub struct Firewall<'a> {
    nftables: &'a Nftables,
    chains: Rc<[BaseChain]>,
    handles: TableHandles,
    rules: HashMap<Table, HashMap<String, Rc<[Rule]>>>,
    sets: HashMap<Table, HashMap<String, Set>>,
    /// How many more chains and rules may be gone through.
    budget: usize,
}

impl<'a> Firewall<'a> {
    /// Lists the base chains. No more than `budget` chains and rules will be gone through, each counted as
    /// often as a packet meets it.
    pub fn read(nftables: &'a Nftables, budget: usize) -> Result<Self, NftablesError> {
        let (chains, handles) = nftables.list(list::base_chains)?;
        Ok(Firewall {
            nftables,
            chains: chains.into(),
            handles,
            rules: HashMap::new(),
            sets: HashMap::new(),
            budget,
        })
    }

    /// The base chains of all tables, in the order of the kernel's list. Shared, since rules are read while a
    /// caller goes through them.
    pub fn chains(&self) -> Rc<[BaseChain]> {
        self.chains.clone()
    }

    /// The kernel's number for a table: a newer one has a higher one.
    pub fn handle(&self, table: &Table) -> Option<u64> {
        self.handles.get(table).copied()
    }

    /// Whether a chain has rules.
    pub fn is_used(&self, chain: &BaseChain) -> Result<bool, NftablesError> {
        let uses = self.list(|socket| list::chain_use(socket, &chain.table, &chain.name))?;
        Ok(uses.is_some_and(|uses| uses > 0))
    }

    /// Whether a table has a chain of this name.
    pub fn has_chain(&self, table: &Table, chain: &str) -> Result<bool, NftablesError> {
        let found = self.list(|socket| list::chain_use(socket, table, chain))?;
        Ok(found.is_some())
    }

    fn list<T>(
        &self,
        read: impl FnOnce(&Socket) -> Result<T, Failure>,
    ) -> Result<T, NftablesError> {
        self.nftables.list(read)
    }

    /// What becomes of a packet in one of the chains.
    pub fn outcome(
        &mut self,
        chain: &BaseChain,
        packet: &Packet,
    ) -> Result<Outcome, NftablesError> {
        let mut walk = Walk {
            table: &chain.table,
            translates_source: matches!(chain.hook, Hook::Input | Hook::Postrouting),
            packet,
            firewall: self,
            may_pass: false,
            may_end: None,
            depth: 0,
        };
        match walk.chain(&chain.name, true)? {
            End::Decided(outcome) => Ok(outcome),
            End::Returned if chain.drops => Ok(walk.ends(Location::policy(chain))),
            End::Returned => Ok(walk.passes()),
        }
    }

    /// Whether one more chain or rule may be gone through.
    fn spend(&mut self) -> bool {
        let left = self.budget.checked_sub(1);
        self.budget = left.unwrap_or(0);
        left.is_some() && !gives_up()
    }

    /// The rules of a chain; `None` if there are more than may be evaluated.
    fn rules(&mut self, table: &Table, chain: &str) -> Result<Option<Rc<[Rule]>>, NftablesError> {
        let known = self.rules.get(table).and_then(|chains| chains.get(chain));
        if let Some(rules) = known {
            return Ok(Some(rules.clone()));
        }
        let uses = self.list(|socket| list::chain_use(socket, table, chain))?;
        if uses.is_some_and(|uses| uses > self.budget) {
            return Ok(None);
        }
        let rules = self.list(|socket| list::rules(socket, table, Some(chain)))?;
        let rules: Rc<[Rule]> = rules.into();
        let of_table = self.rules.entry(table.clone()).or_default();
        of_table.insert(chain.to_owned(), rules.clone());
        Ok(Some(rules))
    }

    fn set(&mut self, table: &Table, name: &str) -> Result<&mut Set, NftablesError> {
        let sets = self.sets.entry(table.clone()).or_default();
        Ok(match sets.entry(name.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Set::read(self.nftables, table, name)?),
        })
    }
}

/// The sets that `eval` looks up: a rule can name only those of its own table.
struct TableSets<'a, 'b> {
    firewall: &'a mut Firewall<'b>,
    table: &'a Table,
}

impl Sets for TableSets<'_, '_> {
    fn key_length(&mut self, set: &str) -> Result<usize, NftablesError> {
        Ok(self.firewall.set(self.table, set)?.key_length)
    }

    fn find(&mut self, set: &str, key: &Bytes) -> Result<Found, NftablesError> {
        let nftables = self.firewall.nftables;
        self.firewall.set(self.table, set)?.find(nftables, key)
    }
}

/// A packet's walk through a chain and those that it leads to.
struct Walk<'a, 'b> {
    table: &'a Table,
    /// Whether what is translated there is the source, which leads the packet nowhere else.
    translates_source: bool,
    packet: &'a Packet,
    firewall: &'a mut Firewall<'b>,
    /// Whether a rule on the way may have accepted it.
    may_pass: bool,
    /// The first location where it may have ended.
    may_end: Option<Location>,
    /// How many chains have led to the one that it is in.
    depth: usize,
}

/// How a chain was left.
enum End {
    Returned,
    Decided(Outcome),
}

/// Where the walk goes on.
enum Next {
    /// With the next rule.
    Rule,
    /// At the end of the chain.
    Leave,
    Decided(Outcome),
}

impl Walk<'_, '_> {
    /// `sure` says whether the packet comes here for certain.
    fn chain(&mut self, name: &str, mut sure: bool) -> Result<End, NftablesError> {
        let rules = self.firewall.rules(self.table, name)?;
        let Some(rules) = rules.filter(|_| self.firewall.spend()) else {
            return Ok(End::Decided(Outcome::Unread));
        };
        for rule in rules.iter() {
            if !self.firewall.spend() {
                return Ok(End::Decided(Outcome::Unread));
            }
            let mut sets = TableSets {
                firewall: self.firewall,
                table: self.table,
            };
            let result = eval::eval(rule.expressions(), self.packet, &mut sets)?;
            for action in &result.actions {
                let location = Location {
                    table: self.table.clone(),
                    chain: name.to_owned(),
                    rule: Some(rule.handle),
                    is_followed: *action != Action::NotFollowed,
                };
                match self.follow(action, sure && result.sure, location)? {
                    Next::Rule => {}
                    Next::Leave if result.sure => return Ok(End::Returned),
                    // The following rules may not be reached.
                    Next::Leave => sure &= *action != Action::Return,
                    Next::Decided(outcome) => return Ok(End::Decided(outcome)),
                }
            }
        }
        Ok(End::Returned)
    }

    /// `applies` says whether the packet surely gets there.
    fn follow(
        &mut self,
        action: &Action,
        applies: bool,
        location: Location,
    ) -> Result<Next, NftablesError> {
        let action = match action {
            Action::Translate if self.translates_source => &Action::Accept,
            Action::Translate => &Action::End,
            action => action,
        };
        match action {
            Action::Continue => return Ok(Next::Rule),
            // The kernel lets chains lead no deeper (nf_tables_validate in net/netfilter/nf_tables_api.c):
            // these were read before and after a change.
            Action::Jump(_) | Action::Goto(_) if self.depth == NFT_JUMP_STACK_SIZE => {
                return Ok(Next::Decided(Outcome::Unread));
            }
            Action::Jump(chain) | Action::Goto(chain) => {
                self.depth += 1;
                let end = self.chain(chain, applies)?;
                self.depth -= 1;
                return Ok(match end {
                    End::Decided(outcome) => Next::Decided(outcome),
                    End::Returned if matches!(action, Action::Goto(_)) => Next::Leave,
                    End::Returned => Next::Rule,
                });
            }
            Action::Accept if applies => return Ok(Next::Decided(self.passes())),
            Action::End if applies => return Ok(Next::Decided(self.ends(location))),
            Action::Accept => self.may_pass = true,
            Action::End => {
                self.may_end.get_or_insert(location);
            }
            Action::Unknown | Action::NotFollowed => {
                self.may_pass = true;
                self.may_end.get_or_insert(location);
            }
            Action::Return | Action::Translate => {}
        }
        Ok(Next::Leave)
    }

    fn passes(&mut self) -> Outcome {
        self.may_end.take().map_or(Outcome::Passes, Outcome::MayEnd)
    }

    fn ends(&mut self, location: Location) -> Outcome {
        if self.may_pass {
            Outcome::MayEnd(self.may_end.take().unwrap_or(location))
        } else {
            Outcome::Ends(location)
        }
    }
}
