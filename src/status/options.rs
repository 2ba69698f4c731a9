//! The options of an instance that its rules show, read back from them.

use super::{ForwardStatus, rule};
use crate::config::{Allowed, Balance, Family, OptionName, closed};
use crate::logging::with_causes;
use crate::nftables::list::{self, Element, ElementKind, FlowtableInfo, Rule, Table};
use crate::nftables::{Nftables, NftablesError};
use crate::ruleset::{
    self, CLAMP_MSS, FAST_PATH, NOT_FORWARDED, NOT_LISTENING, OUTPUT, POSTROUTING,
};
use crate::siblings::{self, Listening};
use crate::sysctl;
use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use serde::Serialize;

/// The options that the rules show, each by the name of its flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptionsStatus {
    /// The sources that may connect; `None` if all may.
    pub src_ranges: Option<Vec<IpNet>>,
    /// `local`, `any`, or addresses and interfaces, separated by commas.
    pub listen: String,
    /// `None` if no forward has several destinations.
    pub balance: Option<Balance>,
    pub output: bool,
    pub masquerade: bool,
    pub fully_random: bool,
    pub clamp_mss: bool,
    pub hairpin: bool,
    /// The interfaces of the fast path; none if there is no such path.
    pub fast_path: Vec<String>,
}

/// Which sources may connect, for each family that there are forwards of.
pub type FamilySources = Vec<(Family, Allowed)>;

/// A family of destinations that gets no connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub family: Family,
    /// Why, and what to do.
    pub reason: String,
}

/// What an instance lists, each read once.
#[derive(Debug, Default)]
pub struct Lists {
    /// The sources that may connect, of each family that has a set of them.
    sources: Vec<(Family, Vec<IpNet>)>,
    pub listening: Listening,
}

impl Lists {
    /// Those in a table; or which of them are more than `siblings::MAX_LISTED`.
    pub fn read(table: &Table) -> Result<Result<Self, &'static str>, NftablesError> {
        let mut sources = Vec::new();
        for family in Family::ALL {
            let set = ruleset::allowed_set_name(family);
            match siblings::listed(&Nftables::open()?, table, &set)? {
                Some(elements) => sources.push((family, networks(elements))),
                None => return Ok(Err("sources")),
            }
        }
        let listening = Listening::read(&Nftables::open()?, table)?;
        let lists = listening.map(|listening| Lists { sources, listening });
        Ok(lists.ok_or("addresses"))
    }
}

/// A table, and the socket that it is read over.
struct Reader<'a> {
    nftables: &'a Nftables,
    table: &'a Table,
}

impl OptionsStatus {
    /// Those of an instance with this table and these forwards; `None` if it has none.
    pub fn read(
        nftables: &Nftables,
        table: &Table,
        forwards: &[ForwardStatus],
        lists: &Lists,
        sources: &FamilySources,
    ) -> Result<Option<Self>, NftablesError> {
        if forwards.is_empty() {
            return Ok(None);
        }
        let reader = Reader { nftables, table };
        let masquerade = reader.rules(POSTROUTING)?;
        let masquerade = masquerade.iter().filter_map(rule::is_fully_random);
        Ok(Some(OptionsStatus {
            src_ranges: src_ranges(sources),
            listen: reader.listen(&lists.listening)?,
            balance: reader.balance(forwards)?,
            output: reader.has_chain(OUTPUT)?,
            masquerade: reader.has_chain(POSTROUTING)?,
            fully_random: masquerade.fold(true, |_, random| random),
            clamp_mss: reader.has_chain(CLAMP_MSS)?,
            hairpin: reader.hairpin(sources)?,
            fast_path: reader.fast_path()?,
        }))
    }
}

/// Which sources may connect to the forwards in a table.
pub fn sources(
    nftables: &Nftables,
    table: &Table,
    forwards: &[ForwardStatus],
    lists: &Lists,
) -> Result<FamilySources, NftablesError> {
    let reader = Reader { nftables, table };
    let mut sources = FamilySources::new();
    for family in Family::ALL {
        let mut forwards = forwards.iter();
        if forwards.any(|forward| forward.service.family == family) {
            sources.push((family, reader.allowed(lists, family)?));
        }
    }
    Ok(sources)
}

/// `SRC_RANGES` with that meaning.
fn src_ranges(sources: &FamilySources) -> Option<Vec<IpNet>> {
    let mut ranges = Vec::new();
    for (family, allowed) in sources {
        match allowed {
            Allowed::All => ranges.push(all(*family)),
            Allowed::None => {}
            Allowed::Ranges(networks) => ranges.extend(networks),
        }
    }
    let is_limited = sources.iter().any(|(_, allowed)| *allowed != Allowed::All);
    is_limited.then_some(ranges)
}

fn all(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => Ipv4Net::default().into(),
        Family::Ipv6 => Ipv6Net::default().into(),
    }
}

/// The families of an instance's destinations that get no connections, and why.
pub fn left_out(
    nftables: &Nftables,
    table: &Table,
    sources: &FamilySources,
) -> Result<Vec<LeftOut>, NftablesError> {
    let reader = Reader { nftables, table };
    let mut left_out = Vec::new();
    for family in Family::ALL {
        let is = |why| reader.has_chain(&ruleset::left_out_chain_name(why, family));
        let reason = if is(NOT_FORWARDED)? {
            match sysctl::problem(family) {
                Some(problem) => with_causes(&problem),
                None => {
                    format!("{family} forwarding was off, and is on now: the log has the reason")
                }
            }
        } else if is(NOT_LISTENING)? {
            closed(OptionName::LISTEN, family)
        } else if sources.contains(&(family, Allowed::None)) {
            closed(OptionName::SRC_RANGES, family)
        } else {
            continue;
        };
        left_out.push(LeftOut { family, reason });
    }
    Ok(left_out)
}

impl Reader<'_> {
    fn rules(&self, chain: &str) -> Result<Vec<Rule>, NftablesError> {
        let list = |socket: &_| list::rules(socket, self.table, Some(chain));
        self.nftables.list(list)
    }

    fn has_chain(&self, name: &str) -> Result<bool, NftablesError> {
        let list = |socket: &_| list::chain_use(socket, self.table, name);
        Ok(self.nftables.list(list)?.is_some())
    }

    fn has_set(&self, names: [String; 2]) -> Result<bool, NftablesError> {
        for name in names {
            let list = |socket: &_| list::set(socket, self.table, &name);
            if self.nftables.list(list)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where rules drop packets of a family without allowing any, only ranges of the other one were given.
    fn allowed(&self, lists: &Lists, family: Family) -> Result<Allowed, NftablesError> {
        let mut sources = lists.sources.iter();
        let listed = sources.find(|(of, networks)| *of == family && !networks.is_empty());
        Ok(if let Some((_, networks)) = listed {
            Allowed::Ranges(networks.clone())
        } else if self.has_set(ruleset::ServiceMaps::of(family).dropped)? {
            Allowed::None
        } else {
            Allowed::All
        })
    }

    /// The rules that lead on packets of clients show it, in the chain for invalid ones, which stays as it is
    /// while an instance drains: with `local` they look at the type of the address.
    fn listen(&self, listening: &Listening) -> Result<String, NftablesError> {
        let addresses = listening.addresses.iter().map(ToString::to_string);
        let interfaces = listening.interfaces.iter().map(ToString::to_string);
        let listed = addresses.chain(interfaces);
        let listed: Vec<String> = listed.collect();
        if !listed.is_empty() {
            return Ok(listed.join(","));
        }
        let rules = self.rules(ruleset::INVALID)?;
        let any = rules.iter().any(rule::jumps_whatever_the_address);
        Ok(if any { "any" } else { "local" }.into())
    }

    fn balance(&self, forwards: &[ForwardStatus]) -> Result<Option<Balance>, NftablesError> {
        let several = |forward: &&ForwardStatus| forward.destinations.len() > 1;
        let Some(forward) = forwards.iter().find(several) else {
            return Ok(None);
        };
        let rules = self.rules(&ruleset::chain_name(forward.service))?;
        Ok(rules.iter().find_map(rule::balance))
    }

    fn fast_path(&self) -> Result<Vec<String>, NftablesError> {
        let flowtables = self.nftables.list(list::flowtables)?;
        let is_ours = |it: &&FlowtableInfo| it.table == *self.table && it.name == FAST_PATH;
        let ours = flowtables.iter().find(is_ours);
        Ok(ours.map(|it| it.devices.clone()).unwrap_or_default())
    }

    /// The set of destinations that are left alone is missing, also where no source may connect.
    fn hairpin(&self, sources: &FamilySources) -> Result<bool, NftablesError> {
        let mut hairpin = false;
        for (family, _) in sources
            .iter()
            .filter(|(_, allowed)| *allowed != Allowed::None)
        {
            hairpin = !self.has_set(ruleset::no_hairpin_set_names(*family))?;
        }
        Ok(hairpin)
    }
}

/// The networks in a set of ranges: each starts with an element and ends before another.
fn networks(mut elements: Vec<Element>) -> Vec<IpNet> {
    let is_start = |element: &Element| element.kind == ElementKind::Key;
    elements.sort_by(|one, other| (&one.key, is_start(one)).cmp(&(&other.key, is_start(other))));
    let mut networks = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        let next = elements.get(index + 1).map(|next| &next.key[..]);
        if is_start(element) {
            networks.extend(range(&element.key, next));
        }
    }
    networks
}

/// The networks from a first address to the one before another, or to the last of all.
fn range(first: &[u8], after: Option<&[u8]>) -> Vec<IpNet> {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u128::from(*byte))
    };
    match (first.len(), after) {
        (4, after) => {
            let last = after.map_or(u32::MAX, |after| (number(after) as u32).wrapping_sub(1));
            let first = (number(first) as u32).into();
            Ipv4Subnets::new(first, last.into(), 0)
                .map(IpNet::V4)
                .collect()
        }
        (16, after) => {
            let last = after.map_or(u128::MAX, |after| number(after).wrapping_sub(1));
            let first = number(first).into();
            Ipv6Subnets::new(first, last.into(), 0)
                .map(IpNet::V6)
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(kind: ElementKind, key: Vec<u8>) -> Element {
        Element {
            kind,
            key,
            key_end: None,
            data: None,
            packets: None,
        }
    }

    #[test]
    fn ranges_read_back_as_networks() {
        let (start, end) = (ElementKind::Key, ElementKind::IntervalEnd);
        let elements = vec![
            element(end, vec![10, 2, 0, 0]),
            element(start, vec![10, 1, 0, 0]),
            element(end, vec![0, 0, 0, 0]),
            element(start, vec![10, 2, 0, 0]),
            element(end, vec![10, 2, 0, 1]),
            element(start, vec![128, 0, 0, 0]),
        ];
        let found: Vec<String> = networks(elements).iter().map(IpNet::to_string).collect();
        assert_eq!(found, ["10.1.0.0/16", "10.2.0.0/32", "128.0.0.0/1"]);
    }

    #[test]
    fn ranges_are_those_of_families_with_forwards() {
        let ranges = |text: &str| Allowed::Ranges(vec![text.parse().unwrap()]);
        let of = |ipv4: Allowed, ipv6: Allowed| {
            let ranges = src_ranges(&vec![(Family::Ipv4, ipv4), (Family::Ipv6, ipv6)]);
            ranges.map(|ranges| ranges.iter().map(IpNet::to_string).collect::<Vec<_>>())
        };
        assert_eq!(of(Allowed::All, Allowed::All), None);
        let both = of(Allowed::All, ranges("fd00::/8")).unwrap();
        assert_eq!(both, ["0.0.0.0/0", "fd00::/8"]);
        assert_eq!(
            of(ranges("10.0.0.0/8"), Allowed::None).unwrap(),
            ["10.0.0.0/8"]
        );
        assert_eq!(
            src_ranges(&vec![(Family::Ipv6, Allowed::None)]),
            Some(vec![])
        );
    }

    proptest! {
        #[test]
        fn no_elements_panic(keys in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..17)), 0..6)) {
            let kind = |start| if start { ElementKind::Key } else { ElementKind::IntervalEnd };
            networks(keys.into_iter().map(|(start, key)| element(kind(start), key)).collect());
        }
    }
}
