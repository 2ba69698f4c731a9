//! Maps from ports to other ports that the rules of many balanced forwards share.
//!
//! Neither a map for each rule nor one for all would do, because the kernel's work would grow with the
//! square of their number: for each anonymous map it goes through the whole transaction, and for
//! each element through all rules that look up in its map (nft_set_trans_bind and nft_add_set_elem in
//! net/netfilter/nf_tables_api.c). So a map is shared until it is full.

use super::forwards::mapped_ports;
use super::sets::SERVICE_KEY;
use super::{PORT_MAP, Set, ValueType, set_name};
use crate::config::{Destination, Family, Forward};
use std::collections::BTreeMap;

/// No rule is given a map that holds so many elements already.
const FULL: usize = 128;

/// The shared maps of a ruleset.
#[derive(Default)]
pub struct SharedMaps {
    /// By family and a destination's number in its forward's list: a port has one destination of
    /// each number, and a map one value for each port.
    port_maps: BTreeMap<(Family, usize), Vec<Set>>,
}

impl SharedMaps {
    /// Maps each port of a forward to another port of the destination with this number in its list, for
    /// which nftables has no statement; gives the map.
    pub fn add_port_map(&mut self, forward: &Forward, number: usize, to: &Destination) -> String {
        let family = forward.service.family;
        let maps = self.port_maps.entry((family, number)).or_default();
        let map = map_with_room(maps, |part| Set {
            name: format!("{}-{number}-{part}", set_name(PORT_MAP, family)),
            key: SERVICE_KEY.to_vec(),
            interval: false,
            values: Some(ValueType::Backend(family)),
            counter: false,
            elements: Vec::new(),
        });
        map.elements.extend(mapped_ports(forward.service, to));
        map.name.clone()
    }

    /// All the maps.
    pub fn into_sets(self) -> impl Iterator<Item = Set> {
        self.port_maps.into_values().flatten()
    }
}

fn map_with_room(maps: &mut Vec<Set>, new: impl Fn(usize) -> Set) -> &mut Set {
    if maps.last().is_none_or(|map| map.elements.len() >= FULL) {
        maps.push(new(maps.len() + 1));
    }
    let last = maps.len() - 1;
    &mut maps[last]
}
