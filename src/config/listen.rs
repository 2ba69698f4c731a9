//! `NODEFWD_LISTEN`: which packets are forwarded, by the address that they are sent to.

use super::address::{AddressError, unicast};
use super::{ConfigError, Family, OptionName, Options, Setting};
use std::net::IpAddr;
use thiserror::Error;

/// Which packets are forwarded, by the address that they are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Those sent to any address of this network namespace.
    Local,
    /// All, also those that this host only routes.
    Any,
    /// Those sent to one of these addresses: sorted, each once, at least one.
    Addresses(Vec<IpAddr>),
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
            _ => {
                let mut addresses = setting.list(address)?;
                addresses.sort();
                addresses.dedup();
                Ok(Listen::Addresses(addresses))
            }
        }
    }

    /// Whether packets of this family can match at all.
    pub fn accepts(&self, family: Family) -> bool {
        match self {
            Listen::Local | Listen::Any => true,
            Listen::Addresses(addresses) => addresses
                .iter()
                .any(|address| Family::of(*address) == family),
        }
    }
}

/// Why a word is no address to listen on.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ListenError {
    #[error("cannot be combined with other entries: give it alone, or addresses only")]
    Keyword,
    #[error("{0}; or use local or any")]
    Address(#[from] AddressError),
}

fn address(word: &str) -> Result<IpAddr, ListenError> {
    match word {
        "local" | "any" => Err(ListenError::Keyword),
        _ => Ok(unicast(word)?),
    }
}
