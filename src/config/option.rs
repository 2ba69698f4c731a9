//! The options' names as messages give them, and how their raw values become words.

use super::ConfigError;
use std::{ffi::OsString, fmt, str::FromStr};

/// An option's two names: its environment variable and its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionName {
    variable: &'static str,
    flag: &'static str,
}

macro_rules! option_names {
    ($($name:ident = $variable:literal, $flag:literal;)*) => {
        impl OptionName {
            $(#[doc = concat!("`", $variable, "`, `", $flag, "`")]
            pub const $name: OptionName = OptionName { variable: $variable, flag: $flag };)*
        }
    };
}

option_names! {
    DEST_IPS = "DEST_IPS", "--dest-ips";
    DEST_PROTO = "DEST_PROTO", "--dest-proto";
    SRC_PORT = "SRC_PORT", "--src-port";
    DEST_PORT = "DEST_PORT", "--dest-port";
    SRC_RANGES = "SRC_RANGES", "--src-ranges";
    FORWARDS = "NODEFWD_FORWARDS", "FORWARD argument";
    BALANCE = "NODEFWD_BALANCE", "--balance";
    LISTEN = "NODEFWD_LISTEN", "--listen";
    OUTPUT = "NODEFWD_OUTPUT", "--output";
    MASQUERADE = "NODEFWD_MASQUERADE", "--masquerade";
    HAIRPIN = "NODEFWD_HAIRPIN", "--hairpin";
    NAME = "NODEFWD_NAME", "--name";
    DRAIN = "NODEFWD_DRAIN", "--drain";
    OWNER = "NODEFWD_OWNER", "--owner";
    REPLACE = "NODEFWD_REPLACE", "--replace";
    STRICT = "NODEFWD_STRICT", "--strict";
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.variable, self.flag)
    }
}

/// As much of a value as a message shows; it may be 128 KiB long.
const SHOWN_CHARACTERS: usize = 160;

/// A part of a value as a message shows it: on one line, without anything that a terminal would
/// obey, and short enough to be read.
pub fn shown(part: &str) -> String {
    let mut escaped = part.escape_debug();
    let mut shown: String = escaped.by_ref().take(SHOWN_CHARACTERS).collect();
    if escaped.next().is_some() {
        shown.push('…');
    }
    shown
}

/// One option with the text it was given.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// Which option.
    pub option: OptionName,
    /// Its value, not yet looked at.
    pub text: &'a str,
}

impl<'a> Setting<'a> {
    /// Takes the value if there is one. Refuses what is not UTF-8.
    pub fn read(
        option: OptionName,
        value: Option<&'a OsString>,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        match value.to_str() {
            Some(text) => Ok(Some(Setting { option, text })),
            None => Err(ConfigError::NotUtf8 {
                option,
                value: shown(&value.to_string_lossy()),
            }),
        }
    }

    /// The words of a list, which are separated by commas, white space or both.
    pub fn words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|word| !word.is_empty())
    }

    /// Reads every word of a list; refuses a list without any.
    pub fn list<T, E>(&self, read: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, ConfigError>
    where
        super::Problem: From<E>,
    {
        let values: Vec<T> = self
            .words()
            .map(|word| read(word).map_err(|error| self.invalid(word, error)))
            .collect::<Result<_, _>>()?;
        if values.is_empty() {
            return Err(ConfigError::Empty {
                option: self.option,
            });
        }
        Ok(values)
    }

    /// Reads a value that is one word.
    pub fn value<T: FromStr>(&self) -> Result<T, ConfigError>
    where
        super::Problem: From<T::Err>,
    {
        let word = self.text.trim();
        if word.is_empty() {
            return Err(ConfigError::Empty {
                option: self.option,
            });
        }
        word.parse().map_err(|error| self.invalid(word, error))
    }

    /// The error that says what is wrong with a part of the value.
    pub fn invalid(&self, part: &str, problem: impl Into<super::Problem>) -> ConfigError {
        ConfigError::Invalid {
            option: self.option,
            part: shown(part),
            problem: problem.into(),
        }
    }
}
