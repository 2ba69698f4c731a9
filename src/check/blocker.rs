//! Rules and policies of other tables that end forwarded connections.

use super::{Finding, Level};
use crate::config::{Destination, Forward, PortRange};
use crate::firewall::{Location, Outcome};
use crate::nftables::NftablesError;
use crate::nftables::list::BaseChain;
use std::collections::HashMap;

/// A rule or policy that ends the packets of some forwards.
pub struct Blocker<'a> {
    /// The base chain that the packets enter.
    pub chain: &'a BaseChain,
    /// Where they end.
    pub location: Location,
    /// Whether they surely do.
    pub sure: bool,
    /// Whether it is replies that end there.
    pub replies: bool,
    pub forwards: Vec<(&'a Forward, Destination)>,
}

/// The blockers of one kind.
#[derive(Default)]
pub struct Blockers<'a> {
    list: Vec<Blocker<'a>>,
    /// The index of each in the list, by location, whether it is sure, and whether it is replies.
    indices: HashMap<(Location, bool, bool), usize>,
    unread: bool,
}

impl<'a> Blockers<'a> {
    /// Adds what becomes of a forward's packets in a chain.
    pub fn add(
        &mut self,
        chain: &'a BaseChain,
        outcome: Outcome,
        replies: bool,
        forward: (&'a Forward, Destination),
    ) {
        let (location, sure) = match outcome {
            Outcome::Passes => return,
            Outcome::Unread => {
                self.unread = true;
                return;
            }
            Outcome::Ends(location) => (location, true),
            Outcome::MayEnd(location) => (location, false),
        };
        let index = *self
            .indices
            .entry((location.clone(), sure, replies))
            .or_insert(self.list.len());
        match self.list.get_mut(index) {
            Some(blocker) => blocker.forwards.push(forward),
            None => self.list.push(Blocker {
                chain,
                location,
                sure,
                replies,
                forwards: vec![forward],
            }),
        }
    }

    /// Says that not all was looked at.
    pub fn stop(&mut self) {
        self.unread = true;
    }

    /// A line for each, or one that says that there is none.
    pub fn findings(
        &self,
        subject: &'static str,
        none: &str,
        describe: impl Fn(&Blocker<'a>) -> Result<Finding, NftablesError>,
    ) -> Result<Vec<Finding>, NftablesError> {
        let mut findings = Vec::new();
        for blocker in &self.list {
            findings.push(describe(blocker)?);
        }
        if self.unread {
            let text = "not looked at: more rules than can be gone through here; nft list ruleset shows them";
            findings.push(Finding::new(Level::Unseen, subject, text));
        }
        if findings.is_empty() {
            findings.push(Finding::new(Level::Ok, subject, none));
        }
        Ok(findings)
    }
}

/// How many ports of a range are tried one by one.
const MAX_PORTS: u16 = 1024;

/// The outcome for all ports of a forward. Where that depends on the port, each is tried; of a large range
/// the first and the last one.
pub fn over_ports(
    ports: PortRange,
    mut outcome: impl FnMut(Option<u16>) -> Result<Outcome, NftablesError>,
) -> Result<Outcome, NftablesError> {
    if ports.is_single() {
        return outcome(Some(ports.first()));
    }
    let whole = outcome(None)?;
    if !matches!(whole, Outcome::MayEnd(_)) {
        return Ok(whole);
    }
    if ports.count() <= MAX_PORTS {
        let mut all = outcome(Some(ports.first()))?;
        for port in (ports.first()..=ports.last()).skip(1) {
            // Nothing is added to that by another port.
            if matches!(all, Outcome::MayEnd(_) | Outcome::Unread) {
                break;
            }
            all = both(all, outcome(Some(port))?);
        }
        return Ok(all);
    }
    match both(outcome(Some(ports.first()))?, outcome(Some(ports.last()))?) {
        sure @ Outcome::Ends(_) => Ok(sure),
        _ => Ok(whole),
    }
}

/// The combined outcome of packets of which some have one outcome and the rest the other.
fn both(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Unread, _) | (_, Outcome::Unread) => Outcome::Unread,
        (Outcome::Passes, Outcome::Passes) => Outcome::Passes,
        (Outcome::Ends(location), Outcome::Ends(_)) => Outcome::Ends(location),
        (Outcome::Ends(location) | Outcome::MayEnd(location), _) => Outcome::MayEnd(location),
        (_, Outcome::Ends(location) | Outcome::MayEnd(location)) => Outcome::MayEnd(location),
    }
}
