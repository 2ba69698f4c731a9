//! The status in Prometheus' text exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::{ForwardStatus, Instance};
use crate::config::{Family, Service};
use crate::text::Printable;
use std::fmt::Write;

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
pub fn render(instances: &[Instance]) -> String {
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
    let build = [(version.to_owned(), 1)].into_iter();
    let count = [(String::new(), instances.len() as u64)].into_iter();
    let info = instances
        .iter()
        .map(|instance| (instance_labels(instance, &[]), 1));
    let accepting = instances
        .iter()
        .map(|instance| (instance_labels(instance, &[]), instance.accepting.into()));
    let forwarding = instances.iter().flat_map(|instance| {
        instance.forwarding.iter().map(move |status| {
            let family = family_label(status.family);
            let labels = instance_labels(instance, &[("family", &family)]);
            (labels, status.on.into())
        })
    });
    let start = instances.iter().filter_map(|instance| {
        let since = instance.owner.as_ref()?.since?;
        Some((instance_labels(instance, &[]), since))
    });
    let connections = destinations()
        .filter(|(_, destination)| destination.listed)
        .map(|(labels, destination)| (labels, destination.connections));
    let active =
        destinations().filter_map(|(labels, destination)| Some((labels, destination.active?)));
    let unanswered =
        destinations().filter_map(|(labels, destination)| Some((labels, destination.unanswered?)));
    let up = destinations().filter_map(|(labels, to)| Some((labels, to.up?.into())));
    let dropped = forwards()
        .map(|(instance, forward)| (forward_labels(instance, forward, None), forward.dropped));
    let invalid = instances
        .iter()
        .map(|instance| (instance_labels(instance, &[]), instance.invalid));
    let reloaded = instances.iter().map(|instance| {
        (
            instance_labels(instance, &[]),
            u64::from(!instance.reload_failed),
        )
    });
    [
        metric(BUILD, build),
        metric(INSTANCES, count),
        metric(INSTANCE, info),
        metric(ACCEPTING, accepting),
        metric(FORWARDING, forwarding),
        metric(START, start),
        metric(CONNECTIONS, connections),
        metric(ACTIVE, active),
        metric(UNANSWERED, unanswered),
        metric(UP, up),
        metric(DROPPED, dropped),
        metric(INVALID, invalid),
        metric(RELOADED, reloaded),
    ]
    .concat()
}

/// One metric with its samples; empty if there are none.
fn metric((name, kind, help): Metric, samples: impl Iterator<Item = (String, u64)>) -> String {
    let mut lines = String::new();
    for (labels, value) in samples {
        // Writing to a string cannot fail.
        let _ = match labels.as_str() {
            "" => writeln!(lines, "{name} {value}"),
            labels => writeln!(lines, "{name}{{{labels}}} {value}"),
        };
    }
    if lines.is_empty() {
        return lines;
    }
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}")
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
