//! The status in JSON, for programs. `nodefwd status --help` shows its shape; fields may be added,
//! but none is renamed or taken away, and none changes its type.

use super::Instance;
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    instances: &'a [Instance],
}

/// Writes the instances.
pub fn render(instances: &[Instance]) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&Document { instances })?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_stays_as_it_is() {
        let expected = json!({
            "instances": [
                {
                    "name": "web",
                    "table": "nodefwd-web",
                    "open": true,
                    "listen": ["10.1.0.1", "fd00::1"],
                    "owner": {"port": 4242, "pid": 4242, "process": "nodefwd", "since": 1700000000},
                    "forwards": [
                        {
                            "protocol": "tcp",
                            "family": "ipv4",
                            "ports": {"first": 80, "last": 80},
                            "denied": 5,
                            "destinations": [
                                {
                                    "to": {"address": "10.2.0.11", "ports": {"first": 8080, "last": 8080}},
                                    "taken": 12,
                                    "flows": 3,
                                },
                                {
                                    "to": {"address": "10.2.0.12", "ports": {"first": 8080, "last": 8080}},
                                    "taken": 0,
                                    "flows": 0,
                                },
                            ],
                        },
                        {
                            "protocol": "tcp",
                            "family": "ipv6",
                            "ports": {"first": 8000, "last": 8100},
                            "denied": 0,
                            "destinations": [
                                {
                                    "to": {"address": "fd00:2::11", "ports": {"first": 9, "last": 109}},
                                    "taken": 123456,
                                    "flows": null,
                                },
                            ],
                        },
                    ],
                },
                {
                    "name": "odd\u{1b}\"",
                    "table": "nodefwd-odd\u{1b}\"",
                    "open": false,
                    "listen": [],
                    "owner": null,
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
