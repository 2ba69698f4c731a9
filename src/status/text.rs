//! The status for people: a table for each instance.

use super::{DestinationStatus, ForwardStatus, Instance, OptionsStatus};
use crate::config::{Service, first_few};
use crate::lock::Holder;
use crate::text::Printable;
use std::fmt::Write;

const HEADINGS: [&str; 6] = [
    "FORWARD",
    "TO",
    "CONNECTIONS",
    "ACTIVE",
    "UNANSWERED",
    "DROPPED",
];
/// From here on columns hold numbers, which are aligned to the right.
const FIRST_NUMBER: usize = 2;

/// Writes the instances of this network namespace, or of `all`, at a time, in seconds since 1970.
pub fn render(instances: &[Instance], all: bool, now: u64) -> String {
    if instances.is_empty() {
        let place = if all {
            "any network namespace of this host"
        } else {
            "this network namespace"
        };
        return format!("nodefwd forwards nothing in {place}\n");
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
    for note in notes(instance) {
        text += &format!("  {}\n", Printable(note));
    }
    if instance.truncated {
        let which = instance.too_many.filter(|which| *which != "forwards");
        let which = which.map_or("they".into(), |which| format!("its {which}"));
        text += &format!("  its forwards are left out, as {which} are too many\n");
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

/// What there is to say of an instance before its forwards.
fn notes(instance: &Instance) -> Vec<String> {
    let mut notes = Vec::new();
    let not_forwarding = instance.forwarding.iter();
    let reasons = not_forwarding.filter_map(|it| it.reason.as_ref());
    notes.extend(reasons.map(|reason| format!("not ready: {reason}")));
    if instance.reload_failed {
        let failed =
            "the last reload failed, these are the rules from before: the log has the reason";
        notes.push(failed.into());
    }
    let left_out = instance.left_out.iter();
    notes.extend(left_out.map(|it| format!("{} is left out: {}", it.family, it.reason)));
    let options = instance.options.as_ref().map(options).unwrap_or_default();
    if !options.is_empty() {
        notes.push(format!("options: {}", options.join("; ")));
    }
    notes
}

/// The options that are not as by default, and how connections are balanced if they are.
fn options(options: &OptionsStatus) -> Vec<String> {
    let mut shown = Vec::new();
    if let Some(ranges) = &options.src_ranges {
        if !ranges.is_empty() {
            shown.push(format!("src-ranges {}", first_few(ranges.iter())));
        }
    }
    if options.listen != "local" {
        let entries: Vec<&str> = options.listen.split(',').collect();
        shown.push(format!("listen {}", first_few(entries.iter())));
    }
    let balance = options.balance.as_ref();
    shown.extend(balance.map(|balance| format!("balance {balance}")));
    let booleans = [
        ("output", options.output, false),
        ("masquerade", options.masquerade, true),
        ("fully-random", options.fully_random, true),
        ("clamp-mss", options.clamp_mss, false),
        ("hairpin", options.hairpin, false),
    ];
    let differing = booleans
        .iter()
        .filter(|(_, value, default)| value != default);
    shown.extend(differing.map(|(name, value, _)| format!("{name} {value}")));
    if !options.fast_path.is_empty() {
        shown.push(format!("fast-path {}", first_few(options.fast_path.iter())));
    }
    shown
}

fn heading(instance: &Instance, now: u64) -> String {
    // Any process can name a table like an instance's.
    let (name, table) = (Printable(&instance.name), Printable(&instance.table));
    let netns = instance
        .netns
        .as_ref()
        .map(|netns| format!(" in {}", Printable(netns)));
    let netns = netns.unwrap_or_default();
    let mut heading = format!("{name}{netns}: table inet {table}");
    if !instance.accepting {
        heading += ", accepts no new connections";
    }
    heading + &ownership(instance, now) + "\n"
}

fn ownership(instance: &Instance, now: u64) -> String {
    if !instance.running {
        return ", left by an instance that died: restart it to replace the table".into();
    }
    let Some(owner) = &instance.owner else {
        let holder = instance.holder.unwrap_or(Holder::Unseen);
        return format!(", without an owner; {holder} has its lock");
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
        first[HEADINGS.len() - 1] = forward.dropped.to_string();
    }
    rows
}

fn destination_row(destination: &DestinationStatus) -> [String; HEADINGS.len()] {
    let count = |count: Option<u64>| count.map_or("-".into(), |count| count.to_string());
    let connections = destination.listed.then_some(destination.connections);
    let note = match (destination.listed, destination.up) {
        (false, _) => " (not listed)",
        (true, Some(false)) => " (down)",
        _ => "",
    };
    let [forward, dropped] = Default::default();
    [
        forward,
        format!("{}{note}", destination.to),
        count(connections),
        count(destination.active),
        count(destination.unanswered),
        dropped,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{json, sample};
    use super::*;
    use crate::text::hostile::{any_name, is_hostile};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_of_any_kind_add_no_line(names in proptest::array::uniform4(any_name()), reason in any_name()) {
            let mut instances = sample::instances();
            let before = render(&instances, true, sample::SINCE).lines().count();
            for instance in &mut instances {
                [instance.name, instance.table] = [names[0].clone(), names[1].clone()];
                instance.netns = Some(names[2].clone());
                if let Some(owner) = &mut instance.owner {
                    owner.process = Some(names[3].clone());
                }
                for reasons in instance.forwarding.iter_mut().filter_map(|it| it.reason.as_mut()) {
                    *reasons = reason.clone();
                }
            }
            let text = render(&instances, true, sample::SINCE);
            prop_assert_eq!(text.lines().count(), before, "{}", text);
            let mut json = Vec::new();
            json::write(&instances, false, &mut json).unwrap();
            let json = String::from_utf8(json).unwrap();
            for shown in [&text, &json] {
                prop_assert!(!shown.replace('\n', "").contains(is_hostile), "{shown:?}");
            }
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            let first = &read["instances"][0];
            let found = [&first["name"], &first["table"], &first["netns"], &first["owner"]["process"]];
            prop_assert!(found.into_iter().zip(&names).all(|(found, name)| found == name), "{json}");
        }
    }

    #[test]
    fn columns_are_aligned() {
        let expected = "\
web: table inet nodefwd-web, owned by process 4242 (nodefwd) for 1h 1m
  not ready: IPv6 forwarding is off
  options: src-ranges 10.0.0.0/8, ::/0; listen 10.1.0.1, fd00::1; balance source; masquerade false; hairpin true; fast-path eth0, eth1
  FORWARD             TO                          CONNECTIONS  ACTIVE  UNANSWERED  DROPPED
  tcp/80 IPv4         10.2.0.11:8080                       12       3           1        5
                      10.2.0.12:8080 (down)                 0       0           0
                      10.2.0.9:8080 (not listed)            -       2           0
  tcp/8000-8100 IPv6  [fd00:2::11]:9-109               123456       -           -        0
  dropped as invalid: 2

odd\\u{1b}\" in pod\\n1: table inet nodefwd-odd\\u{1b}\", accepts no new connections, left by an instance that died: restart it to replace the table
  the last reload failed, these are the rules from before: the log has the reason
  IPv6 is left out: NODEFWD_LISTEN (--listen) has no IPv6 entry: no client can connect over IPv6
  its forwards are left out, as they are too many
";
        assert_eq!(
            render(&sample::instances(), false, sample::SINCE + 3661),
            expected
        );
    }

    #[test]
    fn without_an_instance_it_says_so() {
        assert_eq!(
            render(&[], false, 0),
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
