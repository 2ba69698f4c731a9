//! `NODEFWD_BALANCE`: how a connection is given one of several destinations.

use super::{ConfigError, OptionName, Options, Setting};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// How a connection is given one of several destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Each connection at random.
    Random,
    /// One after the other.
    RoundRobin,
    /// By a hash of the client's address: a client stays with its destination as long as the list
    /// of destinations is unchanged.
    Source,
}

/// A word that names no balancing method.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is no balancing method: use random, round-robin or source")]
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

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Balance::Random => "random",
            Balance::RoundRobin => "round-robin",
            Balance::Source => "source",
        })
    }
}

impl Balance {
    /// At random if the option is not set.
    pub fn read(options: &Options) -> Result<Self, ConfigError> {
        Setting::value_or(OptionName::BALANCE, &options.balance, Balance::Random)
    }
}
