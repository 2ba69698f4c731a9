//! The chains of others that a forwarded packet meets, and what becomes of it there.
//!
//! A packet is made up (`packet`) and led through a chain, rule by rule (`effect`, with `set` for
//! look-ups and `xtables` for what iptables-nft writes in its own format). Not everything about it
//! is known, so a rule applies to it, does not, or may.

mod chains;
mod effect;
mod fields;
mod packet;
mod registers;
mod set;
mod xtables;

pub use chains::{BaseChain, FilterHook, Place, Table, TableFamily};
pub use packet::{Interface, Packet};

use super::socket::{Failure, Socket};
use super::{Connection, NetfilterError, error::plain};
use chains::Rule;
use effect::{Sets, Verdict};
use packet::Bytes;
use set::{Found, Set};
use std::rc::Rc;

/// Whether something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    fn not(self) -> Self {
        match self {
            Truth::No => Truth::Yes,
            Truth::Maybe => Truth::Maybe,
            Truth::Yes => Truth::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(known: bool) -> Self {
        if known { Truth::Yes } else { Truth::No }
    }
}

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It comes out of it as it was.
    Passes,
    /// It is dropped, or sent elsewhere, here.
    Ends(Place),
    /// It may be; the first place where it may.
    MayEnd(Place),
    /// There are more rules than were to be read.
    Unread,
}

/// The tables of this network namespace, read as far as is needed.
pub struct Firewall<'a> {
    socket: &'a Socket,
    chains: Rc<[BaseChain]>,
    rules: Vec<(Table, String, Rc<[Rule]>)>,
    sets: Vec<Set>,
    /// How many more rules may be looked at.
    budget: usize,
}

impl<'a> Firewall<'a> {
    /// Lists the chains at hooks. No more than `budget` rules will be looked at, each counted as
    /// often as a packet meets it.
    pub fn read(connection: &'a Connection, budget: usize) -> Result<Self, NetfilterError> {
        let socket = &connection.socket;
        Ok(Firewall {
            socket,
            chains: chains::base_chains(socket).map_err(plain)?.into(),
            rules: Vec::new(),
            sets: Vec::new(),
            budget,
        })
    }

    /// The chains at hooks.
    pub fn chains(&self) -> Rc<[BaseChain]> {
        self.chains.clone()
    }

    /// Whether a table has a chain of this name.
    pub fn has_chain(&self, table: &Table, chain: &str) -> Result<bool, NetfilterError> {
        chains::exists(self.socket, table, chain).map_err(plain)
    }

    /// What becomes of a packet in one of the chains.
    pub fn fate(&mut self, chain: &BaseChain, packet: &Packet) -> Result<Fate, NetfilterError> {
        let mut walk = Walk {
            table: &chain.table,
            packet,
            firewall: self,
            may_pass: false,
            may_end: None,
        };
        match walk.chain(&chain.name, true).map_err(plain)? {
            End::Decided(fate) => Ok(fate),
            End::Returned if chain.drops => Ok(walk.ends(chain.policy())),
            End::Returned => Ok(walk.passes()),
        }
    }

    /// Nothing, if there are more than may be looked at.
    fn rules(&mut self, table: &Table, chain: &str) -> Result<Option<Rc<[Rule]>>, Failure> {
        let known = |(of, name, _): &&(Table, String, Rc<_>)| of == table && name == chain;
        if let Some((.., rules)) = self.rules.iter().find(known) {
            return Ok(Some(rules.clone()));
        }
        if chains::uses(self.socket, table, chain)? > self.budget {
            return Ok(None);
        }
        let rules: Rc<[Rule]> = chains::rules(self.socket, table, chain)?.into();
        let entry = (table.clone(), chain.to_owned(), rules.clone());
        self.rules.push(entry);
        Ok(Some(rules))
    }

    fn set(&mut self, table: &Table, name: &str) -> Result<&mut Set, Failure> {
        let place = match self.sets.iter().position(|set| set.is(table, name)) {
            Some(place) => place,
            None => {
                self.sets.push(Set::describe(self.socket, table, name)?);
                self.sets.len() - 1
            }
        };
        Ok(&mut self.sets[place])
    }
}

/// The sets of one table.
struct TableSets<'a, 'b> {
    firewall: &'a mut Firewall<'b>,
    table: &'a Table,
}

impl Sets for TableSets<'_, '_> {
    fn key_length(&mut self, set: &str) -> Result<usize, Failure> {
        Ok(self.firewall.set(self.table, set)?.key_length)
    }

    fn find(&mut self, set: &str, key: &Bytes) -> Result<Found, Failure> {
        let socket = self.firewall.socket;
        self.firewall.set(self.table, set)?.find(socket, key)
    }
}

/// A packet's way through a chain and those that it leads to.
struct Walk<'a, 'b> {
    table: &'a Table,
    packet: &'a Packet,
    firewall: &'a mut Firewall<'b>,
    /// Whether something on the way may have accepted it.
    may_pass: bool,
    /// The first place where it may have ended.
    may_end: Option<Place>,
}

/// How a chain was left.
enum End {
    Returned,
    Decided(Fate),
}

/// What a verdict leads to.
enum Next {
    /// The next rule.
    Rule,
    /// The end of the chain.
    Leave,
    Decided(Fate),
}

impl Walk<'_, '_> {
    /// `sure` says whether the packet comes here for certain.
    fn chain(&mut self, name: &str, mut sure: bool) -> Result<End, Failure> {
        let Some(rules) = self.firewall.rules(self.table, name)? else {
            return Ok(End::Decided(Fate::Unread));
        };
        for rule in rules.iter() {
            let Some(budget) = self.firewall.budget.checked_sub(1) else {
                return Ok(End::Decided(Fate::Unread));
            };
            self.firewall.budget = budget;
            let mut sets = TableSets {
                firewall: self.firewall,
                table: self.table,
            };
            let effect = effect::effect(rule.expressions(), self.packet, &mut sets)?;
            for verdict in &effect.verdicts {
                let place = Place::rule(self.table, name, rule.handle);
                match self.follow(verdict, sure && effect.sure, place)? {
                    Next::Rule => {}
                    Next::Leave if effect.sure => return Ok(End::Returned),
                    // What comes behind may not be reached.
                    Next::Leave => sure &= *verdict != Verdict::Return,
                    Next::Decided(fate) => return Ok(End::Decided(fate)),
                }
            }
        }
        Ok(End::Returned)
    }

    /// `applies` says whether the packet surely gets this verdict.
    fn follow(&mut self, verdict: &Verdict, applies: bool, place: Place) -> Result<Next, Failure> {
        match verdict {
            Verdict::Continue => return Ok(Next::Rule),
            Verdict::Jump(chain) | Verdict::Goto(chain) => {
                return Ok(match self.chain(chain, applies)? {
                    End::Decided(fate) => Next::Decided(fate),
                    End::Returned if matches!(verdict, Verdict::Goto(_)) => Next::Leave,
                    End::Returned => Next::Rule,
                });
            }
            Verdict::Accept if applies => return Ok(Next::Decided(self.passes())),
            Verdict::End if applies => return Ok(Next::Decided(self.ends(place))),
            Verdict::Accept => self.may_pass = true,
            Verdict::End => {
                self.may_end.get_or_insert(place);
            }
            Verdict::Unknown => {
                self.may_pass = true;
                self.may_end.get_or_insert(place);
            }
            Verdict::Return => {}
        }
        Ok(Next::Leave)
    }

    fn passes(&mut self) -> Fate {
        self.may_end.take().map_or(Fate::Passes, Fate::MayEnd)
    }

    fn ends(&mut self, place: Place) -> Fate {
        match self.may_pass {
            true => Fate::MayEnd(self.may_end.take().unwrap_or(place)),
            false => Fate::Ends(place),
        }
    }
}
