//! An option's text as words, and as a message shows it.

use super::{ConfigError, OptionName, Problem};
use crate::text::Printable;
use std::ffi::OsString;
use std::str::FromStr;

/// As much of a text as a message shows: a value may be 128 KiB long, and a rule list a thousand
/// addresses.
const SHOWN_CHARACTERS: usize = 160;

/// A text as a message shows it: cut with an ellipsis after so many characters that it can be read.
pub fn shown(text: &str) -> String {
    // Escapes count as what they are long.
    let printable = Printable(text).to_string();
    let mut characters = printable.chars();
    let mut shown: String = characters.by_ref().take(SHOWN_CHARACTERS).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// One option with its text.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    pub option: OptionName,
    pub text: &'a str,
}

impl<'a> Setting<'a> {
    /// The option's text if it is set. Refuses what is not UTF-8.
    pub fn read(
        option: OptionName,
        value: &'a Option<OsString>,
    ) -> Result<Option<Self>, ConfigError> {
        value
            .as_ref()
            .map(|value| Self::of(option, value))
            .transpose()
    }

    /// The option with this value. Refuses what is not UTF-8.
    pub fn of(option: OptionName, value: &'a OsString) -> Result<Self, ConfigError> {
        match value.to_str() {
            Some(text) => Ok(Setting { option, text }),
            None => Err(ConfigError::NotUtf8 {
                option,
                value: shown(&value.to_string_lossy()),
            }),
        }
    }

    /// Reads an option that is one word; `default` if it is not set.
    pub fn value_or<T: FromStr>(
        option: OptionName,
        value: &'a Option<OsString>,
        default: T,
    ) -> Result<T, ConfigError>
    where
        Problem: From<T::Err>,
    {
        Self::read(option, value)?.map_or(Ok(default), |setting| setting.value())
    }

    /// Reads one word; refuses none.
    pub fn value<T: FromStr>(&self) -> Result<T, ConfigError>
    where
        Problem: From<T::Err>,
    {
        let word = self.text.trim();
        if word.is_empty() {
            return Err(self.empty());
        }
        word.parse().map_err(|error| self.invalid(word, error))
    }

    /// The words of a list, separated by commas, white space or both.
    pub fn words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|word| !word.is_empty())
    }

    /// The words between white space. Bytes are read faster than characters, and there may be many.
    pub fn words_between_blanks(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        // The one blank of ASCII that `split_ascii_whitespace` does not know is the vertical tab.
        let (ascii, other) = if self.text.is_ascii() && !self.text.as_bytes().contains(&b'\x0b') {
            (self.text, "")
        } else {
            ("", self.text)
        };
        ascii
            .split_ascii_whitespace()
            .chain(other.split_whitespace())
    }

    /// Reads every word of a list; refuses a list without any.
    pub fn list<T, E>(&self, read: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, ConfigError>
    where
        Problem: From<E>,
    {
        let values: Vec<T> = self
            .words()
            .map(|word| read(word).map_err(|error| self.invalid(word, error)))
            .collect::<Result<_, _>>()?;
        if values.is_empty() {
            return Err(self.empty());
        }
        Ok(values)
    }

    fn empty(&self) -> ConfigError {
        ConfigError::Empty {
            option: self.option,
        }
    }

    /// The error that says what is wrong with a part of the text.
    pub fn invalid(&self, part: &str, problem: impl Into<Problem>) -> ConfigError {
        ConfigError::Invalid {
            option: self.option,
            part: shown(part),
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_between_blanks_are_those_of_unicode(text in "[a=/, \t\n\r\x0b\x0c\x1c\u{85}\u{a0}\u{3000}é]{0,12}") {
            let option = OptionName::FORWARDS;
            let setting = Setting { option, text: &text };
            prop_assert!(setting.words_between_blanks().eq(text.split_whitespace()));
        }
    }
}
