//! Lists of forwards and others, cut to what a message has room for.

use super::Forward;

/// How many forwards, and destinations of each, a message names.
const SHOWN: usize = 4;

/// The first forwards, each with its first destinations, and how many more there are.
pub fn summary(forwards: &[Forward]) -> String {
    let first = forwards.iter().take(SHOWN).map(|forward| {
        let shown = Forward {
            destinations: forward.destinations.iter().take(SHOWN).copied().collect(),
            ..*forward
        };
        format!(" {shown}{}", more(forward.destinations.len()))
    });
    let first: String = first.collect();
    format!("forwarding{first}{}", more(forwards.len()))
}

/// The first of a list, and how many more there are.
pub fn first_few(all: impl ExactSizeIterator<Item = impl ToString>) -> String {
    let more = more(all.len());
    let first: Vec<String> = all.take(SHOWN).map(|one| one.to_string()).collect();
    first.join(", ") + &more
}

fn more(all: usize) -> String {
    match all.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}
