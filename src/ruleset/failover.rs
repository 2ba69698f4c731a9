//! `NODEFWD_HEALTH`: where the clients of a destination go that fails, if each client has its own.
//!
//! They are spread over the others by another hash: each of its values, a slot, prefers the destinations in an order
//! of its own, and has the first that does not fail. So when one fails, only its clients move, and they come back to
//! it.

use super::Chain;
use super::balance::FAN_OUT;
use crate::config::Config;

/// The name of a chain without rules that stands in the table while destinations are tried.
pub const HEALTH: &str = "health";

/// The seed of the hash that gives the clients of a destination which fails a slot.
pub const HASH_SEED: u32 = 0x6661_696c;

/// The name of the chain that lists those destinations of a forward which fail. Nothing leads to it.
pub fn down_chain_name(chain: &str) -> String {
    format!("{chain}-down")
}

/// The name of the chain for the clients of a destination of a forward which fails.
pub fn chain_name(chain: &str, place: usize) -> String {
    format!("{chain}-down-{}", place + 1)
}

/// The chain [`HEALTH`], if destinations are tried.
pub fn mark(config: &Config) -> Option<Chain> {
    let title = "destinations are tried; those that fail are left out".to_owned();
    let tried = !config.tried().is_empty();
    tried.then(|| Chain::regular(HEALTH.to_owned(), title, Vec::new()))
}

/// The place that each slot of the clients of the one at `place` has.
pub fn slots(place: usize, left_out: &[bool]) -> Vec<usize> {
    let mut others: Vec<usize> = (0..left_out.len()).collect();
    others.remove(place);
    // With three others or more, a second one that fails leaves several to choose from.
    let count = match others.len() {
        others @ 0..=2 => others,
        others @ 3..=FAN_OUT => FAN_OUT / others * others,
        _ => FAN_OUT,
    };
    let is_up = |other: &&usize| !left_out[**other];
    let slot = |slot: usize| {
        let first = others.get((place * count + slot) % others.len());
        let up = others.iter().filter(is_up);
        let best = || up.max_by_key(|other| weight([place, slot, **other]));
        first.filter(is_up).or_else(best).copied()
    };
    (0..count).filter_map(slot).collect()
}

/// A number that looks random, the same everywhere.
fn weight(parts: [usize; 3]) -> u64 {
    // The multiplier is that of splitmix64.
    parts.iter().fold(HASH_SEED.into(), |hash: u64, part| {
        let mixed = (hash ^ *part as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clients_are_spread_over_all_others() {
        for count in 2..=17 {
            let mut left_out = vec![false; count];
            left_out[1] = true;
            let slots = slots(1, &left_out);
            let shares = |place| slots.iter().filter(|slot| **slot == place).count();
            let others = (0..count).filter(|place| *place != 1);
            let shares: Vec<usize> = others.map(shares).collect();
            assert!(shares.iter().all(|share| *share == shares[0]), "{shares:?}");
        }
    }

    proptest! {
        /// Whichever fail, and whichever one fails then.
        #[test]
        fn only_the_clients_of_the_one_that_fails_move(
            mut left_out in prop::collection::vec(any::<bool>(), 3..40),
            place: prop::sample::Index,
            other: prop::sample::Index,
        ) {
            let (place, other) = (place.index(left_out.len()), other.index(left_out.len()));
            left_out[place] = true;
            left_out[other] = false;
            let before = slots(place, &left_out);
            prop_assert!(before.iter().all(|slot| !left_out[*slot]));
            left_out[other] = true;
            prop_assume!(place != other && left_out.contains(&false));
            for (old, new) in before.iter().zip(slots(place, &left_out)) {
                prop_assert_eq!(*old == other, *old != new);
            }
        }
    }
}
