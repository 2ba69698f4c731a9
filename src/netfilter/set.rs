//! Sets, maps and their elements as netlink messages.
//!
//! nftnl's own type knows keys of one address only; ranges, concatenations and maps are missing.

use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{MsgType, NlMsg};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;

/// The most elements that go into one message. The list of elements is one netlink attribute and
/// its length a u16; the largest element here (IPv6 address, protocol and port as a range, or a
/// chain's name) takes less than 200 bytes.
pub const ELEMENTS_PER_MESSAGE: usize = 256;

/// linux/netfilter/nf_tables.h: ranges of keys with several fields.
pub const NFT_SET_CONCAT: u32 = 1 << 7;

/// What the kernel, and nft for its listings, must know of a set.
pub struct SetDescription<'a> {
    /// The table.
    pub table: &'a CStr,
    /// The name.
    pub name: &'a CStr,
    /// The number that rules of the same transaction know it by.
    pub id: u32,
    /// `NFT_SET_*` flags.
    pub flags: u32,
    /// nft's number of the key's type.
    pub key_type: u32,
    /// Length in bytes of each field of the key, without padding.
    pub key_fields: &'a [u8],
    /// nft's number and the length in bytes of what a map leads to.
    pub data: Option<(u32, u32)>,
    /// What nft keeps with a set for its own listings (NFTNL_UDATA_SET_* in libnftnl's udata.h).
    pub user_data: Option<&'a [u8]>,
}

/// An element. Keys and data are padded to 4 bytes a field, in network byte order.
pub struct ElementData {
    /// The key, or the first key of a range.
    pub key: Vec<u8>,
    /// The last key of a range, in a set of concatenations.
    pub key_end: Option<Vec<u8>>,
    /// Whether the key is the first one behind a range, in a set of single fields.
    pub interval_end: bool,
    /// What the key leads to.
    pub data: Option<Data>,
}

/// What an element of a map leads to.
pub enum Data {
    /// A value.
    Bytes(Vec<u8>),
    /// `goto` the chain of this name.
    Goto(CString),
}

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
        // SAFETY: takes nothing; null means that there is no memory.
        let set = unsafe { sys::nftnl_set_alloc() };
        let Some(set) = NonNull::new(set) else {
            std::process::abort()
        };
        let set = NftSet(set);
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
        // SAFETY: takes nothing; null means that there is no memory.
        let raw = unsafe { sys::nftnl_set_elem_alloc() };
        let Some(raw) = NonNull::new(raw) else {
            std::process::abort()
        };
        let raw = raw.as_ptr();
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
            let header = header(buffer, libc::NFT_MSG_NEWSET, sequence);
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
            let header = header(buffer, libc::NFT_MSG_NEWSETELEM, sequence);
            sys::nftnl_set_elems_nlmsg_build_payload(header, set);
        }
    }
}

/// # Safety
/// `buffer` must have room for a header.
unsafe fn header(buffer: *mut c_void, message: i32, sequence: u32) -> *mut libc::nlmsghdr {
    let flags = libc::NLM_F_CREATE as u16;
    let family = libc::NFPROTO_INET as u16;
    // SAFETY: the caller's promise.
    unsafe {
        sys::nftnl_nlmsg_build_hdr(
            buffer.cast::<c_char>(),
            message as u16,
            family,
            flags,
            sequence,
        )
    }
}
