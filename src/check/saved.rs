//! Rules that were saved while an instance ran.

use super::{Finding, Level};
use crate::config::TABLE_PREFIX;
use std::fs;

/// What Debian, Fedora and Alpine load at boot, and where Alpine and Gentoo save.
const FILES: [&str; 4] = [
    "/etc/nftables.conf",
    "/etc/sysconfig/nftables.conf",
    "/etc/nftables.nft",
    "/var/lib/nftables/rules-save",
];

/// A file for nft that it cannot load while an instance runs: it may not touch a table that has an owner.
pub fn findings() -> impl Iterator<Item = Finding> {
    let table = format!("table inet {TABLE_PREFIX}");
    let holds = move |file: &&str| fs::read_to_string(file).is_ok_and(|text| text.contains(&table));
    FILES.into_iter().filter(holds).map(|file| {
        let text = format!(
            "{file} holds a table of an instance, so nft cannot load it while that instance runs: take the table out of it"
        );
        Finding::new(Level::Doubt, "saved rules", text)
    })
}
