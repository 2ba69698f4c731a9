//! `NODEFWD_LISTEN`: which packets are forwarded, by the address that they are sent to or the interface
//! that they come in on.

use super::address::{AddressError, unicast};
use super::interface::{InterfaceError, InterfaceName};
use super::{ConfigError, Family, OptionName, Options, Setting};
use std::net::IpAddr;
use thiserror::Error;

/// Which packets are forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Those sent to any address of this network namespace.
    Local,
    /// All, also those that this host only routes.
    Any,
    /// Those sent to one of these addresses, and those that come in on one of these interfaces and are
    /// sent to an address of this network namespace: sorted, each once, at least one of either.
    Only {
        addresses: Vec<IpAddr>,
        interfaces: Vec<InterfaceName>,
    },
}

impl Listen {
    /// `Local` if the option is not set. Refuses addresses that no client can connect to over a network.
    pub fn read(options: &Options) -> Result<Self, ConfigError> {
        let Some(setting) = Setting::read(OptionName::LISTEN, &options.listen)? else {
            return Ok(Listen::Local);
        };
        match setting.text.trim() {
            "local" => Ok(Listen::Local),
            "any" => Ok(Listen::Any),
            _ => Self::only(&setting),
        }
    }

    fn only(setting: &Setting<'_>) -> Result<Self, ConfigError> {
        let (mut addresses, mut interfaces) = (Vec::new(), Vec::new());
        for entry in setting.list(entry)? {
            match entry {
                Entry::Address(address) => addresses.push(address),
                Entry::Interface(name) => interfaces.push(name),
            }
        }
        // Blanks separate addresses, but among them a name may be a part of one that has blanks.
        let has_blanks = |part: &&str| part.split_whitespace().nth(1).is_some();
        let is_name = |word: &str| matches!(entry(word), Ok(Entry::Interface(_)));
        let mut parts = setting.text.split(',').map(str::trim).filter(has_blanks);
        if let Some(part) = parts.find(|part| part.split_whitespace().any(is_name)) {
            return Err(setting.invalid(part, ListenError::Blanks));
        }
        addresses.sort();
        addresses.dedup();
        interfaces.sort();
        interfaces.dedup();
        Ok(Listen::Only {
            addresses,
            interfaces,
        })
    }

    /// The addresses that it lists.
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Listen::Local | Listen::Any => &[],
            Listen::Only { addresses, .. } => addresses,
        }
    }

    /// The interfaces that it lists.
    pub fn interfaces(&self) -> &[InterfaceName] {
        match self {
            Listen::Local | Listen::Any => &[],
            Listen::Only { interfaces, .. } => interfaces,
        }
    }

    /// Whether packets of this family can match at all.
    pub fn accepts(&self, family: Family) -> bool {
        let mut addresses = self.addresses().iter();
        matches!(self, Listen::Local | Listen::Any)
            || !self.interfaces().is_empty()
            || addresses.any(|address| Family::of(*address) == family)
    }
}

/// Why a word is nothing to listen on.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ListenError {
    #[error(
        "cannot be combined with other entries: give it alone, or addresses and interfaces only"
    )]
    Keyword,
    #[error("has blanks: an interface's name has none, so separate names with commas")]
    Blanks,
    #[error("{0}; or use an interface's name, local or any")]
    Address(#[from] AddressError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}

enum Entry {
    Address(IpAddr),
    Interface(InterfaceName),
}

fn entry(word: &str) -> Result<Entry, ListenError> {
    // No interface has such a name, or it is surely not meant: a mistyped address must not be one that
    // never comes.
    let is_address =
        word.contains([':', '[', '%']) || !word.contains(|c: char| !"0123456789./".contains(c));
    if is_address {
        return Ok(Entry::Address(unicast(word)?));
    }
    match &*word.to_ascii_lowercase() {
        "local" | "any" => Err(ListenError::Keyword),
        _ => Ok(Entry::Interface(word.parse()?)),
    }
}
