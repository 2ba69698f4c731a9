//! Why the input is refused.

use super::{
    AddressError, BalanceError, Family, ForwardError, LengthError, ListenError, MAX_SHIFTED,
    NameError, OptionName, PortError, ProtocolError, SecondsError, SourceError, SwitchError,
};
use thiserror::Error;

/// Why the input is refused. Every message names the option, the part that is wrong and what is
/// allowed instead.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A required option is missing.
    #[error("{option} is not set: give {remedy}")]
    Missing {
        /// which one
        option: OptionName,
        /// what to give
        remedy: &'static str,
    },
    /// An option is there but holds nothing.
    #[error("{option} is empty: give at least one value, or leave it unset")]
    Empty {
        /// which one
        option: OptionName,
    },
    /// An option's bytes are no text.
    #[error("{option}: '{value}' is not valid UTF-8: use plain ASCII")]
    NotUtf8 {
        /// which one
        option: OptionName,
        /// its value, the invalid bytes replaced
        value: String,
    },
    /// A part of an option's value is wrong.
    #[error("{option}: '{part}' {problem}")]
    Invalid {
        /// which one
        option: OptionName,
        /// the wrong part
        part: String,
        /// what is wrong with it
        problem: Problem,
    },
    /// Lists of ports that do not pair up.
    #[error(
        "{} has {destinations} entries, but {} has {sources}: give one port, or one entry for each",
        OptionName::DEST_PORT,
        OptionName::SRC_PORT
    )]
    Pairing {
        /// entries in SRC_PORT
        sources: usize,
        /// entries in DEST_PORT
        destinations: usize,
    },
    /// Ranges that go to other ranges, with more ports than the kernel takes in reasonable time.
    #[error(
        "ranges of ports go to other ports in {0} cases, counted for each destination: at most {MAX_SHIFTED} may, so list fewer in {ports} or {forwards}, or leave some to another instance",
        ports = OptionName::DEST_PORT,
        forwards = OptionName::FORWARDS
    )]
    TooManyShifted(usize),
    /// No packet can come to any of the forwards.
    #[error(
        "{} has no {family} entry, so nothing would be forwarded: '{forward}' takes {family} connections only; list an {family} address too, or leave it unset",
        OptionName::LISTEN
    )]
    Unreachable {
        /// what all of them are
        family: Family,
        /// one of them
        forward: String,
    },
    /// Two forwards claim the same packets.
    #[error(
        "'{first}' and '{second}' both claim {family} connections: a port can go to one forward only, so change one of them in {} or {}, or list all destinations in one",
        OptionName::SRC_PORT,
        OptionName::FORWARDS
    )]
    Conflict {
        /// one of them
        first: String,
        /// the other
        second: String,
        /// what they share
        family: Family,
    },
}

/// What is wrong with a part of a value. Each message continues "'PART' …".
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// an address
    #[error(transparent)]
    Address(#[from] AddressError),
    /// a port
    #[error(transparent)]
    Port(#[from] PortError),
    /// a protocol
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// a range of sources
    #[error(transparent)]
    Source(#[from] SourceError),
    /// a forward
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// a range that does not fit the other
    #[error(transparent)]
    Length(#[from] LengthError),
    /// `NODEFWD_BALANCE`
    #[error(transparent)]
    Balance(#[from] BalanceError),
    /// `NODEFWD_LISTEN`
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// a boolean
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// `NODEFWD_DRAIN`
    #[error(transparent)]
    Seconds(#[from] SecondsError),
    /// `NODEFWD_NAME`
    #[error(transparent)]
    Name(#[from] NameError),
}
