//! Names of network interfaces.

use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use thiserror::Error;

/// The longest name, and the NUL that ends it in the kernel (IFNAMSIZ in linux/if.h).
const MAX_BYTES: usize = 15;

/// The name of a network interface, which need not exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName([u8; MAX_BYTES + 1]);

/// Why a word is no name of an interface.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InterfaceError {
    #[error(
        "is no IP address, and as an interface's name too long: a name has at most {MAX_BYTES} bytes"
    )]
    TooLong,
    /// What the kernel does not take (dev_valid_name in net/core/dev.c), and what nft cannot quote.
    #[error(
        "is neither an IP address nor an interface's name: a name has no blanks, '/', ':', quotes, '\\' or '*', only ASCII, and is not '.' or '..'"
    )]
    Characters,
}

impl InterfaceName {
    /// As the kernel has it: filled up with NUL.
    pub fn bytes(&self) -> &[u8; MAX_BYTES + 1] {
        &self.0
    }

    /// Reads the kernel's form; `None` if it is no name that an instance can have.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let name = bytes.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(name).ok()?.parse().ok()
    }

    fn as_str(&self) -> &str {
        let name = self.0.split(|byte| *byte == 0).next();
        std::str::from_utf8(name.unwrap_or_default()).unwrap_or_default()
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceError;

    fn from_str(word: &str) -> Result<Self, InterfaceError> {
        let allowed = |c: char| c.is_ascii_graphic() && !"/:\"'\\*,".contains(c);
        if matches!(word, "" | "." | "..") || !word.chars().all(allowed) {
            return Err(InterfaceError::Characters);
        }
        let mut bytes = [0; MAX_BYTES + 1];
        match bytes[..MAX_BYTES].get_mut(..word.len()) {
            Some(name) => name.copy_from_slice(word.as_bytes()),
            None => return Err(InterfaceError::TooLong),
        }
        Ok(InterfaceName(bytes))
    }
}

impl Display for InterfaceName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_str().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_kernel_takes_them() {
        for name in ["eth0", "eth0.100", "br-0", "wg@x", "exactly15bytes_"] {
            let read: InterfaceName = name.parse().unwrap();
            assert_eq!(read.to_string(), name);
            assert_eq!(InterfaceName::from_bytes(read.bytes()), Some(read));
        }
        let parse = |name: &str| name.parse::<InterfaceName>();
        assert_eq!(parse("sixteen_bytes_xx"), Err(InterfaceError::TooLong));
        for name in ["", ".", "..", "a/b", "a b", "a:b", "a\"b", "a*", "é"] {
            assert_eq!(parse(name), Err(InterfaceError::Characters), "{name}");
        }
    }
}
