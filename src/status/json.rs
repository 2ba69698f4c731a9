//! The status in JSON, for programs. `nodefwd status --help` shows its shape. Fields may be added; one that
//! is renamed, removed or changes its type raises [`SCHEMA`].

use super::Instance;
use crate::text::PrintableJson;
use serde::Serialize;
use std::io::{self, Write};

const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    instances: &'a [Instance],
}

/// Writes the instances; on one line for JSON Lines (<https://jsonlines.org>).
pub fn write(instances: &[Instance], one_line: bool, out: &mut dyn Write) -> io::Result<()> {
    let schema = SCHEMA;
    let document = Document { schema, instances };
    let mut printable = PrintableJson(out);
    if one_line {
        serde_json::to_writer(&mut printable, &document)?;
    } else {
        serde_json::to_writer_pretty(&mut printable, &document)?;
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_stays_as_it_is() {
        let expected = json!({
            "schema": 1,
            "instances": [
                {
                    "netns": null,
                    "name": "web",
                    "table": "nodefwd-web",
                    "running": true,
                    "accepting": true,
                    "reload_failed": false,
                    "options": {
                        "src_ranges": ["10.0.0.0/8", "::/0"],
                        "listen": "10.1.0.1,fd00::1",
                        "balance": "source",
                        "output": false,
                        "masquerade": false,
                        "fully_random": true,
                        "clamp_mss": false,
                        "hairpin": true,
                        "fast_path": ["eth0", "eth1"],
                    },
                    "left_out": [],
                    "listen": ["10.1.0.1", "fd00::1"],
                    "interfaces": [],
                    "owner": {"portid": 4242, "pid": 4242, "process": "nodefwd", "since": 1700000000},
                    "invalid": 2,
                    "forwarding": [
                        {"family": "ipv4", "on": true, "reason": null},
                        {"family": "ipv6", "on": false, "reason": "IPv6 forwarding is off"},
                    ],
                    "truncated": false,
                    "forwards": [
                        {
                            "protocol": "tcp",
                            "family": "ipv4",
                            "ports": {"first": 80, "last": 80},
                            "dropped": 5,
                            "destinations": [
                                {
                                    "to": {"address": "10.2.0.11", "ports": {"first": 8080, "last": 8080}},
                                    "listed": true,
                                    "connections": 12,
                                    "active": 3,
                                    "unanswered": 1,
                                    "up": true,
                                },
                                {
                                    "to": {"address": "10.2.0.12", "ports": {"first": 8080, "last": 8080}},
                                    "listed": true,
                                    "connections": 0,
                                    "active": 0,
                                    "unanswered": 0,
                                    "up": false,
                                },
                                {
                                    "to": {"address": "10.2.0.9", "ports": {"first": 8080, "last": 8080}},
                                    "listed": false,
                                    "connections": 0,
                                    "active": 2,
                                    "unanswered": 0,
                                    "up": null,
                                },
                            ],
                        },
                        {
                            "protocol": "tcp",
                            "family": "ipv6",
                            "ports": {"first": 8000, "last": 8100},
                            "dropped": 0,
                            "destinations": [
                                {
                                    "to": {"address": "fd00:2::11", "ports": {"first": 9, "last": 109}},
                                    "listed": true,
                                    "connections": 123456,
                                    "active": null,
                                    "unanswered": null,
                                    "up": null,
                                },
                            ],
                        },
                    ],
                },
                {
                    "netns": "pod\n1",
                    "name": "odd\u{1b}\"",
                    "table": "nodefwd-odd\u{1b}\"",
                    "running": false,
                    "accepting": false,
                    "reload_failed": true,
                    "options": null,
                    "left_out": [{
                        "family": "ipv6",
                        "reason": "NODEFWD_LISTEN (--listen) has no IPv6 entry: no client can connect over IPv6",
                    }],
                    "listen": [],
                    "interfaces": ["eth1"],
                    "owner": null,
                    "invalid": 0,
                    "forwarding": [],
                    "truncated": true,
                    "forwards": [],
                },
            ],
        });
        for one_line in [false, true] {
            let mut written = Vec::new();
            write(&sample::instances(), one_line, &mut written).unwrap();
            let written = String::from_utf8(written).unwrap();
            let read: serde_json::Value = serde_json::from_str(&written).unwrap();
            assert_eq!(read, expected);
            assert!(written.ends_with("}\n"));
            assert_eq!(written.lines().count() == 1, one_line);
        }
    }
}
