//! The status in Prometheus' text exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::{ForwardStatus, Instance};
use std::fmt::Write;

/// A metric: name, type, and help.
type Metric = (&'static str, &'static str, &'static str);

const INSTANCE: Metric = (
    "nodefwd_instance_info",
    "gauge",
    "Instances whose rules are in the kernel, always 1.",
);
const OPEN: Metric = (
    "nodefwd_instance_open",
    "gauge",
    "Whether the instance takes new connections; 0 while it drains.",
);
const START: Metric = (
    "nodefwd_instance_start_time_seconds",
    "gauge",
    "When the process of the instance started, in seconds since 1970.",
);
const TAKEN: Metric = (
    "nodefwd_connections_total",
    "counter",
    "Connections forwarded to a destination.",
);
const FLOWS: Metric = (
    "nodefwd_flows",
    "gauge",
    "Connections to a destination that the kernel tracks now.",
);
const DENIED: Metric = (
    "nodefwd_denied_packets_total",
    "counter",
    "First packets of connections from sources that may not connect; each retry counts.",
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
    let info = instances
        .iter()
        .map(|instance| (instance_labels(instance, &[]), 1));
    let open = instances
        .iter()
        .map(|instance| (instance_labels(instance, &[]), instance.open.into()));
    let start = instances.iter().filter_map(|instance| {
        let since = instance.owner.as_ref()?.since?;
        Some((instance_labels(instance, &[]), since))
    });
    let taken = destinations().map(|(labels, destination)| (labels, destination.taken));
    let flows =
        destinations().filter_map(|(labels, destination)| Some((labels, destination.flows?)));
    let denied = forwards()
        .map(|(instance, forward)| (forward_labels(instance, forward, None), forward.denied));
    [
        metric(INSTANCE, info),
        metric(OPEN, open),
        metric(START, start),
        metric(TAKEN, taken),
        metric(FLOWS, flows),
        metric(DENIED, denied),
    ]
    .concat()
}

/// One metric with its samples; nothing if there are none.
fn metric((name, kind, help): Metric, samples: impl Iterator<Item = (String, u64)>) -> String {
    let mut lines = String::new();
    for (labels, value) in samples {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{name}{{{labels}}} {value}");
    }
    match lines.is_empty() {
        true => lines,
        false => format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}"),
    }
}

fn forward_labels(instance: &Instance, forward: &ForwardStatus, to: Option<&str>) -> String {
    let (protocol, ports) = (forward.protocol.to_string(), forward.ports.to_string());
    let family = forward.family.to_string().to_ascii_lowercase();
    let mut labels = vec![
        ("protocol", protocol.as_str()),
        ("ports", &ports),
        ("family", &family),
    ];
    labels.extend(to.map(|to| ("destination", to)));
    instance_labels(instance, &labels)
}

fn instance_labels(instance: &Instance, more: &[(&str, &str)]) -> String {
    let mut labels = format!("instance=\"{}\"", escaped(&instance.name));
    for (label, value) in more {
        // Writing to a string cannot fail.
        let _ = write!(labels, ",{label}=\"{}\"", escaped(value));
    }
    labels
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn metrics_are_grouped_and_labels_escaped() {
        let expected = r#"# HELP nodefwd_instance_info Instances whose rules are in the kernel, always 1.
# TYPE nodefwd_instance_info gauge
nodefwd_instance_info{instance="web"} 1
nodefwd_instance_info{instance="odd@\""} 1
# HELP nodefwd_instance_open Whether the instance takes new connections; 0 while it drains.
# TYPE nodefwd_instance_open gauge
nodefwd_instance_open{instance="web"} 1
nodefwd_instance_open{instance="odd@\""} 0
# HELP nodefwd_instance_start_time_seconds When the process of the instance started, in seconds since 1970.
# TYPE nodefwd_instance_start_time_seconds gauge
nodefwd_instance_start_time_seconds{instance="web"} 1700000000
# HELP nodefwd_connections_total Connections forwarded to a destination.
# TYPE nodefwd_connections_total counter
nodefwd_connections_total{instance="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.11:8080"} 12
nodefwd_connections_total{instance="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.12:8080"} 0
nodefwd_connections_total{instance="web",protocol="tcp",ports="8000-8100",family="ipv6",destination="[fd00:2::11]:9-109"} 123456
# HELP nodefwd_flows Connections to a destination that the kernel tracks now.
# TYPE nodefwd_flows gauge
nodefwd_flows{instance="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.11:8080"} 3
nodefwd_flows{instance="web",protocol="tcp",ports="80",family="ipv4",destination="10.2.0.12:8080"} 0
# HELP nodefwd_denied_packets_total First packets of connections from sources that may not connect; each retry counts.
# TYPE nodefwd_denied_packets_total counter
nodefwd_denied_packets_total{instance="web",protocol="tcp",ports="80",family="ipv4"} 5
nodefwd_denied_packets_total{instance="web",protocol="tcp",ports="8000-8100",family="ipv6"} 0
"#;
        let expected = expected.replace('@', "\x1b");
        assert_eq!(render(&sample::instances()), expected);
    }

    #[test]
    fn escapes_what_the_format_escapes() {
        assert_eq!(escaped("a\\b\"c\nd"), r#"a\\b\"c\nd"#);
        assert_eq!(render(&[]), "");
    }
}
