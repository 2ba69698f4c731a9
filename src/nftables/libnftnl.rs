//! libnftnl's tables, sets and expressions, and the messages that it writes: all that the crate nftnl
//! has no safe call for.
//!
//! libnftnl 1.2.0 is the oldest that has everything here.

use super::expr::{Expression, Value};
use super::set::{Data, ElementData, SetDescription};
use crate::uapi::{NFT_SET_CONCAT, NFT_TABLE_F_OWNER};
use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{MsgType, NlMsg, Rule};
use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

/// A buffer for the largest message, aligned for a header.
pub struct Scratch(Vec<u64>);

impl Scratch {
    pub fn new() -> Self {
        Scratch(vec![0; (nftnl::nft_nlmsg_maxsize() as usize).div_ceil(8)])
    }

    /// The bytes of a message, without a request for an acknowledgement.
    pub fn write(&mut self, message: &impl NlMsg, sequence: u32, kind: MsgType) -> &[u8] {
        let buffer = self.0.as_mut_ptr();
        // SAFETY: the buffer has the size that `NlMsg::write` asks for and the alignment of a header.
        // The message starts with the header that `write` made, whose length is at most that size, so
        // that many bytes of the buffer are initialised.
        unsafe {
            message.write(buffer.cast::<c_void>(), sequence, kind);
            let header = buffer.cast::<libc::nlmsghdr>();
            (*header).nlmsg_flags &= !(libc::NLM_F_ACK as u16);
            std::slice::from_raw_parts(buffer.cast::<u8>(), (*header).nlmsg_len as usize)
        }
    }
}

/// libnftnl gives null if there is no memory left: nothing sensible can follow.
fn allocated<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).unwrap_or_else(|| std::process::abort())
}

/// The message that makes or deletes a table of family `inet`. nftnl's own has no flags.
pub struct TableMessage(NonNull<sys::nftnl_table>);

impl TableMessage {
    /// A table of this name; with an owner, it belongs to the socket that the message is sent over.
    pub fn new(name: &CStr, owner: bool) -> Self {
        let flags = if owner { NFT_TABLE_F_OWNER } else { 0 };
        // SAFETY: takes nothing.
        let table = allocated(unsafe { sys::nftnl_table_alloc() });
        // SAFETY: the table was just made; each attribute is set with the setter of its type; the
        // name ends with NUL and is copied.
        unsafe {
            let table = table.as_ptr();
            let family = libc::NFPROTO_INET as u32;
            sys::nftnl_table_set_u32(table, sys::NFTNL_TABLE_FAMILY as u16, family);
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
        // NLM_F_EXCL: a table that exists already must not be taken over (EEXIST).
        let (message, flags) = match kind {
            MsgType::Add => (
                libc::NFT_MSG_NEWTABLE,
                libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            ),
            MsgType::Del => (libc::NFT_MSG_DELTABLE, 0),
        };
        // SAFETY: the caller gives a buffer for the largest message; the table is alive.
        unsafe {
            let header = header(buffer, message, flags, sequence);
            sys::nftnl_table_nlmsg_build_payload(header, self.0.as_ptr());
        }
    }
}

impl nftnl::expr::Expression for Expression {
    fn to_expr(&self, _rule: &Rule) -> NonNull<sys::nftnl_expr> {
        // SAFETY: the name is a C string, which libnftnl copies. Null also means that libnftnl has no
        // such expression; it has had those of expr.rs since 1.2.0.
        let expr = allocated(unsafe { sys::nftnl_expr_alloc(self.name.as_ptr()) });
        for (attribute, value) in &self.attributes {
            let attribute = *attribute as u16;
            // SAFETY: `expr` was just made. Each attribute is set with the setter of its type, as
            // src/expr/*.c of libnftnl defines it; data is copied before the call returns.
            unsafe {
                match value {
                    Value::U32(value) => sys::nftnl_expr_set_u32(expr.as_ptr(), attribute, *value),
                    Value::Bytes(bytes) => {
                        let data = bytes.as_ptr().cast::<c_void>();
                        sys::nftnl_expr_set(expr.as_ptr(), attribute, data, bytes.len() as u32);
                    }
                    Value::Text(text) => {
                        sys::nftnl_expr_set_str(expr.as_ptr(), attribute, text.as_ptr());
                    }
                }
            }
        }
        expr
    }
}

/// The most elements that go into one message. The list of elements is one netlink attribute and
/// its length a u16; the largest element here (IPv6 address, protocol and port as a range, or a
/// chain's name) takes less than 200 bytes.
pub const ELEMENTS_PER_MESSAGE: usize = 256;

/// A set, with some of its elements, as libnftnl holds it.
pub struct NftSet(NonNull<sys::nftnl_set>);

impl NftSet {
    /// The set without its elements.
    pub fn new(description: &SetDescription<'_>) -> Self {
        let set = Self::named(description.table, description.name, description.id);
        set.u32(sys::NFTNL_SET_FLAGS, description.flags);
        set.u32(sys::NFTNL_SET_KEY_TYPE, description.key_type);
        let fields = description.key_fields;
        match fields {
            [length] => set.u32(sys::NFTNL_SET_KEY_LEN, u32::from(*length)),
            _ => {
                let padded = fields
                    .iter()
                    .map(|length| u32::from(*length).next_multiple_of(4));
                set.u32(sys::NFTNL_SET_KEY_LEN, padded.sum());
                // The kernel wants the fields of ranges only (nf_tables_newset: EINVAL otherwise).
                if description.flags & NFT_SET_CONCAT != 0 {
                    set.bytes(sys::NFTNL_SET_DESC_CONCAT, fields);
                }
            }
        }
        if let Some((data_type, length)) = description.data {
            set.u32(sys::NFTNL_SET_DATA_TYPE, data_type);
            set.u32(sys::NFTNL_SET_DATA_LEN, length);
        }
        if let Some(user_data) = description.user_data {
            set.bytes(sys::NFTNL_SET_USERDATA, user_data);
        }
        set
    }

    /// Just some elements of a set.
    pub fn elements(description: &SetDescription<'_>, elements: &[ElementData]) -> Self {
        let set = Self::named(description.table, description.name, description.id);
        for element in elements {
            set.add(element);
        }
        set
    }

    fn named(table: &CStr, name: &CStr, id: u32) -> Self {
        // SAFETY: takes nothing.
        let set = NftSet(allocated(unsafe { sys::nftnl_set_alloc() }));
        set.u32(sys::NFTNL_SET_FAMILY, libc::NFPROTO_INET as u32);
        set.u32(sys::NFTNL_SET_ID, id);
        // SAFETY: the set is ours; both strings end with NUL and are copied.
        unsafe {
            let set = set.0.as_ptr();
            sys::nftnl_set_set_str(set, sys::NFTNL_SET_TABLE as u16, table.as_ptr());
            sys::nftnl_set_set_str(set, sys::NFTNL_SET_NAME as u16, name.as_ptr());
        }
        set
    }

    fn u32(&self, attribute: u32, value: u32) {
        // SAFETY: the set is ours, and the attributes passed here are 32-bit numbers.
        unsafe { sys::nftnl_set_set_u32(self.0.as_ptr(), attribute as u16, value) }
    }

    /// Sets an attribute that is a byte string. Its length is bounded by the few fields of a key.
    fn bytes(&self, attribute: u32, value: &[u8]) {
        let data = value.as_ptr().cast::<c_void>();
        // SAFETY: the set is ours; `data` is readable for its length and is copied.
        unsafe {
            sys::nftnl_set_set_data(self.0.as_ptr(), attribute as u16, data, value.len() as u32);
        }
    }

    fn add(&self, element: &ElementData) {
        // SAFETY: takes nothing.
        let raw = allocated(unsafe { sys::nftnl_set_elem_alloc() }).as_ptr();
        let bytes = |attribute: u32, value: &[u8]| {
            let data = value.as_ptr().cast::<c_void>();
            // SAFETY: `raw` was just made; `data` is readable for its length and is copied.
            unsafe { sys::nftnl_set_elem_set(raw, attribute as u16, data, value.len() as u32) };
        };
        bytes(sys::NFTNL_SET_ELEM_KEY, &element.key);
        if let Some(key_end) = &element.key_end {
            bytes(NFTNL_SET_ELEM_KEY_END, key_end);
        }
        // SAFETY: as above; the chain's name ends with NUL and is copied; `nftnl_set_elem_add`
        // makes the set the element's owner, so nothing here frees it.
        unsafe {
            if element.interval_end {
                let flag = libc::NFT_SET_ELEM_INTERVAL_END as u32;
                sys::nftnl_set_elem_set_u32(raw, sys::NFTNL_SET_ELEM_FLAGS as u16, flag);
            }
            match &element.data {
                None => {}
                Some(Data::Bytes(data)) => bytes(sys::NFTNL_SET_ELEM_DATA, data),
                Some(Data::Goto(chain)) => {
                    let goto = libc::NFT_GOTO as u32;
                    sys::nftnl_set_elem_set_u32(raw, sys::NFTNL_SET_ELEM_VERDICT as u16, goto);
                    let attribute = sys::NFTNL_SET_ELEM_CHAIN as u16;
                    sys::nftnl_set_elem_set_str(raw, attribute, chain.as_ptr());
                }
            }
            sys::nftnl_set_elem_add(self.0.as_ptr(), raw);
        }
    }
}

/// libnftnl/set.h, since 1.1.6; nftnl-sys has it only in its bindings for later versions.
const NFTNL_SET_ELEM_KEY_END: u32 = 10;

impl Drop for NftSet {
    fn drop(&mut self) {
        // SAFETY: the set is ours, and this is the only place that frees it.
        unsafe { sys::nftnl_set_free(self.0.as_ptr()) };
    }
}

/// The message that makes a set.
pub struct SetMessage<'a>(pub &'a NftSet);

// SAFETY: names and a few numbers, far below the largest message.
unsafe impl NlMsg for SetMessage<'_> {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        let set = self.0.0.as_ptr();
        // SAFETY: the caller gives a buffer for the largest message; the set is alive.
        unsafe {
            let header = header(buffer, libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, sequence);
            sys::nftnl_set_nlmsg_build_payload(header, set);
        }
    }
}

/// The message that adds a set's elements, [`ELEMENTS_PER_MESSAGE`] of them at most.
pub struct ElementsMessage<'a>(pub &'a NftSet);

// SAFETY: ELEMENTS_PER_MESSAGE elements stay below the 64 KiB that the largest message has room for.
unsafe impl NlMsg for ElementsMessage<'_> {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        let set = self.0.0.as_ptr();
        // SAFETY: the caller gives a buffer for the largest message; the set is alive.
        unsafe {
            let header = header(
                buffer,
                libc::NFT_MSG_NEWSETELEM,
                libc::NLM_F_CREATE,
                sequence,
            );
            sys::nftnl_set_elems_nlmsg_build_payload(header, set);
        }
    }
}

/// Begins a message to nf_tables about an object of family `inet`.
///
/// # Safety
/// `buffer` must have room for a header.
unsafe fn header(
    buffer: *mut c_void,
    message: i32,
    flags: i32,
    sequence: u32,
) -> *mut libc::nlmsghdr {
    let buffer = buffer.cast::<c_char>();
    let family = libc::NFPROTO_INET as u16;
    // SAFETY: the caller's promise.
    unsafe { sys::nftnl_nlmsg_build_hdr(buffer, message as u16, family, flags as u16, sequence) }
}
