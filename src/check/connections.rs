//! Whether there is room for more connections.

use super::{Finding, Level};
use crate::config::{Config, first_few};
use crate::conntrack::Conntrack;
use std::fs;
use std::net::SocketAddr;

const SUBJECT: &str = "connections";

/// How many connections to one address and port can be masqueraded at a time: each needs a source port of its
/// own, from 1024 to 65535 (nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c).
const PORTS: u64 = 65535 - 1024 + 1;

/// In the conntrack table, and among the source ports for each destination.
pub fn findings(config: &Config) -> Vec<Finding> {
    let (Some(count), Some(most)) = (read("count"), read("max")) else {
        return vec![Finding::new(
            Level::Ok,
            SUBJECT,
            "the kernel tracks none yet",
        )];
    };
    let mut findings = vec![in_table(count, most)];
    if config.masquerade && is_near(count, PORTS) {
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
fn to_destinations(config: &Config) -> Option<Finding> {
    let services = config.reachable_forwards().map(|forward| forward.service);
    let counts = Conntrack::open().and_then(|conntrack| conntrack.masqueraded(services));
    let counts = counts.ok()?;
    let near = counts.iter().filter(|(_, count)| is_near(**count, PORTS));
    let mut near: Vec<String> = near
        .map(|((protocol, to), count)| format!("{protocol} {} ({count})", SocketAddr::from(*to)))
        .collect();
    near.sort();
    let text = format!(
        "of {PORTS} that can be masqueraded to one address and port, nearly all are taken: {}; more need more destinations or ports, or --masquerade=false",
        first_few(near.iter())
    );
    let found = || Finding::new(Level::Warning, SUBJECT, text);
    (!near.is_empty()).then(found)
}

/// Whether more than nine tenths are taken.
fn is_near(count: u64, most: u64) -> bool {
    count > most / 10 * 9
}

fn read(name: &str) -> Option<u64> {
    let file = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
