//! The status in Prometheus' text exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::{DestinationStatus, ForwardStatus, Instance};
use crate::config::{Family, Service};
use crate::text::Printable;
use std::collections::HashSet;
use std::fmt::Write;
use std::io;

/// A metric: name, type, and help.
type Metric = (&'static str, &'static str, &'static str);

const BUILD: Metric = (
    "nodefwd_build_info",
    "gauge",
    "The version of the program that wrote this, always 1.",
);
const INSTANCES: Metric = (
    "nodefwd_instances",
    "gauge",
    "How many instances have their rules in the kernel.",
);
const INSTANCE: Metric = (
    "nodefwd_instance_info",
    "gauge",
    "Instances whose rules are in the kernel, always 1.",
);
const RUNNING: Metric = (
    "nodefwd_instance_running",
    "gauge",
    "Whether the instance runs; 0 if it died and has left its rules, as it can before Linux 5.12.",
);
const ACCEPTING: Metric = (
    "nodefwd_instance_accepting",
    "gauge",
    "Whether the instance accepts new connections; 0 while it drains.",
);
const FORWARDING: Metric = (
    "nodefwd_instance_forwarding",
    "gauge",
    "Whether this host forwards a family that the instance has forwards of.",
);
const START: Metric = (
    "nodefwd_instance_start_time_seconds",
    "gauge",
    "When the process of the instance started, in seconds since 1970.",
);
const CONNECTIONS: Metric = (
    "nodefwd_connections_total",
    "counter",
    "Connections forwarded to a destination. The kernel counts their first packets only, so neither these \
     packets nor their bytes are the traffic.",
);
const ACTIVE: Metric = (
    "nodefwd_conntrack_entries",
    "gauge",
    "Conntrack entries of connections to a destination, also of one that is no longer listed.",
);
const UNANSWERED: Metric = (
    "nodefwd_conntrack_entries_unanswered",
    "gauge",
    "Those of them that have had no packet from the destination.",
);
const UP: Metric = (
    "nodefwd_destination_up",
    "gauge",
    "Whether a destination that is tried answers (NODEFWD_HEALTH).",
);
const DROPPED: Metric = (
    "nodefwd_dropped_packets_total",
    "counter",
    "First packets of connections from sources that may not connect; each retry counts. Not their traffic.",
);
const INVALID: Metric = (
    "nodefwd_invalid_packets_total",
    "counter",
    "Packets of forwarded connections that were dropped because conntrack found them invalid.",
);
const RELOADED: Metric = (
    "nodefwd_last_reload_successful",
    "gauge",
    "1 unless the file of options was refused when it was read again last.",
);

/// Writes the instances, grouped by metric as the format wants it.
pub fn write(instances: &[Instance], out: &mut dyn io::Write) -> io::Result<()> {
    let forwards = || {
        instances.iter().flat_map(|instance| {
            let pair = move |forward| (instance, forward);
            instance.forwards.iter().map(pair)
        })
    };
    let destinations = || {
        forwards().flat_map(|(instance, forward)| {
            forward.destinations.iter().map(move |destination| {
                let to = destination.to.to_string();
                (forward_labels(instance, forward, Some(&to)), destination)
            })
        })
    };
    let version = concat!(
        "version=\"",
        env!("CARGO_PKG_VERSION"),
        "\",revision=\"",
        env!("NODEFWD_REVISION"),
        "\""
    );
    let build = [(version.to_owned(), 1)];
    let count = [(String::new(), instances.len() as u64)];
    let of_each = |value: fn(&Instance) -> u64| {
        let sample = move |instance| (instance_labels(instance, &[]), value(instance));
        instances.iter().map(sample)
    };
    let mut forwarding = instances.iter().flat_map(|instance| {
        instance.forwarding.iter().map(move |status| {
            let family = family_label(status.family);
            let labels = instance_labels(instance, &[("family", &family)]);
            (labels, status.on.into())
        })
    });
    let mut start = instances.iter().filter_map(|instance| {
        let since = instance.owner.as_ref()?.since?;
        Some((instance_labels(instance, &[]), since))
    });
    let mut connections = destinations()
        .filter(|(_, destination)| destination.listed)
        .map(|(labels, destination)| (labels, destination.connections));
    let of_destinations = |value: fn(&DestinationStatus) -> Option<u64>| {
        destinations().filter_map(move |(labels, to)| Some((labels, value(to)?)))
    };
    let mut dropped = forwards()
        .map(|(instance, forward)| (forward_labels(instance, forward, None), forward.dropped));
    metric(out, BUILD, &mut build.into_iter())?;
    metric(out, INSTANCES, &mut count.into_iter())?;
    metric(out, INSTANCE, &mut of_each(|_| 1))?;
    metric(out, RUNNING, &mut of_each(|one| one.running.into()))?;
    metric(out, ACCEPTING, &mut of_each(|one| one.accepting.into()))?;
    metric(out, FORWARDING, &mut forwarding)?;
    metric(out, START, &mut start)?;
    metric(out, CONNECTIONS, &mut connections)?;
    metric(out, ACTIVE, &mut of_destinations(|to| to.active))?;
    metric(out, UNANSWERED, &mut of_destinations(|to| to.unanswered))?;
    metric(out, UP, &mut of_destinations(|to| to.up.map(u64::from)))?;
    metric(out, DROPPED, &mut dropped)?;
    metric(out, INVALID, &mut of_each(|one| one.invalid))?;
    metric(
        out,
        RELOADED,
        &mut of_each(|one| (!one.reload_failed).into()),
    )
}

/// Writes one metric with its samples, or nothing if there are none. Of samples with the same labels, of which a
/// reader of the format refuses all, the first: in a table that no instance has made, two forwards may be the same.
fn metric(
    out: &mut dyn io::Write,
    (name, kind, help): Metric,
    samples: &mut dyn Iterator<Item = (String, u64)>,
) -> io::Result<()> {
    let mut seen = HashSet::new();
    for (labels, value) in samples {
        if seen.contains(&labels) {
            continue;
        }
        if seen.is_empty() {
            write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n")?;
        }
        match labels.as_str() {
            "" => writeln!(out, "{name} {value}")?,
            labels => writeln!(out, "{name}{{{labels}}} {value}")?,
        }
        seen.insert(labels);
    }
    Ok(())
}

fn forward_labels(instance: &Instance, forward: &ForwardStatus, to: Option<&str>) -> String {
    let Service {
        family,
        protocol,
        ports,
    } = forward.service;
    let (protocol, ports) = (protocol.to_string(), ports.to_string());
    let family = family_label(family);
    let mut labels = vec![
        ("protocol", protocol.as_str()),
        ("ports", &ports),
        ("family", &family),
    ];
    labels.extend(to.map(|to| ("destination", to)));
    instance_labels(instance, &labels)
}

fn family_label(family: Family) -> String {
    family.to_string().to_ascii_lowercase()
}

fn instance_labels(instance: &Instance, more: &[(&str, &str)]) -> String {
    let mut labels = format!("forwarder=\"{}\"", escaped(&instance.name));
    let netns = instance.netns.as_deref().map(|netns| ("netns", netns));
    for (label, value) in netns.iter().chain(more) {
        // Writing to a string cannot fail.
        let _ = write!(labels, ",{label}=\"{}\"", escaped(value));
    }
    labels
}

/// What the format escapes, and before that what it leaves as it is and a terminal obeys.
fn escaped(value: &str) -> String {
    let lines = value.split('\n').map(|line| {
        let line = Printable(line).to_string();
        line.replace('\\', "\\\\").replace('"', "\\\"")
    });
    lines.collect::<Vec<_>>().join("\\n")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::text::hostile::{any_name, is_hostile};
    use proptest::array::uniform3;
    use proptest::prelude::*;

    fn render(instances: &[Instance]) -> String {
        let mut metrics = Vec::new();
        write(instances, &mut metrics).expect("nothing fails");
        String::from_utf8(metrics).expect("text")
    }

    /// The name and the labels of a sample, as a reader of the format takes them apart, and what is left.
    fn sample(line: &str) -> (String, Vec<(String, String)>, &str) {
        let end = line.find(['{', ' ']).expect("a name");
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        while let Some(label) = rest.strip_prefix(['{', ',']) {
            let (label, value) = label.split_once("=\"").expect("a label");
            let mut characters = value.chars();
            let mut text = String::new();
            loop {
                match characters.next().expect("the end of a value") {
                    '"' => break,
                    '\\' => match characters.next().expect("an escape") {
                        'n' => text.push('\n'),
                        c @ ('\\' | '"') => text.push(c),
                        c => panic!("no escape: {c:?}"),
                    },
                    c => text.push(c),
                }
            }
            labels.push((label.to_owned(), text));
            rest = characters.as_str();
        }
        let rest = rest.strip_prefix('}').unwrap_or(rest);
        (name.to_owned(), labels, rest)
    }

    proptest! {
        #[test]
        fn names_of_any_kind_are_labels_of_one_sample_each(name in any_name(), names in uniform3(any_name())) {
            let mut instances = sample::instances();
            let comments = |metrics: &str| -> Vec<String> {
                let comments = metrics.lines().filter(|line| line.starts_with("# "));
                comments.map(str::to_owned).collect()
            };
            let known = comments(&render(&instances));
            instances.push(instances[0].clone());
            for ((index, instance), netns) in instances.iter_mut().enumerate().zip(names) {
                instance.name = name.clone();
                // Those that look the same have a number.
                instance.netns = Some(format!("{index}{netns}"));
                // As a table that no instance has made may have them.
                instance.forwards.extend(instance.forwards.clone());
            }
            let metrics = render(&instances);
            prop_assert!(!metrics.replace('\n', "").contains(is_hostile), "{metrics:?}");
            prop_assert_eq!(comments(&metrics), known);
            let mut samples = HashSet::new();
            for line in metrics.lines().filter(|line| !line.starts_with("# ")) {
                let (name, labels, value) = sample(line);
                prop_assert!(value.trim_start().parse::<u64>().is_ok(), "{line:?}");
                prop_assert!(samples.insert((name, labels)), "{line:?} is there twice");
            }
            let infos = samples.iter().filter(|(name, _)| name == INSTANCE.0);
            prop_assert_eq!(infos.count(), 3);
        }
    }

    #[test]
    fn metrics_are_grouped_and_labels_escaped() {
        let expected = r#"# HELP nodefwd_build_info The version of the program that wrote this, always 1.
# TYPE nodefwd_build_info gauge
BUILD
# HELP nodefwd_instances How many instances have their rules in the kernel.
# TYPE nodefwd_instances gauge
nodefwd_instances 2
# HELP nodefwd_instance_info Instances whose rules are in the kernel, always 1.
# TYPE nodefwd_instance_info gauge
nodefwd_instance_info{forwarder="web"} 1
nodefwd_instance_info{forwarder="odd\\u{1b}\"",netns="pod\n1"} 1
# HELP nodefwd_instance_running Whether the instance runs; 0 if it died and has left its rules, as it can before Linux 5.12.
# TYPE nodefwd_instance_running gauge
nodefwd_instance_running{forwarder="web"} 1
nodefwd_instance_running{forwarder="odd\\u{1b}\"",netns="pod\n1"} 0
# HELP nodefwd_instance_accepting Whether the instance accepts new connections; 0 while it drains.
# TYPE nodefwd_instance_accepting gauge
nodefwd_instance_accepting{forwarder="web"} 1
nodefwd_instance_accepting{forwarder="odd\\u{1b}\"",netns="pod\n1"} 0
# HELP nodefwd_instance_forwarding Whether this host forwards a family that the instance has forwards of.
# TYPE nodefwd_instance_forwarding gauge
nodefwd_instance_forwarding{forwarder="web",family="ipv4"} 1
nodefwd_instance_forwarding{forwarder="web",family="ipv6"} 0
# HELP nodefwd_instance_start_time_seconds When the process of the instance started, in seconds since 1970.
# TYPE nodefwd_instance_start_time_seconds gauge
nodefwd_instance_start_time_seconds{forwarder="web"} 1700000000
# HELP nodefwd_connections_total Connections forwarded to a destination. The kernel counts their first packets only, so neither these packets nor their bytes are the traffic.
# TYPE nodefwd_connections_total counter
nodefwd_connections_total{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.11:8080"} 12
nodefwd_connections_total{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.12:8080"} 0
nodefwd_connections_total{forwarder="web",protocol="tcp",ports="8000-8100",family="ipv6",destination="[fd00:2::11]:9-109"} 123456
# HELP nodefwd_conntrack_entries Conntrack entries of connections to a destination, also of one that is no longer listed.
# TYPE nodefwd_conntrack_entries gauge
nodefwd_conntrack_entries{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.11:8080"} 3
nodefwd_conntrack_entries{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.12:8080"} 0
nodefwd_conntrack_entries{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.9:8080"} 2
# HELP nodefwd_conntrack_entries_unanswered Those of them that have had no packet from the destination.
# TYPE nodefwd_conntrack_entries_unanswered gauge
nodefwd_conntrack_entries_unanswered{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.11:8080"} 1
nodefwd_conntrack_entries_unanswered{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.12:8080"} 0
nodefwd_conntrack_entries_unanswered{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.9:8080"} 0
# HELP nodefwd_destination_up Whether a destination that is tried answers (NODEFWD_HEALTH).
# TYPE nodefwd_destination_up gauge
nodefwd_destination_up{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.11:8080"} 1
nodefwd_destination_up{forwarder="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.12:8080"} 0
# HELP nodefwd_dropped_packets_total First packets of connections from sources that may not connect; each retry counts. Not their traffic.
# TYPE nodefwd_dropped_packets_total counter
nodefwd_dropped_packets_total{forwarder="web",protocol="tcp",ports="80",family="ipv4"} 5
nodefwd_dropped_packets_total{forwarder="web",protocol="tcp",ports="8000-8100",family="ipv6"} 0
# HELP nodefwd_invalid_packets_total Packets of forwarded connections that were dropped because conntrack found them invalid.
# TYPE nodefwd_invalid_packets_total counter
nodefwd_invalid_packets_total{forwarder="web"} 2
nodefwd_invalid_packets_total{forwarder="odd\\u{1b}\"",netns="pod\n1"} 0
# HELP nodefwd_last_reload_successful 1 unless the file of options was refused when it was read again last.
# TYPE nodefwd_last_reload_successful gauge
nodefwd_last_reload_successful{forwarder="web"} 1
nodefwd_last_reload_successful{forwarder="odd\\u{1b}\"",netns="pod\n1"} 0
"#;
        assert_eq!(without_build(&render(&sample::instances())), expected);
    }

    /// The build differs from one commit to the next.
    fn without_build(metrics: &str) -> String {
        let lines = metrics.lines().map(|line| {
            let version = concat!("nodefwd_build_info{version=\"", env!("CARGO_PKG_VERSION"));
            let is_build = line.starts_with(version) && line.ends_with("\"} 1");
            if is_build {
                "BUILD\n".to_owned()
            } else {
                format!("{line}\n")
            }
        });
        lines.collect()
    }

    #[test]
    fn without_an_instance_there_are_the_build_and_a_zero() {
        let metrics = render(&[]);
        let samples: Vec<&str> = metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert_eq!(samples.len(), 2, "{metrics}");
        assert_eq!(samples[1], "nodefwd_instances 0");
    }

    #[test]
    fn escapes_what_the_format_escapes() {
        assert_eq!(escaped("a\\b\"c\nd"), r#"a\\b\"c\nd"#);
    }
}
