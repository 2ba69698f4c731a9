//! Families of destinations that are left out. A chain without rules says so in the kernel, from which
//! `nodefwd status` reads what it shows.

use super::{Chain, family_name};
use crate::config::{Config, Family};

/// Since the kernel does not forward the family.
pub const NOT_FORWARDED: &str = "not-forwarded";
/// Since `NODEFWD_LISTEN` has no address of the family.
pub const NOT_LISTENING: &str = "not-listening";

/// `not-forwarded-ipv6`
pub fn left_out_chain_name(why: &str, family: Family) -> String {
    format!("{why}-{}", family_name(family))
}

/// The chains of a config.
pub fn chains(config: &Config) -> impl Iterator<Item = Chain> {
    let not_listening =
        |family: &Family| config.has_forwards(*family) && !config.listen.accepts(*family);
    let not_forwarded = |family: &Family| config.not_forwarded.contains(family);
    let chain = |(why, family): (&str, Family)| {
        let title = format!("{family} is left out");
        Chain::regular(left_out_chain_name(why, family), title, Vec::new())
    };
    let families = || Family::ALL.into_iter();
    let forwarded = families().filter(not_forwarded);
    let listening = families().filter(not_listening);
    let left_out = forwarded.map(|family| (NOT_FORWARDED, family));
    left_out
        .chain(listening.map(|family| (NOT_LISTENING, family)))
        .map(chain)
}
