//! The proof that a process may administer this network namespace: a table that it makes, which takes
//! CAP_NET_ADMIN in the namespace (nfnetlink_rcv in net/netfilter/nfnetlink.c), and which the other process
//! finds over a socket of its own. Neither user ids nor /proc say as much: a container's root may lack the
//! capability, and its processes cannot be seen from another one.
//!
//! The table's name holds a nonce of the process that asks for the proof, so that an old one is worth
//! nothing, and the abstract name that the prover's end of the stream is bound to, which no other socket of
//! the namespace can have meanwhile: whoever has the proof made by another, by passing a nonce on, is at the
//! end of a stream with another name.

use crate::netlink::random;
use crate::nftables::{Nftables, NftablesError};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

/// What the prover's end of the stream is bound to, before its nonce.
const ADDRESS: &str = "nodefwd.successor-";

/// A number that no process has used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(u128);

impl Nonce {
    /// The length of the text.
    pub const LENGTH: usize = 32;

    /// A new one.
    pub fn new() -> io::Result<Self> {
        Ok(Nonce(u128::from_ne_bytes(random()?)))
    }

    /// Reads the text back; `None` if it is anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let nonce = Nonce(u128::from_str_radix(text, 16).ok()?);
        (nonce.to_string() == text).then_some(nonce)
    }

    /// The prover's, out of the address that its end of the stream is bound to.
    pub fn of(address: &SocketAddr) -> Option<Self> {
        let name = address.as_abstract_name()?;
        Nonce::parse(name.strip_prefix(ADDRESS.as_bytes())?)
    }

    /// The abstract name for the prover's end of the stream.
    pub fn address(self) -> String {
        format!("{ADDRESS}{self}")
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The name of the table: no instance's, which all have another prefix.
pub fn table(asked: Nonce, prover: Nonce) -> String {
    format!("nodefwd.replace-{asked}-{prover}")
}

/// A proof that can be seen, until it is dropped.
pub struct Proof {
    nftables: Nftables,
    table: String,
}

impl Proof {
    /// Makes the table. With an owner it is gone at the latest with this process; where the kernel knows no
    /// owner, or does not show such a table to other sockets (5.12 to 5.14) such as `observer`, it has none,
    /// and each of the two processes removes it if the other dies.
    pub fn new(table: String, owner: bool, observer: &Nftables) -> Result<Self, NftablesError> {
        let proof = Proof {
            nftables: Nftables::open()?,
            table,
        };
        let table = &proof.table;
        if owner && proof.nftables.add_table(table, true).is_ok() {
            if observer.table(table)?.is_some() {
                return Ok(proof);
            }
            proof.nftables.remove(table)?;
        }
        proof.nftables.add_table(table, false)?;
        Ok(proof)
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        // Without an owner, the other process may have done so.
        let _ = self.nftables.remove(&self.table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_nonce_reads_back(number: u128) {
            let nonce = Nonce(number);
            prop_assert_eq!(nonce.to_string().len(), Nonce::LENGTH);
            prop_assert_eq!(Nonce::parse(nonce.to_string().as_bytes()), Some(nonce));
            let address = SocketAddr::from_abstract_name(nonce.address()).unwrap();
            prop_assert_eq!(Nonce::of(&address), Some(nonce));
        }

        /// Else it could hold what a table's name must not, or have several forms.
        #[test]
        fn only_its_own_form_is_a_nonce(text in "[+0-9a-fA-F -]{0,40}") {
            let read = Nonce::parse(text.as_bytes());
            prop_assert!(read.is_none_or(|nonce| nonce.to_string() == text));
        }
    }

    #[test]
    fn another_address_has_no_nonce() {
        for name in [
            "",
            "nodefwd-web",
            "nodefwd.successor-",
            "nodefwd.successor-1",
        ] {
            let address = SocketAddr::from_abstract_name(name).unwrap();
            assert_eq!(Nonce::of(&address), None);
        }
        let path = SocketAddr::from_pathname(Nonce(1).address()).unwrap();
        assert_eq!(Nonce::of(&path), None);
    }
}
