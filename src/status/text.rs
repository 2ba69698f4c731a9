//! The status for people: a table for each instance.

use super::{DestinationStatus, ForwardStatus, Instance, Owner};
use crate::config::Service;
use crate::text::Printable;
use std::fmt::Write;

const HEADINGS: [&str; 5] = ["FORWARD", "TO", "CONNECTIONS", "ACTIVE", "DROPPED"];
/// From here on columns hold numbers, which are aligned to the right.
const FIRST_NUMBER: usize = 2;

/// Writes the instances at a time, in seconds since 1970.
pub fn render(instances: &[Instance], now: u64) -> String {
    if instances.is_empty() {
        return "nodefwd forwards nothing in this network namespace\n".into();
    }
    let instances: Vec<String> = instances
        .iter()
        .map(|instance| one_instance(instance, now))
        .collect();
    instances.join("\n")
}

fn one_instance(instance: &Instance, now: u64) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(instance.forwards.iter().flat_map(forward_rows));
    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = heading(instance, now);
    for reason in instance
        .forwarding
        .iter()
        .filter_map(|it| it.reason.as_ref())
    {
        text += &format!("  not ready: {}\n", Printable(reason));
    }
    if instance.reload_failed {
        text +=
            "  the last reload failed, these are the rules from before: the log has the reason\n";
    }
    if instance.truncated {
        text += "  its forwards are left out, as they are too many\n";
        rows.clear();
    }
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = if column < FIRST_NUMBER {
                write!(line, "  {cell:width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if instance.invalid > 0 {
        text += &format!("  dropped as invalid: {}\n", instance.invalid);
    }
    text
}

fn heading(instance: &Instance, now: u64) -> String {
    // Any process can name a table like an instance's.
    let (name, table) = (Printable(&instance.name), Printable(&instance.table));
    let mut heading = format!("{name}: table inet {table}");
    let addresses = instance.listen.iter().map(ToString::to_string);
    let interfaces = instance.interfaces.iter().map(ToString::to_string);
    let listen: Vec<String> = addresses.chain(interfaces).collect();
    if !listen.is_empty() {
        heading += &format!(", at {}", listen.join(", "));
    }
    if !instance.accepting {
        heading += ", accepts no new connections";
    }
    heading + &ownership(instance.owner.as_ref(), now) + "\n"
}

fn ownership(owner: Option<&Owner>, now: u64) -> String {
    let Some(owner) = owner else {
        return ", without an owner".into();
    };
    let Some(pid) = owner.pid else {
        return format!(
            ", owned by a process that cannot be seen from here (netlink port {})",
            owner.portid
        );
    };
    let name = Printable(owner.process.as_deref().unwrap_or("?"));
    let age = owner.since.map(|since| now.saturating_sub(since));
    let age = age.map_or(String::new(), |age| format!(" for {}", duration(age)));
    format!(", owned by process {pid} ({name}){age}")
}

/// The two largest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

fn forward_rows(forward: &ForwardStatus) -> Vec<[String; HEADINGS.len()]> {
    let Service {
        family,
        protocol,
        ports,
    } = forward.service;
    let mut rows: Vec<_> = forward.destinations.iter().map(destination_row).collect();
    if rows.is_empty() {
        rows.push(Default::default());
    }
    if let Some(first) = rows.first_mut() {
        first[0] = format!("{protocol}/{ports} {family}");
        first[4] = forward.dropped.to_string();
    }
    rows
}

fn destination_row(destination: &DestinationStatus) -> [String; HEADINGS.len()] {
    let DestinationStatus {
        to,
        connections,
        active,
        up,
    } = destination;
    let down = if *up == Some(false) { " (down)" } else { "" };
    let active = active.map_or("-".into(), |active| active.to_string());
    let [forward, dropped] = Default::default();
    [
        forward,
        format!("{to}{down}"),
        connections.to_string(),
        active,
        dropped,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let expected = "\
web: table inet nodefwd-web, at 10.1.0.1, fd00::1, owned by process 4242 (nodefwd) for 1h 1m
  not ready: IPv6 forwarding is off
  FORWARD             TO                     CONNECTIONS  ACTIVE  DROPPED
  tcp/80 IPv4         10.2.0.11:8080                  12       3        5
                      10.2.0.12:8080 (down)            0       0
  tcp/8000-8100 IPv6  [fd00:2::11]:9-109          123456       -        0
  dropped as invalid: 2

odd\\u{1b}\": table inet nodefwd-odd\\u{1b}\", at eth1, accepts no new connections, without an owner
  the last reload failed, these are the rules from before: the log has the reason
  its forwards are left out, as they are too many
";
        assert_eq!(render(&sample::instances(), sample::SINCE + 3661), expected);
    }

    #[test]
    fn without_an_instance_it_says_so() {
        assert_eq!(
            render(&[], 0),
            "nodefwd forwards nothing in this network namespace\n"
        );
    }

    #[test]
    fn durations_in_two_units() {
        for (seconds, words) in [
            (0, "0s"),
            (61, "1m 1s"),
            (3_661, "1h 1m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(duration(seconds), words);
        }
    }
}
