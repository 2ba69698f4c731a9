//! Valid values of each option.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub const SWITCHES: &[&str] = &["true", "yes", "1", "false", "No", "0", " TRUE "];
pub const BALANCES: &[&str] = &["random", "round-robin", "source"];
pub const NAMES: &[&str] = &["web", "a.b_c-D9", "-", "9"];
pub const FAST_PATHS: &[&str] = &["off", "auto", " auto "];
pub const SECONDS: &[&str] = &["0", "30", "86400"];

/// Protocols in any case.
const PROTOCOLS: [&str; 3] = ["tcp", "UDP", "Sctp"];

/// What separates the entries of a list.
const SEPARATORS: &[&str] = &[",", " ", ", ", "\n", " ,\t"];

/// DEST_IPS, DEST_PROTO, SRC_PORT and DEST_PORT.
pub fn classic() -> impl Strategy<Value = [Option<String>; 4]> {
    let protocols = subsequence(&PROTOCOLS[..], 1..=3);
    let addresses = vec(address(), 1..4);
    let separator = select(SEPARATORS);
    (addresses, protocols, ports(1), backend_ports(), separator).prop_map(
        |(addresses, protocols, ports, backend_ports, separator)| {
            let to = ports.iter().map(|range| backend_ports.of(*range));
            let to: Option<Vec<String>> = to.collect();
            let ports: Vec<String> = ports.iter().map(|range| range.text()).collect();
            [
                Some(addresses.join(separator)),
                Some(protocols.join(separator)),
                Some(ports.join(separator)),
                to.map(|ports| ports.join(separator)),
            ]
        },
    )
}

/// NODEFWD_FORWARDS, of ports that are seldom in SRC_PORT too.
pub fn forwards() -> impl Strategy<Value = String> {
    let backends = || vec((address(), backend_ports()), 1..4);
    let forward = (select(&PROTOCOLS[..]), backends());
    (ports(30_000), vec(forward, 3)).prop_map(|(ports, forwards)| {
        let words = ports.into_iter().zip(forwards);
        let words = words.map(|(range, (protocol, backends))| {
            let backends: Vec<String> = backends
                .into_iter()
                .map(|(address, ports)| backend(&address, ports.of(range)))
                .collect();
            format!("{protocol}/{}={}", range.text(), backends.join(","))
        });
        words.collect::<Vec<_>>().join(" ")
    })
}

fn backend(address: &str, ports: Option<String>) -> String {
    match ports {
        None => address.to_owned(),
        Some(ports) if address.contains(':') => format!("[{address}]:{ports}"),
        Some(ports) => format!("{address}:{ports}"),
    }
}

/// SRC_RANGES.
pub fn ranges() -> impl Strategy<Value = String> {
    let range = (address(), any::<u8>()).prop_map(|(address, length)| match length {
        0..64 => address,
        _ if address.contains(':') => format!("{address}/{}", length % 129),
        _ => format!("{address}/{}", length % 33),
    });
    list(range, 0..6)
}

/// NODEFWD_LISTEN.
pub fn listen() -> impl Strategy<Value = String> {
    prop_oneof![
        select(&["local", "any", " any "][..]).prop_map(str::to_owned),
        list(address(), 1..4),
        // Blanks do not separate names.
        vec(prop_oneof![address(), interface()], 1..4).prop_map(|entries| entries.join(", ")),
    ]
}

/// The name of an interface: mostly one of few.
fn interface() -> impl Strategy<Value = String> {
    prop_oneof!["eth[0-3]", "[a-z][a-z0-9@_.-]{1,14}"]
        .prop_filter("a keyword", |name| name != "any" && name != "local")
}

fn list(
    entry: impl Strategy<Value = String>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    (vec(entry, count), select(SEPARATORS)).prop_map(|(entries, separator)| entries.join(separator))
}

/// The address of a host: mostly one of few, so that some come twice.
fn address() -> impl Strategy<Value = String> {
    (any::<u32>(), any::<u128>(), 0..8u8).prop_map(|(v4, v6, kind)| match kind {
        0..4 => format!("10.2.0.{}", v4 % 8 + 1),
        4..6 => format!("fd00:2::{:x}", v4 % 8 + 1),
        // 64.0.0.0/3 and 2000::/3 hold unicast addresses only.
        6 => Ipv4Addr::from(v4 >> 3 | 1 << 30).to_string(),
        _ => Ipv6Addr::from(v6 >> 3 | 1 << 125).to_string(),
    })
}

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u16,
    last: u16,
}

impl Range {
    fn text(self) -> String {
        let Range { first, last } = self;
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    }
}

/// One to three ranges of ports above `lowest`; few are long, and no two overlap.
fn ports(lowest: u16) -> impl Strategy<Value = Vec<Range>> {
    let length = prop_oneof![50 => Just(0), 9 => 1..20u16, 1 => 20..2000u16];
    vec((1..3000u16, length), 1..=3).prop_map(move |gaps| {
        let mut next = lowest;
        let range = |(gap, length)| {
            let first = next + gap;
            let last = first + length;
            next = last + 1;
            Range { first, last }
        };
        gaps.into_iter().map(range).collect()
    })
}

/// The backend's ports for a range.
#[derive(Clone, Copy, Debug)]
enum BackendPorts {
    Same,
    One(u16),
    /// A range of the same length, so much higher.
    Higher(u16),
}

fn backend_ports() -> impl Strategy<Value = BackendPorts> {
    prop_oneof![
        2 => Just(BackendPorts::Same),
        2 => (1u16..).prop_map(BackendPorts::One),
        1 => (0..20_000u16).prop_map(BackendPorts::Higher),
    ]
}

impl BackendPorts {
    fn of(self, range: Range) -> Option<String> {
        match self {
            BackendPorts::Same => None,
            BackendPorts::One(port) => Some(port.to_string()),
            BackendPorts::Higher(distance) => Some(
                Range {
                    first: range.first + distance,
                    last: range.last + distance,
                }
                .text(),
            ),
        }
    }
}
