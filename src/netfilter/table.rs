//! Tables: made, deleted, and listed.

use super::Ownership;
use super::message::{Attributes, Request};
use super::socket::{Failure, Socket};
use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{MsgType, NlMsg};
use nix::errno::Errno;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

/// linux/netfilter/nf_tables.h: `NFT_TABLE_F_OWNER`. The table belongs to the socket that made it:
/// nobody else can change it, and it goes when the socket does. Since Linux 5.12.
const TABLE_OWNER: u32 = 1 << 1;

/// The message that makes or deletes a table of family `inet`. nftnl's own knows no flags.
pub struct TableMessage(NonNull<sys::nftnl_table>);

impl TableMessage {
    /// A table of this name.
    pub fn new(name: &CStr, ownership: Ownership) -> Self {
        // SAFETY: takes nothing; null means that there is no memory.
        let table = unsafe { sys::nftnl_table_alloc() };
        let Some(table) = NonNull::new(table) else {
            std::process::abort()
        };
        let flags = match ownership {
            Ownership::Kernel => TABLE_OWNER,
            Ownership::Nobody => 0,
        };
        // SAFETY: the table was just made; each attribute is set with the setter of its type; the
        // name ends with NUL and is copied.
        unsafe {
            let table = table.as_ptr();
            sys::nftnl_table_set_u32(
                table,
                sys::NFTNL_TABLE_FAMILY as u16,
                libc::NFPROTO_INET as u32,
            );
            sys::nftnl_table_set_str(table, sys::NFTNL_TABLE_NAME as u16, name.as_ptr());
            sys::nftnl_table_set_u32(table, sys::NFTNL_TABLE_FLAGS as u16, flags);
        }
        TableMessage(table)
    }
}

impl Drop for TableMessage {
    fn drop(&mut self) {
        // SAFETY: the table is ours, and this is the only place that frees it.
        unsafe { sys::nftnl_table_free(self.0.as_ptr()) };
    }
}

// SAFETY: a name of at most 255 bytes and two numbers.
unsafe impl NlMsg for TableMessage {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, kind: MsgType) {
        // A table that is there already must not be taken over: EEXIST.
        let (message, flags) = match kind {
            MsgType::Add => (
                libc::NFT_MSG_NEWTABLE,
                libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            ),
            MsgType::Del => (libc::NFT_MSG_DELTABLE, 0),
        };
        let family = libc::NFPROTO_INET as u16;
        // SAFETY: the caller gives a buffer for the largest message; the table is alive.
        unsafe {
            let header = sys::nftnl_nlmsg_build_hdr(
                buffer.cast::<c_char>(),
                message as u16,
                family,
                flags as u16,
                sequence,
            );
            sys::nftnl_table_nlmsg_build_payload(header, self.0.as_ptr());
        }
    }
}

/// A table of family `inet` in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// The netlink port of the socket that owns it. That is the process's number, unless the
    /// process had other netlink sockets before.
    pub owner: Option<u32>,
    /// The kernel's number for it; one that takes its place has another. Since Linux 4.17.
    pub handle: Option<u64>,
}

/// The tables of family `inet` in this network namespace.
pub fn tables(socket: &Socket) -> Result<Vec<TableInfo>, Failure> {
    // linux/netfilter/nf_tables.h: NFTA_TABLE_*
    const NAME: u16 = 1;
    const HANDLE: u16 = 4;
    const OWNER: u16 = 7;
    let request = dump_request(libc::NFT_MSG_GETTABLE);
    let mut tables = Vec::new();
    socket.dump(&request, |message| match message {
        None => tables.clear(),
        Some(message) => {
            let attributes = message.attributes();
            if let Some(name) = attributes.text(NAME) {
                let name = name.to_owned();
                tables.push(TableInfo {
                    name,
                    owner: attributes.u32(OWNER),
                    handle: attributes.u64(HANDLE),
                });
            }
        }
    })?;
    Ok(tables)
}

/// The generation of the ruleset: another number after every change of anybody.
pub fn generation(socket: &Socket) -> Result<Option<u32>, Failure> {
    // linux/netfilter/nf_tables.h: NFTA_GEN_ID
    const ID: u16 = 1;
    let request = Request::new(nf_tables(libc::NFT_MSG_GETGEN), 0, libc::AF_UNSPEC as u8, 1);
    let mut generation = None;
    socket.dump(&request, |message| {
        generation = message.and_then(|message| message.attributes().u32(ID));
    })?;
    Ok(generation)
}

/// The generation that follows one when something is changed (nf_tables_commit in
/// net/netfilter/nf_tables_api.c).
pub fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The first key of its range, fields padded to 4 bytes.
    pub first: Vec<u8>,
    /// The last one; the same if it is no range.
    pub last: Vec<u8>,
    /// What a map has for it.
    pub data: Option<Data>,
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A value, fields padded to 4 bytes.
    Bytes(Vec<u8>),
    /// The chain that packets go to.
    Chain(String),
}

/// The elements of a set of family `inet`; none if there is no such set.
pub fn elements(socket: &Socket, table: &str, set: &str) -> Result<Vec<Element>, Failure> {
    // linux/netfilter/nf_tables.h: NFTA_SET_ELEM_LIST_*
    const TABLE: u16 = 1;
    const SET: u16 = 2;
    const ELEMENTS: u16 = 3;
    let request = dump_request(libc::NFT_MSG_GETSETELEM)
        .text(TABLE, table)
        .text(SET, set);
    let mut elements = Vec::new();
    let result = socket.dump(&request, |message| match message {
        None => elements.clear(),
        Some(message) => {
            let list = message.attributes().nested(ELEMENTS);
            elements.extend(list.iter().filter_map(|(_, found)| element(found)));
        }
    });
    match result {
        Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(Vec::new()),
        result => result.map(|()| elements),
    }
}

pub fn element(bytes: &[u8]) -> Option<Element> {
    // linux/netfilter/nf_tables.h: NFTA_SET_ELEM_*, NFTA_DATA_*, NFTA_VERDICT_CHAIN
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const KEY_END: u16 = 10;
    const VALUE: u16 = 1;
    const VERDICT: u16 = 2;
    const CHAIN: u16 = 2;
    let element = Attributes(bytes);
    let key = |kind| element.nested(kind).get(VALUE);
    let first = key(KEY)?;
    let data = element.nested(DATA);
    let value = data.get(VALUE).map(|value| Data::Bytes(value.to_vec()));
    let chain = || Some(Data::Chain(data.nested(VERDICT).text(CHAIN)?.to_owned()));
    Some(Element {
        first: first.to_vec(),
        last: key(KEY_END).unwrap_or(first).to_vec(),
        data: value.or_else(chain),
    })
}

/// A request for all objects of a kind, of family `inet`.
pub fn dump_request(message: i32) -> Request {
    let flags = libc::NLM_F_DUMP as u16;
    Request::new(nf_tables(message), flags, libc::NFPROTO_INET as u8, 1)
}

/// The number of a message to nf_tables.
pub fn nf_tables(message: i32) -> u16 {
    ((libc::NFNL_SUBSYS_NFTABLES << 8) | message) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_element_panics(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            element(&bytes);
        }
    }
}
