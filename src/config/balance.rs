//! `NODEFWD_BALANCE`: how a connection is given one of several destinations.

use super::{ConfigError, OptionName, Options, Setting};
use std::str::FromStr;
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

impl Balance {
    /// At random if the option is not set.
    pub fn read(options: &Options) -> Result<Self, ConfigError> {
        Setting::value_or(OptionName::BALANCE, &options.balance, Balance::Random)
    }
}
