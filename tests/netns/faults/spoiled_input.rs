//! All options at once: each of them unset, right, or right and then spoiled.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use nodefwd::cli::Options;
use proptest::collection::vec;
use proptest::option::of as option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::valid_input;

/// The variable of each option, in the order of [`Texts`].
pub const VARIABLES: [&str; COUNT] = [
    "DEST_IPS",
    "DEST_PROTO",
    "SRC_PORT",
    "DEST_PORT",
    "SRC_RANGES",
    "NODEFWD_BALANCE",
    "NODEFWD_LISTEN",
    "NODEFWD_OUTPUT",
    "NODEFWD_MASQUERADE",
    "NODEFWD_HAIRPIN",
    "NODEFWD_NAME",
    "NODEFWD_STRICT",
    "NODEFWD_REPLACE",
    "NODEFWD_DRAIN",
    "NODEFWD_OWNER",
    "NODEFWD_FORWARDS",
];

const COUNT: usize = 16;

/// The text of each option; nothing for one that is not set.
type Texts = [Option<OsString>; COUNT];

/// One input.
#[derive(Clone, Debug)]
pub struct Input {
    pub texts: Texts,
    /// The places of the options that are not as they should be.
    pub spoiled: Vec<usize>,
}

impl Input {
    /// As the command line would hand it over.
    pub fn options(&self) -> Options {
        let texts = self.texts.clone();
        let [
            dest_ips,
            dest_proto,
            src_port,
            dest_port,
            src_ranges,
            balance,
            listen,
            output,
            masquerade,
            hairpin,
            name,
            strict,
            replace,
            drain,
            owner,
            forwards,
        ] = texts;
        // Every field by name: an option that comes later must come here too.
        Options {
            forwards: forwards.into_iter().collect(),
            dest_ips,
            dest_proto,
            src_port,
            dest_port,
            src_ranges,
            balance,
            listen,
            output,
            masquerade,
            hairpin,
            name,
            strict,
            replace,
            drain,
            owner,
        }
    }
}

/// Two in five inputs are right in every part, the others have one part or several that are not.
pub fn input() -> impl Strategy<Value = Input> {
    let spoilings = prop_oneof![
        4 => Just(Vec::new()),
        6 => vec((0..COUNT, spoiling()), 1..4),
    ];
    (right(), spoilings).prop_map(|(mut texts, spoilings)| {
        let mut spoiled = Vec::new();
        for (place, spoiling) in spoilings {
            texts[place] = spoiling.spoil(texts[place].take());
            spoiled.push(place);
        }
        Input { texts, spoiled }
    })
}

/// What is done to a right value.
#[derive(Clone, Debug)]
enum Spoiling {
    /// Bytes of it are changed, added and taken out.
    Mutate(Vec<(Index, Edit, u8)>),
    /// It is not set.
    Unset,
    /// Any bytes but NUL, which ends a variable.
    Bytes(Vec<u8>),
    /// It is repeated, with a comma between, up to this length or a bit more.
    Repeat(usize),
    /// It is one word of this length.
    Word(u8, usize),
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Change,
    Insert,
    Remove,
}

/// Bytes that mean something to one of the parsers.
const TELLING: &[u8] = b"019afl.:-/=,[]%+ \n\t\x1b\"'\\_\x7f\xc2\xe2\xff";

fn spoiling() -> impl Strategy<Value = Spoiling> {
    let byte = prop_oneof![3 => select(TELLING), 1 => 1u8..];
    let edit = select(&[Edit::Change, Edit::Insert, Edit::Remove][..]);
    prop_oneof![
        60 => vec((any::<Index>(), edit, byte.clone()), 1..4).prop_map(Spoiling::Mutate),
        10 => Just(Spoiling::Unset),
        25 => vec(byte.clone(), 0..24).prop_map(Spoiling::Bytes),
        4 => (1usize..500).prop_map(Spoiling::Repeat),
        1 => (byte, 1usize..=LONGEST).prop_map(|(byte, length)| Spoiling::Word(byte, length)),
    ]
}

/// A variable or an argument holds no more (MAX_ARG_STRLEN in linux/binfmts.h), its name included.
const LONGEST: usize = (128 << 10) - 64;

impl Spoiling {
    fn spoil(self, right: Option<OsString>) -> Option<OsString> {
        let right = || right.unwrap_or_default().into_vec();
        let bytes = match self {
            Spoiling::Unset => return None,
            Spoiling::Bytes(bytes) => bytes,
            Spoiling::Word(byte, length) => vec![byte; length],
            Spoiling::Repeat(length) => {
                let part = [right().as_slice(), b","].concat();
                part.repeat(length.div_ceil(part.len()))
            }
            Spoiling::Mutate(edits) => {
                let mut bytes = right();
                for (place, edit, byte) in edits {
                    mutate(&mut bytes, place, edit, byte);
                }
                bytes
            }
        };
        Some(OsString::from_vec(bytes))
    }
}

fn mutate(bytes: &mut Vec<u8>, place: Index, edit: Edit, byte: u8) {
    match edit {
        Edit::Insert => bytes.insert(place.index(bytes.len() + 1), byte),
        _ if bytes.is_empty() => {}
        Edit::Change => {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        Edit::Remove => {
            bytes.remove(place.index(bytes.len()));
        }
    }
}

/// Options of which each is right; together they may still claim a port twice.
fn right() -> impl Strategy<Value = Texts> {
    let classic = prop_oneof![1 => Just([const { None }; 4]), 2 => valid_input::classic()];
    let switches = [(); 6].map(|()| option(select(valid_input::SWITCHES)));
    let words = (
        option(select(valid_input::BALANCES)),
        option(select(valid_input::NAMES)),
        option(select(valid_input::SECONDS)),
    );
    let lists = (
        option(valid_input::ranges()),
        option(valid_input::listen()),
        option(valid_input::forwards()),
    );
    (classic, lists, words, switches).prop_map(|(classic, lists, words, switches)| {
        let [dest_ips, dest_proto, src_port, dest_port] = classic;
        let (src_ranges, listen, forwards) = lists;
        let text = |word: Option<&str>| word.map(OsString::from);
        let [output, masquerade, hairpin, strict, replace, owner] = switches.map(text);
        [
            dest_ips.map(OsString::from),
            dest_proto.map(OsString::from),
            src_port.map(OsString::from),
            dest_port.map(OsString::from),
            src_ranges.map(OsString::from),
            text(words.0),
            listen.map(OsString::from),
            output,
            masquerade,
            hairpin,
            text(words.1),
            strict,
            replace,
            text(words.2),
            owner,
            forwards.map(OsString::from),
        ]
    })
}
