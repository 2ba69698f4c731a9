//! All options at once: each of them unset, valid, or valid and then spoiled.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use nodefwd::config::Options;
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
    "NODEFWD_FULLY_RANDOM",
    "NODEFWD_CLAMP_MSS",
    "NODEFWD_HAIRPIN",
    "NODEFWD_HEALTH",
    "NODEFWD_HEALTH_RESET",
    "NODEFWD_NAME",
    "NODEFWD_STRICT",
    "NODEFWD_REPLACE",
    "NODEFWD_DRAIN",
    "NODEFWD_OWNER",
    "NODEFWD_FORWARDS",
    "NODEFWD_FAST_PATH",
];

const COUNT: usize = 21;

/// The text of each option, if it is set.
type Texts = [Option<OsString>; COUNT];

/// One input.
#[derive(Clone, Debug)]
pub struct Input {
    pub texts: Texts,
    /// The indices of the options that were spoiled.
    pub spoiled: Vec<usize>,
}

impl Input {
    /// The options as the command line hands them to the configuration.
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
            fully_random,
            clamp_mss,
            hairpin,
            health,
            health_reset,
            name,
            strict,
            replace,
            drain,
            owner,
            forwards,
            fast_path,
        ] = texts;
        // Every field by name, so that an option that is added later must be added here too.
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
            fully_random,
            clamp_mss,
            hairpin,
            health,
            health_reset,
            name,
            strict,
            replace,
            drain,
            owner,
            fast_path,
            // Invalid files have tests of their own.
            env_file: None,
            watch_file: None,
            locations: Vec::new(),
        }
    }
}

/// Two in five inputs are valid in every option; in the others, one to three are spoiled.
pub fn input() -> impl Strategy<Value = Input> {
    let spoilings = prop_oneof![
        4 => Just(Vec::new()),
        6 => vec((0..COUNT, spoiling()), 1..4),
    ];
    (valid(), spoilings).prop_map(|(mut texts, spoilings)| {
        let mut spoiled = Vec::new();
        for (index, spoiling) in spoilings {
            texts[index] = spoiling.spoil(texts[index].take());
            spoiled.push(index);
        }
        Input { texts, spoiled }
    })
}

/// What is done to a valid value.
#[derive(Clone, Debug)]
enum Spoiling {
    /// Bytes of it are changed, inserted and removed.
    Mutate(Vec<(Index, Edit, u8)>),
    /// It is not set.
    Unset,
    /// Any bytes but NUL, which ends a variable.
    Bytes(Vec<u8>),
    /// It is repeated, with commas, up to this length or a bit more.
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

/// Bytes that one of the parsers treats specially.
const SPECIAL: &[u8] = b"019afl.:-/=,[]%+ \n\t\x1b\"'\\_\x7f\xc2\xe2\xff";

fn spoiling() -> impl Strategy<Value = Spoiling> {
    let byte = prop_oneof![3 => select(SPECIAL), 1 => 1u8..];
    let edit = select(&[Edit::Change, Edit::Insert, Edit::Remove][..]);
    prop_oneof![
        60 => vec((any::<Index>(), edit, byte.clone()), 1..4).prop_map(Spoiling::Mutate),
        10 => Just(Spoiling::Unset),
        25 => vec(byte.clone(), 0..24).prop_map(Spoiling::Bytes),
        4 => (1usize..500).prop_map(Spoiling::Repeat),
        1 => (byte, 1usize..=LONGEST).prop_map(|(byte, length)| Spoiling::Word(byte, length)),
    ]
}

/// The longest variable or argument, its name included (MAX_ARG_STRLEN in linux/binfmts.h).
const LONGEST: usize = (128 << 10) - 64;

impl Spoiling {
    fn spoil(self, valid: Option<OsString>) -> Option<OsString> {
        let valid = || valid.unwrap_or_default().into_vec();
        let bytes = match self {
            Spoiling::Unset => return None,
            Spoiling::Bytes(bytes) => bytes,
            Spoiling::Word(byte, length) => vec![byte; length],
            Spoiling::Repeat(length) => {
                let part = [valid().as_slice(), b","].concat();
                part.repeat(length.div_ceil(part.len()))
            }
            Spoiling::Mutate(edits) => {
                let mut bytes = valid();
                for (index, edit, byte) in edits {
                    mutate(&mut bytes, index, edit, byte);
                }
                bytes
            }
        };
        Some(OsString::from_vec(bytes))
    }
}

fn mutate(bytes: &mut Vec<u8>, index: Index, edit: Edit, byte: u8) {
    match edit {
        Edit::Insert => bytes.insert(index.index(bytes.len() + 1), byte),
        _ if bytes.is_empty() => {}
        Edit::Change => {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        Edit::Remove => {
            bytes.remove(index.index(bytes.len()));
        }
    }
}

/// Options of which each is valid; together they may still forward a port twice.
fn valid() -> impl Strategy<Value = Texts> {
    let classic = prop_oneof![1 => Just([const { None }; 4]), 2 => valid_input::classic()];
    let switches = [(); 9].map(|()| option(select(valid_input::SWITCHES)));
    let words = (
        option(select(valid_input::BALANCES)),
        option(select(valid_input::NAMES)),
        option(select(valid_input::SECONDS)),
        option(select(valid_input::SECONDS)),
        option(select(valid_input::FAST_PATHS)),
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
        let [
            output,
            masquerade,
            fully_random,
            clamp_mss,
            hairpin,
            health_reset,
            strict,
            replace,
            owner,
        ] = switches.map(text);
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
            fully_random,
            clamp_mss,
            hairpin,
            text(words.3),
            health_reset,
            text(words.1),
            strict,
            replace,
            text(words.2),
            owner,
            forwards.map(OsString::from),
            text(words.4),
        ]
    })
}
