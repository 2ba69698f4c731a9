//! The options that choose how forwarding is done.

use super::address::{AddressError, unicast};
use super::port::PortRange;
use super::protocol::{Family, Protocol};
use std::{fmt, net::IpAddr, str::FromStr};
use thiserror::Error;

/// How a connection is given one of several destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each connection at random.
    Random,
    /// One after the other.
    RoundRobin,
    /// By a hash of the client's address: a client stays with its destination as long as the list
    /// of destinations is unchanged.
    Source,
}

/// A word that names no way to balance.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is no way to choose a destination: use random, round-robin or source")]
pub struct BalanceError;

impl FromStr for Balance {
    type Err = BalanceError;

    fn from_str(word: &str) -> Result<Self, BalanceError> {
        match word {
            "random" => Ok(Balance::Random),
            "round-robin" => Ok(Balance::RoundRobin),
            "source" => Ok(Balance::Source),
            _ => Err(BalanceError),
        }
    }
}

/// Which packets are taken, by the address that they were sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Those sent to any address of this network namespace.
    Local,
    /// All, those that only pass through too.
    Any,
    /// Those sent to one of these addresses.
    Addresses(Vec<IpAddr>),
}

impl Listen {
    /// Whether packets of this family can be taken at all.
    pub fn takes(&self, family: Family) -> bool {
        match self {
            Listen::Local | Listen::Any => true,
            Listen::Addresses(addresses) => addresses
                .iter()
                .any(|address| Family::of(*address) == family),
        }
    }
}

/// A word that is no address to listen on.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ListenError {
    /// A keyword among addresses.
    #[error("stands for addresses of its own: give it alone, or a list of addresses")]
    Keyword,
    /// Not an address of a host.
    #[error("{0}; or use local or any")]
    Address(#[from] AddressError),
}

/// Reads one address of a list to listen on.
pub fn listen_address(word: &str) -> Result<IpAddr, ListenError> {
    match word {
        "local" | "any" => Err(ListenError::Keyword),
        _ => Ok(unicast(word)?),
    }
}

/// A yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub bool);

/// A word that is neither.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is neither true nor false: use true, yes or 1, or false, no or 0")]
pub struct SwitchError;

impl FromStr for Switch {
    type Err = SwitchError;

    fn from_str(word: &str) -> Result<Self, SwitchError> {
        match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok(Switch(true)),
            "false" | "no" | "0" => Ok(Switch(false)),
            _ => Err(SwitchError),
        }
    }
}

/// A number of seconds, a day at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub u32);

/// A word that is no such number.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is no number of seconds: use a whole number from 0 to 86400")]
pub struct SecondsError;

impl FromStr for Seconds {
    type Err = SecondsError;

    fn from_str(word: &str) -> Result<Self, SecondsError> {
        match word.parse() {
            Ok(seconds @ 0..=86400) if !word.starts_with('+') => Ok(Seconds(seconds)),
            _ => Err(SecondsError),
        }
    }
}

/// The name of an instance: unique among the instances of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// A word that cannot be a name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is no name: use 1 to 64 of the characters a-z, A-Z, 0-9, '.', '_' and '-'")]
pub struct NameError;

impl FromStr for Name {
    type Err = NameError;

    /// Takes what nft's grammar takes in the name of a table, and what fits, with a prefix, into
    /// the 107 bytes of an abstract socket's name (unix(7)).
    fn from_str(word: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if word.is_empty() || word.len() > 64 || !word.bytes().all(allowed) {
            return Err(NameError);
        }
        Ok(Name(word.to_owned()))
    }
}

impl Name {
    /// The name that an instance has when it is given none: `tcp-80`, `udp-8000-8100`.
    pub fn of_service(protocol: Protocol, ports: PortRange) -> Self {
        Name(format!("{protocol}-{ports}"))
    }

    /// The name of the instance's table.
    pub fn table(&self) -> String {
        format!("{}{}", crate::ruleset::TABLE_PREFIX, self.0)
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
    fn switches_in_every_form() {
        for (word, value) in [
            ("true", true),
            ("YES", true),
            ("1", true),
            ("no", false),
            ("0", false),
        ] {
            assert_eq!(word.parse(), Ok(Switch(value)));
        }
        assert_eq!("on".parse::<Switch>(), Err(SwitchError));
    }

    #[test]
    fn seconds_are_whole_and_within_a_day() {
        assert_eq!("30".parse(), Ok(Seconds(30)));
        for word in ["", "-1", "+1", "1.5", "30s", "86401", "99999999999"] {
            assert_eq!(word.parse::<Seconds>(), Err(SecondsError), "{word}");
        }
    }

    #[test]
    fn names_fit_into_a_table_and_a_socket() {
        assert!("web-1.example_2".parse::<Name>().is_ok());
        for word in ["", "a b", "a/b", "ä", "a\"", &"x".repeat(65)] {
            assert_eq!(word.parse::<Name>(), Err(NameError), "{word}");
        }
    }
}
