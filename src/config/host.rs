//! What a destination is written as: an address, or the name of a host, which stands for all its addresses.

use super::address::{AddressError, unicast};
use super::{Family, shown};
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

/// As long as a name may be without the dot at its end, and each of its labels (RFC 1035, section 2.3.4).
const MAX_LENGTH: usize = 253;
const MAX_LABEL: usize = 63;

/// A destination's host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    Address(IpAddr),
    Name(HostName),
}

/// The name of a host, in lower case (RFC 1123, section 2.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl Host {
    /// Takes the address of one host, or a name. Refuses, with the reason, all others, and a name if this
    /// build cannot look names up.
    pub fn read(word: &str) -> Result<Self, AddressError> {
        match unicast(word) {
            Ok(address) => Ok(Host::Address(address)),
            Err(AddressError::NotAnAddress) if may_be_name(word) => match HostName::read(word) {
                Some(_) if !cfg!(feature = "names") => Err(AddressError::NoResolver),
                Some(name) => Ok(Host::Name(name)),
                None => Err(AddressError::NotAHost),
            },
            Err(error) => Err(error),
        }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Host::Address(_) => None,
            Host::Name(name) => Some(name),
        }
    }
}

/// Whether a word that is no address is none by mistake: `10.0.0.256`, `fd00::g`.
fn may_be_name(word: &str) -> bool {
    let last = word.rsplit('.').next().unwrap_or_default();
    !word.contains([':', '[', ']']) && !last.bytes().all(|byte| byte.is_ascii_digit())
        || word.ends_with('.')
}

impl HostName {
    /// Labels of letters, digits and, not at their ends, hyphens and underscores, which names of containers
    /// have; the last one is no number. A dot at the end makes the name absolute.
    fn read(word: &str) -> Option<Self> {
        let name = word.strip_suffix('.').unwrap_or(word);
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_label = |label: &str| {
            let bytes = label.as_bytes();
            let ends = [bytes.first(), bytes.last()];
            label.len() <= MAX_LABEL
                && ends
                    .into_iter()
                    .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
                && bytes.iter().copied().all(is_inner)
        };
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        let mut labels = name.split('.');
        let fits = name.len() <= MAX_LENGTH && labels.clone().all(is_label);
        let ends_in_number = labels.next_back().is_none_or(is_number);
        (fits && !ends_in_number).then(|| HostName(word.to_ascii_lowercase()))
    }

    /// Whether it is looked up as it is, without domains to search.
    pub fn is_absolute(&self) -> bool {
        self.0.ends_with('.')
    }

    /// The name without the dot that makes it absolute.
    pub fn as_str(&self) -> &str {
        self.0.strip_suffix('.').unwrap_or(&self.0)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => write!(f, "{name}"),
        }
    }
}

/// What has come of looking a name up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub name: HostName,
    /// All that destinations can have, sorted, each once.
    pub addresses: Vec<IpAddr>,
    /// Who knows them: a name server's address, or a file.
    pub source: String,
    /// What could not be looked up.
    pub failure: Option<Failure>,
    /// When it is looked up again.
    pub expires: Instant,
}

/// Why addresses of a name are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// At least one.
    pub families: Vec<Family>,
    pub reason: String,
}

impl Answer {
    /// What is known of a name that could not be looked up.
    pub fn failed(name: &HostName, reason: impl ToString, expires: Instant) -> Self {
        Answer {
            name: name.clone(),
            addresses: Vec::new(),
            source: String::new(),
            failure: Some(Failure {
                families: Family::ALL.to_vec(),
                reason: reason.to_string(),
            }),
            expires,
        }
    }

    /// Keeps the addresses from before of families that could not be looked up.
    pub fn keep(&mut self, before: &Answer) {
        let Some(failure) = &self.failure else {
            return;
        };
        let unknown = |address: &&IpAddr| failure.families.contains(&Family::of(**address));
        self.addresses
            .extend(before.addresses.iter().filter(unknown));
        self.addresses.sort();
        self.addresses.dedup();
    }

    /// Why it is not known, or not wholly, as a message says it.
    pub fn problem(&self) -> Option<String> {
        let failure = self.failure.as_ref()?;
        let over = match failure.families[..] {
            [family] => format!(" over {family}"),
            _ => String::new(),
        };
        let name = shown(self.name.as_str());
        Some(format!("cannot resolve {name}{over}: {}", failure.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_a_name_and_what_a_mistyped_address() {
        let long = ["a".repeat(63).as_str(); 4].join(".");
        for name in [
            "db",
            "home.example.org",
            "Home.Example.ORG.",
            "1password.example",
            "3com",
            "a-b.c--d",
            "app_db_1",
            "xn--bcher-kva.example",
            &long[..253],
        ] {
            let read = HostName::read(name).map(|name| name.to_string());
            assert_eq!(read, Some(name.to_ascii_lowercase()));
        }
        for word in [
            "", ".", "a..b", ".a", "a..", "-a", "a-", "_a", "é", "a b", "a,b", "a*b", "a.1", "1",
            "*.a", &long,
        ] {
            assert_eq!(HostName::read(word), None, "{word}");
        }
        for address in [
            "10.0.0.256",
            "10.0.0",
            "1",
            "example.1",
            "fd00::g",
            "[a]",
            "",
        ] {
            assert_eq!(
                Host::read(address),
                Err(AddressError::NotAnAddress),
                "{address}"
            );
        }
        for word in ["a$b", "-a", "a..", "10.0.0.5.."] {
            assert_eq!(Host::read(word), Err(AddressError::NotAHost), "{word}");
        }
        assert_eq!(Host::read("a/b"), Err(AddressError::Cidr));
        assert_eq!(Host::read("127.0.0.1"), Err(AddressError::Loopback));
    }

    #[test]
    fn a_build_without_a_resolver_says_so() {
        let read = Host::read("home.example.org");
        if cfg!(feature = "names") {
            assert_eq!(
                read.map(|host| host.to_string()),
                Ok("home.example.org".into())
            );
        } else {
            let error = read.unwrap_err().to_string();
            assert!(
                error.contains("this build of nodefwd has no resolver"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_word_panics_and_a_name_reads_back(word in "[a-zA-Z0-9._\\-é:]{0,80}") {
            if let Some(name) = HostName::read(&word) {
                prop_assert_eq!(HostName::read(&name.to_string()), Some(name));
            }
            let _ = Host::read(&word);
        }
    }
}
