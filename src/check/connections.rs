//! Whether there is room for more connections.

use super::{Finding, Level};
use crate::config::{Backend, Config, Protocol, first_few};
use crate::conntrack::Conntrack;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::{fmt, fs, io};

const SUBJECT: &str = "connections";

/// Connections to one address and port can be masqueraded as long as there are source ports, each of which
/// must be in the same range as the client's. The clients' ports, and how many source ports there are for them,
/// also in words (nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c).
const RANGES: [(RangeInclusive<u16>, u64, &str); 3] = [
    (0..=511, 511, "511 from client ports below 512"),
    (512..=1023, 424, "424 from client ports from 512 to 1023"),
    (1024..=65535, 64512, "64512"),
];

/// In the conntrack table, and among the source ports for each destination.
pub fn findings(config: &Config) -> Vec<Finding> {
    let (count, most) = match (read("count"), read("max")) {
        (Ok(Some(count)), Ok(Some(most))) => (count, most),
        (Err(error), _) | (_, Err(error)) => {
            let text = format!("cannot tell how many are tracked: {error}");
            return vec![Finding::new(Level::Doubt, SUBJECT, text)];
        }
        _ => {
            let text = "the kernel tracks none yet";
            return vec![Finding::new(Level::Ok, SUBJECT, text)];
        }
    };
    let mut findings = vec![in_table(count, most)];
    let mut ranges = RANGES.iter();
    if config.masquerade && ranges.any(|(_, ports, _)| is_near(count, *ports)) {
        findings.extend(to_destinations(config));
    }
    findings
}

fn in_table(count: u64, most: u64) -> Finding {
    let text = format!("{count} of at most {most} are tracked");
    // 0 stands for no limit (nf_conntrack_alloc in net/netfilter/nf_conntrack_core.c).
    if most == 0 || !is_near(count, most) {
        return Finding::new(Level::Ok, SUBJECT, text);
    }
    let text = format!("{text}, and the kernel drops further ones");
    let command = format!("sysctl -w net.netfilter.nf_conntrack_max={}", most * 2);
    Finding::new(Level::Warning, SUBJECT, text)
        .mended("; raise the limit on the host with", Some(command))
}

/// Destinations for which source ports run out.
fn to_destinations(config: &Config) -> Vec<Finding> {
    let services = config.reachable_forwards().map(|forward| forward.service);
    let mut counts = RANGES.map(|_| HashMap::new());
    let counted = Conntrack::open().and_then(|conntrack| {
        conntrack.masqueraded(services, &mut |flow, backend| {
            let ranges = RANGES.iter().zip(&mut counts);
            for (_, counts) in
                ranges.filter(|((clients, ..), _)| clients.contains(&flow.source_port))
            {
                *counts.entry((flow.protocol, backend)).or_insert(0) += 1;
            }
        })
    });
    if counted.is_err() {
        return Vec::new();
    }
    let ranges = RANGES.iter().zip(&counts);
    ranges
        .filter_map(|((_, ports, of), counts)| nearly_taken(*ports, of, counts))
        .collect()
}

/// Those for which nearly all of so many are taken.
fn nearly_taken(
    ports: u64,
    of: &str,
    counts: &HashMap<(Protocol, Backend), u64>,
) -> Option<Finding> {
    let near = counts.iter().filter(|(_, count)| is_near(**count, ports));
    let mut near: Vec<String> = near
        .map(|((protocol, to), count)| format!("{protocol} {} ({count})", SocketAddr::from(*to)))
        .collect();
    near.sort();
    let text = format!(
        "of {of} that can be masqueraded to one address and port, nearly all are taken: {}; more need more destinations or ports, or --masquerade=false",
        first_few(near.iter())
    );
    let found = || Finding::new(Level::Warning, SUBJECT, text);
    (!near.is_empty()).then(found)
}

/// Whether more than nine tenths are taken.
fn is_near(count: u64, most: u64) -> bool {
    count * 10 > most * 9
}

/// `None` if the kernel has no such number, as it has not loaded nf_conntrack. Fails if that cannot be told, as where
/// /proc is hidden: the kernel has the other folder always.
fn read(name: &str) -> io::Result<Option<u64>> {
    let file = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    let unread =
        |error: &dyn fmt::Display| io::Error::other(format!("cannot read {file}: {error}"));
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.trim().parse().map_err(|error| unread(&error))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_hidden = !Path::new("/proc/sys/net/core").exists();
            if is_hidden {
                Err(unread(&error))
            } else {
                Ok(None)
            }
        }
        Err(error) => Err(unread(&error)),
    }
}
