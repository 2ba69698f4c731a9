//! The registers between the expressions of a rule.

use super::packet::Bytes;
use nix::libc;

/// Four registers of 16 bytes, overlaid by sixteen of 4 (linux/netfilter/nf_tables.h).
pub const REGISTER_BYTES: usize = 64;

/// The registers' bytes, as far as they are known.
pub struct Registers([Option<u8>; REGISTER_BYTES]);

impl Registers {
    /// Registers of which no byte is known, as at the start of a rule.
    pub fn unknown() -> Self {
        Registers([None; REGISTER_BYTES])
    }

    fn start(register: u32) -> usize {
        match register as i32 {
            number @ libc::NFT_REG_1..=libc::NFT_REG_4 => (number as usize - 1) * 16,
            number => (number.saturating_sub(libc::NFT_REG32_00).max(0) as usize).saturating_mul(4),
        }
    }

    /// Takes a value into the register with this number (`NFT_REG*`), and into those after it if the value
    /// is longer. What does not fit is left out.
    pub fn write(&mut self, register: u32, bytes: &[Option<u8>]) {
        let held = self.0.iter_mut().skip(Self::start(register));
        // The kernel pads a value with zeros.
        let padded = bytes.len().next_multiple_of(4);
        let padding = std::iter::repeat_n(Some(0), padded - bytes.len());
        for (held, byte) in held.zip(bytes.iter().copied().chain(padding)) {
            *held = byte;
        }
    }

    /// So many bytes from this register on, [`REGISTER_BYTES`] at most. Without a register, and after the
    /// last one, no byte is known.
    pub fn read(&self, register: Option<u32>, length: usize) -> Bytes {
        let start = register.map_or(REGISTER_BYTES, Self::start);
        let mut bytes: Bytes = self.0.iter().copied().skip(start).take(length).collect();
        bytes.resize(length.min(REGISTER_BYTES), None);
        bytes
    }
}
