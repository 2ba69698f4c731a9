//! `NODEFWD_FAST_PATH`: whether a flowtable takes established connections over, and on which interfaces.

use super::{Config, ConfigError, InterfaceName, OptionName, Options, Protocol, Setting};
use thiserror::Error;

/// On which interfaces packets of established connections leave the usual path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FastPath {
    /// On none.
    Off,
    /// On those that carry what is forwarded, unless the kernel cannot or nothing is gained.
    Auto,
    /// On these, as they come and go: sorted, each once, at least one.
    Interfaces(Vec<InterfaceName>),
}

/// Why a word is no choice of interfaces.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FastPathError {
    #[error("cannot be combined with other words: give off, auto, or names of interfaces")]
    Keyword,
    #[error("is no interface's name: use auto, off, or names such as eth0,eth1")]
    Name,
}

impl FastPath {
    /// `Off` if the option is not set.
    pub fn read(options: &Options) -> Result<Self, ConfigError> {
        let Some(setting) = Setting::read(OptionName::FAST_PATH, &options.fast_path)? else {
            return Ok(FastPath::Off);
        };
        match setting.text.trim() {
            "off" => Ok(FastPath::Off),
            "auto" => Ok(FastPath::Auto),
            _ => {
                let mut names = setting.list(name)?;
                names.sort();
                names.dedup();
                Ok(FastPath::Interfaces(names))
            }
        }
    }
}

fn name(word: &str) -> Result<InterfaceName, FastPathError> {
    match &*word.to_ascii_lowercase() {
        "off" | "auto" => Err(FastPathError::Keyword),
        // Nobody has such an interface: they stand for auto or off elsewhere.
        "on" | "true" | "false" | "yes" | "no" | "0" | "1" => Err(FastPathError::Name),
        _ => word.parse().map_err(|_| FastPathError::Name),
    }
}

impl Config {
    /// Whether connections can take the fast path: it is asked for, and there are forwards of TCP or UDP, which
    /// flowtables know.
    pub fn wants_fast_path(&self) -> bool {
        let mut forwards = self.reachable_forwards();
        let known = |protocol| matches!(protocol, Protocol::Tcp | Protocol::Udp);
        self.fast_path != FastPath::Off && forwards.any(|forward| known(forward.service.protocol))
    }

    /// Reports that no connection can take it though it is asked for.
    pub(super) fn fast_path_without_effect(&self) -> Option<String> {
        (self.fast_path != FastPath::Off && !self.wants_fast_path()).then(|| {
            format!(
                "{} is set, but no forward is of TCP or UDP: no connection takes the fast path",
                OptionName::FAST_PATH
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FastPath, ConfigError> {
        FastPath::read(&Options {
            fast_path: Some(text.into()),
            ..Options::default()
        })
    }

    #[test]
    fn keywords_and_lists_of_names() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        for (text, expected) in [
            (" off ", FastPath::Off),
            ("auto", FastPath::Auto),
            ("eth0", FastPath::Interfaces(names(&["eth0"]))),
            (
                "wg0, eth0 eth0.5",
                FastPath::Interfaces(names(&["eth0", "eth0.5", "wg0"])),
            ),
            ("a,a", FastPath::Interfaces(names(&["a"]))),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        assert_eq!(FastPath::read(&Options::default()), Ok(FastPath::Off));
    }

    #[test]
    fn what_is_no_interface_is_refused_with_what_is_allowed() {
        for (text, problem) in [
            ("auto,eth0", "cannot be combined"),
            ("eth0 off", "cannot be combined"),
            ("true", "use auto, off"),
            ("an-interface-too-long", "is no interface's name"),
            ("eth0:1", "is no interface's name"),
            (" , ", "is empty"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("NODEFWD_FAST_PATH (--fast-path)"), "{error}");
        }
    }
}
