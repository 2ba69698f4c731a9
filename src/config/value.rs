//! Values that several options have: booleans and numbers of seconds.

use super::{ConfigError, OptionName, Setting};
use crate::logging::LogFormat;
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Reads an option that is true or false.
pub fn boolean(
    option: OptionName,
    value: &Option<OsString>,
    default: bool,
) -> Result<bool, ConfigError> {
    Setting::value_or(option, value, Boolean(default)).map(|Boolean(on)| on)
}

/// Reads an option that is a number of seconds; 0 by default.
pub fn seconds(option: OptionName, value: &Option<OsString>) -> Result<Duration, ConfigError> {
    let Seconds(seconds) = Setting::value_or(option, value, Seconds(0))?;
    Ok(Duration::from_secs(seconds.into()))
}

/// Reads how the log is written; as text by default.
pub fn log_format(value: &Option<OsString>) -> Result<LogFormat, ConfigError> {
    Setting::value_or(OptionName::LOG_FORMAT, value, LogFormat::default())
}

/// True or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boolean(pub bool);

/// A word that is neither true nor false.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is neither true nor false: use true, yes or 1, or false, no or 0")]
pub struct BooleanError;

impl FromStr for Boolean {
    type Err = BooleanError;

    fn from_str(word: &str) -> Result<Self, BooleanError> {
        match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok(Boolean(true)),
            "false" | "no" | "0" => Ok(Boolean(false)),
            _ => Err(BooleanError),
        }
    }
}

/// A number of seconds, a day at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub u32);

/// A word that is no number of seconds.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_in_every_form() {
        for (word, value) in [
            ("true", true),
            ("YES", true),
            ("1", true),
            ("no", false),
            ("0", false),
        ] {
            assert_eq!(word.parse(), Ok(Boolean(value)));
        }
        assert_eq!("on".parse::<Boolean>(), Err(BooleanError));
    }

    #[test]
    fn seconds_are_whole_and_within_a_day() {
        assert_eq!("30".parse(), Ok(Seconds(30)));
        for word in ["", "-1", "+1", "1.5", "30s", "86401", "99999999999"] {
            assert_eq!(word.parse::<Seconds>(), Err(SecondsError), "{word}");
        }
    }
}
