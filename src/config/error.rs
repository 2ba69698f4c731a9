//! Why the input is refused.

use super::{
    AddressError, BalanceError, BooleanError, EnvFileError, Family, FastPathError, ForwardError,
    LengthError, ListenError, Location, MAX_BALANCED_DESTINATIONS, MAX_MAPPED_PORTS, NameError,
    OptionName, PortError, ProtocolError, SecondsError, SourceError,
};
use crate::logging::LogFormatError;
use thiserror::Error;

/// Why the input is refused. Every message names the option, the part that is wrong and what is
/// allowed instead.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file of variables cannot be read.
    #[error("{}: '{path}' {problem}", OptionName::ENV_FILE)]
    EnvFile { path: String, problem: EnvFileError },
    /// An option in that file is wrong.
    #[error("{location}")]
    InFile {
        location: Location,
        #[source]
        error: Box<ConfigError>,
    },
    /// A required option is missing.
    #[error("{option} is not set: give {fix}")]
    Missing {
        option: OptionName,
        fix: &'static str,
    },
    /// An option is set, but not another one that it takes.
    #[error("{0} is set, but {option} is not: give {fix}, or unset {0}", given.variable())]
    Incomplete {
        given: OptionName,
        option: OptionName,
        fix: &'static str,
    },
    /// An option is there but holds nothing.
    #[error("{option} is empty: give a value, or leave it unset")]
    Empty { option: OptionName },
    /// An option says how to forward, but there are no forwards.
    #[error(
        "{0} has no effect without forwards: instances that run are checked with the options that they run with; give the forwards too, or leave it out"
    )]
    NothingToCheck(OptionName),
    /// An option's bytes are no text.
    #[error("{option}: '{value}' is not valid UTF-8: use plain ASCII")]
    NotUtf8 { option: OptionName, value: String },
    /// An option that a running instance cannot change.
    #[error("{option} cannot change while the instance runs: restart it, or take the change back")]
    Fixed { option: OptionName },
    /// A part of an option's value is wrong.
    #[error("{option}: '{part}' {problem}")]
    Invalid {
        option: OptionName,
        part: String,
        problem: Problem,
    },
    /// Lists of ports that do not pair up.
    #[error(
        "{} has {destinations} entries, but {} has {sources}: give one port, or one entry for each",
        OptionName::DEST_PORT,
        OptionName::SRC_PORT
    )]
    Pairing { sources: usize, destinations: usize },
    /// More ports are mapped to other ports than the kernel installs in reasonable time.
    #[error(
        "{0} ports of ranges are mapped to other ports, counted for each destination; the limit is {MAX_MAPPED_PORTS}: list fewer in {ports} or {forwards}, or move some to another instance",
        ports = OptionName::DEST_PORT,
        forwards = OptionName::FORWARDS
    )]
    TooManyMappedPorts(usize),
    /// Balanced forwards have more destinations than can be installed in reasonable time.
    #[error(
        "forwards with several destinations have {0} destinations in all: at most {MAX_BALANCED_DESTINATIONS} are allowed, so list fewer in {destinations} or {forwards}, or leave some to another instance",
        destinations = OptionName::DEST_IPS,
        forwards = OptionName::FORWARDS
    )]
    TooManyBalancedDestinations(usize),
    /// More names than are looked up.
    #[error(
        "destinations have {0} names in all: at most {1} are allowed, so list fewer in {destinations} or {forwards}, or leave some to another instance",
        destinations = OptionName::DEST_IPS,
        forwards = OptionName::FORWARDS
    )]
    TooManyNames(usize, usize),
    /// No name has an address, and there is no other destination.
    #[error(
        "no destination in {destinations} or {forwards} has an address: {0}",
        destinations = OptionName::DEST_IPS,
        forwards = OptionName::FORWARDS
    )]
    Unresolved(String),
    /// No packet can come to any of the forwards.
    #[error(
        "{} has no {family} entry, so nothing would be forwarded: '{forward}' forwards {family} connections only; list an {family} address too, or leave it unset",
        OptionName::LISTEN
    )]
    Unreachable { family: Family, forward: String },
    /// Two forwards claim the same packets.
    #[error(
        "'{first}' and '{second}' both claim {family} connections: a port can go to one forward only, so change one of them in {} or {}, or list all destinations in one",
        OptionName::SRC_PORT,
        OptionName::FORWARDS
    )]
    Conflict {
        first: String,
        second: String,
        family: Family,
    },
}

impl ConfigError {
    /// The option that has to be changed, if it is one alone.
    pub(super) fn option(&self) -> Option<OptionName> {
        match self {
            ConfigError::Missing { option, .. }
            | ConfigError::Empty { option }
            | ConfigError::NotUtf8 { option, .. }
            | ConfigError::Fixed { option }
            | ConfigError::Invalid { option, .. } => Some(*option),
            ConfigError::Incomplete { given, .. } | ConfigError::NothingToCheck(given) => {
                Some(*given)
            }
            ConfigError::Pairing { .. } => Some(OptionName::DEST_PORT),
            ConfigError::Unreachable { .. } => Some(OptionName::LISTEN),
            ConfigError::EnvFile { .. }
            | ConfigError::InFile { .. }
            | ConfigError::TooManyMappedPorts(_)
            | ConfigError::TooManyBalancedDestinations(_)
            | ConfigError::TooManyNames(..)
            | ConfigError::Unresolved(_)
            | ConfigError::Conflict { .. } => None,
        }
    }

    /// Whether the input may be right, but no name in it can be resolved now.
    pub fn is_unresolved(&self) -> bool {
        matches!(self, ConfigError::Unresolved(_))
    }
}

/// What is wrong with a part of a value. Each message continues "'PART' …".
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Problem {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Length(#[from] LengthError),
    #[error(transparent)]
    Balance(#[from] BalanceError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    FastPath(#[from] FastPathError),
    #[error(transparent)]
    Boolean(#[from] BooleanError),
    #[error(transparent)]
    Seconds(#[from] SecondsError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    LogFormat(#[from] LogFormatError),
}
