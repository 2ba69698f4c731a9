//! Texts that come from outside, such as the names of tables, chains, interfaces and processes: as they may
//! be shown, and as arguments of commands that a reader may paste.
//!
//! Whatever prints lines for people sends them through [`Printable`] as the last step, so no name can forge
//! a line, move a terminal's cursor or turn the direction of writing.

#[cfg(test)]
pub mod hostile;

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write};
use std::{io, str};

/// `str::split_once` for a separator of ASCII: bytes are compared, without a searcher for characters.
pub fn split_at(text: &str, separator: u8) -> Option<(&str, &str)> {
    let index = text.bytes().position(|byte| byte == separator)?;
    Some((&text[..index], &text[index + 1..]))
}

/// Shows a text on one line: characters that a terminal obeys or does not show are escaped, such as line
/// breaks, ESC, and the controls of Unicode that turn the direction of writing.
pub struct Printable<T>(pub T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(|c| !is_printable(c)) {
            let last = part.char_indices().next_back();
            match last.filter(|(_, c)| !is_printable(*c)) {
                Some((index, c)) => write!(self.0, "{}{}", &part[..index], c.escape_debug())?,
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Whether a character shows itself and does nothing else.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Also what Unicode calls format characters, separators and unassigned.
        _ => c.escape_debug().eq([c]),
    }
}

/// The same for JSON, which has escapes of its own: whoever reads it gets the same texts. Line breaks, which
/// are no part of any text there, stay.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    if json.chars().all(|c| c == '\n' || is_printable(c)) {
        return json.into();
    }
    let mut printable = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_printable(c) {
            printable.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(printable, "\\u{unit:04x}");
        }
    }
    printable.into()
}

/// Passes JSON on, so that no more than a part of it is kept. Takes it in pieces of whole characters, as serde_json
/// writes it.
pub struct PrintableJson<'a>(pub &'a mut dyn io::Write);

impl io::Write for PrintableJson<'_> {
    fn write(&mut self, json: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(json).map_err(io::Error::other)?;
        self.0.write_all(printable_json(text).as_bytes())?;
        Ok(json.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A text as a shell takes it for one argument (the POSIX shell's single quotes). `None` if it holds what
/// cannot be shown, so that nobody pastes something else than they read.
pub fn shell_word(word: &str) -> Option<Cow<'_, str>> {
    let needs_no_quotes = |c: char| c.is_ascii_alphanumeric() || "_-./:,=@%+".contains(c);
    if !word.is_empty() && word.chars().all(needs_no_quotes) {
        return Some(word.into());
    }
    let printable = word.chars().all(is_printable);
    printable.then(|| format!("'{}'", word.replace('\'', r"'\''")).into())
}

/// The name of a table or chain as nft(8) takes it in a command. `None` for one that its grammar does not
/// have (`string` in nftables' scanner.l), whatever the quotes: it reads its arguments as one text.
pub fn nft_name(name: &str) -> Option<&str> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || "_.".contains(c));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    (starts && name.chars().all(allowed)).then_some(name)
}

/// The sysctl of an interface, as an argument for sysctl(8): in its own notation, a dot in the name is a
/// slash. `None` as for [`shell_word`], and for a name that it would take for something else: it ends one at
/// `=`, and takes some for patterns (glob(7)), as those of all interfaces.
pub fn interface_sysctl(interface: &str, sysctl: &str) -> Option<String> {
    sysctl_of("ipv4", interface, sysctl)
}

/// The same of IPv6.
pub fn interface_sysctl6(interface: &str, sysctl: &str) -> Option<String> {
    sysctl_of("ipv6", interface, sysctl)
}

fn sysctl_of(family: &str, interface: &str, sysctl: &str) -> Option<String> {
    if interface.contains(['=', '*', '?', '[', '\\']) {
        return None;
    }
    let interface = interface.replace('.', "/");
    let name = format!("net.{family}.conf.{interface}.{sysctl}");
    shell_word(&name).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::hostile::{any_name, is_hostile};
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// What a shell makes of an argument, with nothing around it.
    fn arguments(word: &str) -> Vec<u8> {
        let script = format!("printf '%s\\0' {word}");
        let output = Command::new("/bin/sh").args(["-c", &script]).output();
        output.expect("a shell").stdout
    }

    proptest! {
        #[test]
        fn no_name_brings_a_control_character_into_a_line(name in any_name()) {
            let shown = Printable(&name).to_string();
            prop_assert!(!shown.contains(is_hostile), "{shown:?}");
            let written = serde_json::to_string(&name).unwrap();
            let json = printable_json(&written);
            prop_assert!(!json.contains(is_hostile), "{json:?}");
            let read: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, name);
        }

        #[test]
        fn what_is_printable_is_shown_as_it_is(name in "[ -~äß漢]{0,20}") {
            prop_assert_eq!(Printable(&name).to_string(), name);
        }

        #[test]
        fn splitting_bytes_is_splitting_characters(text in "[,é=]{0,8}") {
            prop_assert_eq!(split_at(&text, b','), text.split_once(','));
        }

        #[test]
        fn a_command_has_no_hostile_character(name in any_name()) {
            for word in [shell_word(&name).map(Cow::into_owned), interface_sysctl(&name, "rp_filter")] {
                prop_assert!(!word.unwrap_or_default().contains(is_hostile));
            }
            let word = nft_name(&name).unwrap_or_default();
            prop_assert!(word.is_empty() || shell_word(word) == Some(word.into()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_shell_sees_one_argument(name in any_name()) {
            if let Some(word) = shell_word(&name) {
                let expected = [name.as_bytes(), &[0]].concat();
                prop_assert_eq!(arguments(&word), expected, "{}", word);
            }
        }
    }

    #[test]
    fn commands_name_what_they_can_name() {
        assert_eq!(shell_word("a b").as_deref(), Some("'a b'"));
        assert_eq!(shell_word("").as_deref(), Some("''"));
        assert_eq!(shell_word("it's").as_deref(), Some(r"'it'\''s'"));
        assert_eq!(shell_word("a\nb"), None);
        assert_eq!(nft_name("nodefwd-tcp-80"), Some("nodefwd-tcp-80"));
        for name in ["", "-x", "1a", "a;b", "a b", "a\"b", "ä"] {
            assert_eq!(nft_name(name), None, "{name}");
        }
        let sysctl = |interface| interface_sysctl(interface, "forwarding");
        let of = |name: &str| Some(format!("net.ipv4.conf.{name}.forwarding"));
        assert_eq!(sysctl("eth0.100"), of("eth0/100"));
        assert_eq!(sysctl("eth0"), of("eth0"));
        assert_eq!(sysctl("a;b"), Some("'net.ipv4.conf.a;b.forwarding'".into()));
        for name in ["a\u{1b}", "a=b", "*", "eth?", "[a-z]", "a\\b"] {
            assert_eq!(sysctl(name), None, "{name}");
        }
    }
}
