//! Maps that the rules of many forwards share.
//!
//! Neither a map for each rule nor one for all would do, because the kernel's work would grow with the
//! square of their number: for each anonymous map it goes through the whole transaction, and for
//! each rule through all that is in its map (nft_set_trans_bind and nf_tables_bind_set in
//! net/netfilter/nf_tables_api.c). So a map is shared until it is full.

use super::{CHOICES, Element, Field, FieldType, SHIFTS, Set, Value, ValueType, set_name};
use crate::config::{Destination, Family, Forward};
use std::collections::BTreeMap;

/// No rule is given a map that holds so many elements already.
const FULL: usize = 128;

/// The shared maps of a ruleset.
#[derive(Default)]
pub struct SharedMaps {
    choices: Vec<Set>,
    /// By family and a destination's place in its forward's list: a port has one destination at
    /// each place, and a map one value for each port.
    shifts: BTreeMap<(Family, usize), Vec<Set>>,
}

impl SharedMaps {
    /// Gives a number to each of these chains, of which one is to be chosen; gives the map that has
    /// them, and the first number.
    pub fn add_choice(&mut self, chains: impl Iterator<Item = String>) -> (String, u32) {
        let map = map_with_room(&mut self.choices, |number| Set {
            name: format!("{CHOICES}-{number}"),
            key: vec![FieldType::Number],
            interval: false,
            values: Some(ValueType::Verdict),
            elements: Vec::new(),
        });
        let first = map.elements.len() as u32;
        map.elements
            .extend((first..).zip(chains).map(|(number, chain)| Element {
                key: vec![Field::Number(number)],
                value: Some(Value::Goto(chain)),
            }));
        (map.name.clone(), first)
    }

    /// Leads each port of a forward to another port of the destination that has this place in its
    /// list; gives the map that does, for nftables has no statement for it.
    pub fn add_shift(&mut self, forward: &Forward, place: usize, to: &Destination) -> String {
        let family = forward.family;
        let maps = self.shifts.entry((family, place)).or_default();
        let map = map_with_room(maps, |number| Set {
            name: format!("{}-{place}-{number}", set_name(SHIFTS, family)),
            key: vec![FieldType::InetProto, FieldType::InetService],
            interval: false,
            values: Some(ValueType::Target(family)),
            elements: Vec::new(),
        });
        let pairs = forward.ports.singles().zip(to.ports.first()..);
        map.elements.extend(pairs.map(|(from, port)| Element {
            key: vec![Field::Protocol(forward.protocol), Field::Ports(from)],
            value: Some(Value::Target(to.address, port)),
        }));
        map.name.clone()
    }

    /// All the maps.
    pub fn into_sets(self) -> impl Iterator<Item = Set> {
        let shifts = self.shifts.into_values().flatten();
        self.choices.into_iter().chain(shifts)
    }
}

fn map_with_room(maps: &mut Vec<Set>, new: impl Fn(usize) -> Set) -> &mut Set {
    if maps.last().is_none_or(|map| map.elements.len() >= FULL) {
        maps.push(new(maps.len() + 1));
    }
    let last = maps.len() - 1;
    &mut maps[last]
}
