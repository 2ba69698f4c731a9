//! Where the tables of others end forwarded connections.

use super::{Finding, Level};
use crate::config::{Destination, Forward, PortRange};
use crate::netfilter::{BaseChain, Fate, NetfilterError, Place};

/// What some forwards meet at one place.
pub struct Encounter<'a> {
    /// The chain in which they come there.
    pub chain: &'a BaseChain,
    /// Where their packets end.
    pub place: Place,
    /// Whether they surely do.
    pub sure: bool,
    /// Whether it is answers that do.
    pub answers: bool,
    /// Which forwards.
    pub forwards: Vec<(&'a Forward, Destination)>,
}

/// All of one kind.
#[derive(Default)]
pub struct Encounters<'a> {
    list: Vec<Encounter<'a>>,
    unread: bool,
}

impl<'a> Encounters<'a> {
    /// Notes what becomes of a forward's packets in a chain.
    pub fn add(
        &mut self,
        chain: &'a BaseChain,
        fate: Fate,
        answers: bool,
        forward: (&'a Forward, Destination),
    ) {
        let (place, sure) = match fate {
            Fate::Passes => return,
            Fate::Unread => {
                self.unread = true;
                return;
            }
            Fate::Ends(place) => (place, true),
            Fate::MayEnd(place) => (place, false),
        };
        let same = |other: &&mut Encounter<'_>| {
            (&other.place, other.sure, other.answers) == (&place, sure, answers)
        };
        match self.list.iter_mut().find(same) {
            Some(encounter) => encounter.forwards.push(forward),
            None => self.list.push(Encounter {
                chain,
                place,
                sure,
                answers,
                forwards: vec![forward],
            }),
        }
    }

    /// A line for each, or one that says that there is none.
    pub fn findings(
        &self,
        subject: &'static str,
        none: &str,
        describe: impl Fn(&Encounter<'a>) -> Result<(Level, String), NetfilterError>,
    ) -> Result<Vec<Finding>, NetfilterError> {
        let mut findings = Vec::new();
        for encounter in &self.list {
            let (level, text) = describe(encounter)?;
            findings.push(Finding::new(level, subject, text));
        }
        if self.unread {
            let text = "there are more rules than are looked at: nft list ruleset shows them";
            findings.push(Finding::new(Level::Doubt, subject, text));
        }
        if findings.is_empty() {
            findings.push(Finding::new(Level::Ok, subject, none));
        }
        Ok(findings)
    }
}

/// How many ports of a range are tried one by one.
const PORTS: u16 = 1024;

/// What becomes of all ports of a forward. Of a large range, an unknown port is tried, and the first
/// and the last one.
pub fn over_ports(
    ports: PortRange,
    mut fate: impl FnMut(Option<u16>) -> Result<Fate, NetfilterError>,
) -> Result<Fate, NetfilterError> {
    if ports.count() <= PORTS {
        let mut all = fate(Some(ports.first()))?;
        for port in (ports.first()..=ports.last()).skip(1) {
            all = both(all, fate(Some(port))?);
        }
        return Ok(all);
    }
    let whole = fate(None)?;
    if !matches!(whole, Fate::MayEnd(_)) {
        return Ok(whole);
    }
    match both(fate(Some(ports.first()))?, fate(Some(ports.last()))?) {
        sure @ Fate::Ends(_) => Ok(sure),
        _ => Ok(whole),
    }
}

/// What becomes of packets of which each has one of two fates.
fn both(one: Fate, other: Fate) -> Fate {
    match (one, other) {
        (Fate::Unread, _) | (_, Fate::Unread) => Fate::Unread,
        (Fate::Passes, Fate::Passes) => Fate::Passes,
        (Fate::Ends(place), Fate::Ends(_)) => Fate::Ends(place),
        (Fate::Ends(place) | Fate::MayEnd(place), _) => Fate::MayEnd(place),
        (_, Fate::Ends(place) | Fate::MayEnd(place)) => Fate::MayEnd(place),
    }
}
