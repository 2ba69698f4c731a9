//! Names that other processes may choose, for tests of what shows them.

use proptest::prelude::*;

/// What forges lines or turns them around, by Unicode's own names: C0, DEL and C1, the line and paragraph
/// separators, marks, embeddings, overrides and isolates of direction, the byte order mark.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{61c}' | '\u{feff}' | '\u{ad}')
}

/// Any bytes, any text, and what terminals, shells and formats treat in a way of their own.
pub fn any_name() -> impl Strategy<Value = String> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    // The last ones stand for bytes that are no text (src/netlink/names.rs).
    let hostile = "[-\u{0}-\u{2f}\u{7f}-\u{a0}\u{200b}-\u{206f}\u{feff}a'\"\\\\;$`{}=\u{10ff00}-\u{10ffff}]{0,12}";
    prop_oneof![
        bytes.prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        any::<String>(),
        hostile,
    ]
}
