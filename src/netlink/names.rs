//! Names that any process can choose, which may hold any bytes but NUL, as Rust's strings and back without
//! loss: a byte that is not part of UTF-8 becomes one of 256 characters that no script uses, of the last
//! private plane (Unicode, 23.5).

/// The character that stands for byte 0.
const FIRST: u32 = 0x10_ff00;

fn stands_for(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for, if it is one of those.
fn byte(c: char) -> Option<u8> {
    u8::try_from(u32::from(c).checked_sub(FIRST)?).ok()
}

/// A name out of bytes.
pub fn decode(bytes: &[u8]) -> String {
    let mut name = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte(c) {
                None => name.push(c),
                Some(_) => {
                    let mut bytes = [0; 4];
                    name.extend(c.encode_utf8(&mut bytes).bytes().map(stands_for));
                }
            }
        }
        name.extend(chunk.invalid().iter().copied().map(stands_for));
    }
    name
}

/// The bytes of a name.
pub fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    for c in name.chars() {
        match byte(c) {
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Some(byte) => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_stays_as_it_is() {
        assert_eq!(decode("nodefwd-wéb".as_bytes()), "nodefwd-wéb");
        assert_eq!(encode("nodefwd-wéb"), "nodefwd-wéb".as_bytes());
        assert_eq!(decode(b"a\xffb"), "a\u{10ffff}b");
    }

    proptest! {
        #[test]
        fn all_bytes_come_back(bytes: Vec<u8>) {
            prop_assert_eq!(encode(&decode(&bytes)), bytes);
        }

        #[test]
        fn the_characters_that_stand_for_bytes_come_back_too(c in FIRST..FIRST + 256) {
            let bytes = char::from_u32(c).unwrap().to_string().into_bytes();
            prop_assert_eq!(encode(&decode(&bytes)), bytes);
        }
    }
}
