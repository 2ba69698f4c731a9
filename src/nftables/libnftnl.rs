//! What the crate nftnl has no safe call for: expressions of any kind, and the bytes of a message.

use super::expr::{Expression, Value};
use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{MsgType, NlMsg, Rule};
use std::ffi::c_void;
use std::ptr::NonNull;

/// A buffer for the largest message, aligned for a header.
pub struct Scratch(Vec<u64>);

impl Scratch {
    /// One that holds no message yet.
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

impl nftnl::expr::Expression for Expression {
    fn to_expr(&self, _rule: &Rule) -> NonNull<sys::nftnl_expr> {
        let (name, attributes) = self.parts();
        // SAFETY: the name is a C string, which libnftnl copies.
        let expr = unsafe { sys::nftnl_expr_alloc(name.as_ptr()) };
        // Null means that there is no memory left, and nothing sensible can follow; or that libnftnl has
        // no such expression, but it has had those of expr.rs since 1.2.0.
        let expr = NonNull::new(expr).unwrap_or_else(|| std::process::abort());
        for (attribute, value) in attributes {
            let attribute = *attribute as u16;
            // SAFETY: `expr` was just made. Each attribute is set with the setter of its type: only the
            // functions of expr.rs pair the two, as src/expr/*.c of libnftnl defines them. Data is copied
            // before the call returns.
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
