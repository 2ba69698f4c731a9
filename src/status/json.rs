//! The status in JSON, for programs. `nodefwd status --help` shows its shape. Fields may be added; one that
//! is renamed, removed or changes its type raises [`SCHEMA`].

use super::Instance;
use crate::text::printable_json;
use serde::Serialize;

const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    instances: &'a [Instance],
}

/// Writes the instances.
pub fn render(instances: &[Instance]) -> Result<String, serde_json::Error> {
    let schema = SCHEMA;
    let mut text = serde_json::to_string_pretty(&Document { schema, instances })?;
    text.push('\n');
    Ok(printable_json(&text))
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
                    "name": "web",
                    "table": "nodefwd-web",
                    "accepting": true,
                    "reload_failed": false,
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
                                    "connections": 12,
                                    "active": 3,
                                    "up": true,
                                },
                                {
                                    "to": {"address": "10.2.0.12", "ports": {"first": 8080, "last": 8080}},
                                    "connections": 0,
                                    "active": 0,
                                    "up": false,
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
                                    "connections": 123456,
                                    "active": null,
                                    "up": null,
                                },
                            ],
                        },
                    ],
                },
                {
                    "name": "odd\u{1b}\"",
                    "table": "nodefwd-odd\u{1b}\"",
                    "accepting": false,
                    "reload_failed": true,
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
        let written = render(&sample::instances()).unwrap();
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read, expected);
        assert!(written.ends_with("}\n"));
    }
}
