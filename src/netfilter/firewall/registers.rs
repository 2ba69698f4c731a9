//! The registers between the expressions of a rule.

use super::packet::Bytes;
use nftnl::nftnl_sys::libc;

/// Four registers of 16 bytes, upon which lie sixteen of 4 (linux/netfilter/nf_tables.h).
pub const REGISTER_BYTES: usize = 64;

/// What they hold, as far as it is known.
pub struct Registers([Option<u8>; REGISTER_BYTES]);

impl Registers {
    pub fn unknown() -> Self {
        Registers([None; REGISTER_BYTES])
    }

    fn start(register: u32) -> usize {
        match register as i32 {
            number @ libc::NFT_REG_1..=libc::NFT_REG_4 => (number as usize - 1) * 16,
            number => (number.saturating_sub(libc::NFT_REG32_00).max(0) as usize).saturating_mul(4),
        }
    }

    pub fn write(&mut self, register: u32, bytes: &[Option<u8>]) {
        let places = self.0.iter_mut().skip(Self::start(register));
        // What is shorter is padded.
        let padded = bytes.len().next_multiple_of(4);
        let padding = std::iter::repeat_n(Some(0), padded - bytes.len());
        for (place, byte) in places.zip(bytes.iter().copied().chain(padding)) {
            *place = byte;
        }
    }

    /// From no register, nothing is known.
    pub fn read(&self, register: Option<u32>, length: usize) -> Bytes {
        let start = register.map_or(REGISTER_BYTES, Self::start);
        let mut bytes: Bytes = self.0.iter().copied().skip(start).take(length).collect();
        bytes.resize(length.min(REGISTER_BYTES), None);
        bytes
    }
}
