//! `NODEFWD_NAME`: the name of an instance, and of its table.

use super::{ConfigError, OptionName, Options, PortRange, Protocol, Setting, classic, forward};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// What the name of every instance's table starts with.
pub const TABLE_PREFIX: &str = "nodefwd-";

/// The name of an instance: unique among the instances of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// A word that cannot be a name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is no name: use 1 to 64 of the characters a-z, A-Z, 0-9, '.', '_' and '-'")]
pub struct NameError;

impl FromStr for Name {
    type Err = NameError;

    /// Accepts what nft's grammar allows in the name of a table, and what fits, with a prefix, into the
    /// 107 bytes of an abstract socket's name (unix(7)).
    fn from_str(word: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if word.is_empty() || word.len() > 64 || !word.bytes().all(allowed) {
            return Err(NameError);
        }
        Ok(Name(word.to_owned()))
    }
}

impl Name {
    /// The instance's name: `NODEFWD_NAME`, or else the default of the first forward. Reads no other
    /// option. `None` if neither is set.
    pub fn read(options: &Options) -> Result<Option<Self>, ConfigError> {
        if let Some(setting) = Setting::read(OptionName::NAME, &options.name)? {
            return setting.value().map(Some);
        }
        if let Some((protocol, ports)) = classic::first_service(options)? {
            return Ok(Some(Name::default_of(protocol, ports)));
        }
        let specs = forward::listed(options)?;
        let first = specs.first();
        Ok(first.map(|first| Name::default_of(first.protocol, first.ports)))
    }

    /// The name that an instance has by default: `tcp-80`, `udp-8000-8100`.
    pub fn default_of(protocol: Protocol, ports: PortRange) -> Self {
        Name(format!("{protocol}-{ports}"))
    }

    /// The name of the instance's table.
    pub fn table(&self) -> String {
        format!("{TABLE_PREFIX}{}", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_table_and_a_socket() {
        assert!("web-1.example_2".parse::<Name>().is_ok());
        for word in ["", "a b", "a/b", "ä", "a\"", &"x".repeat(65)] {
            assert_eq!(word.parse::<Name>(), Err(NameError), "{word}");
        }
    }
}
