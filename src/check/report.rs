//! What a check found, for people and for programs.

use crate::text::{Printable, printable_json};
use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use env_logger::fmt::style::{AnsiColor, Style};
use serde::Serialize;
use std::io::{self, Write};

/// How the findings are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// A line for each, for people
    #[default]
    Text,
    /// For programs
    Json,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    #[serde(rename = "ok")]
    Ok,
    /// Something may be wrong: check does not know all that matters.
    #[serde(rename = "warning")]
    Doubt,
    /// Something was not looked at.
    #[serde(rename = "warning")]
    Unseen,
    /// Something is wrong, but connections are forwarded.
    #[serde(rename = "warning")]
    Warning,
    /// Connections are not forwarded, or not all.
    #[serde(rename = "failure")]
    Failure,
}

/// What a check found, on one line, with the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub subject: &'static str,
    /// The instance that it is about; `None` if what was looked at does not run.
    pub instance: Option<String>,
    pub text: String,
    /// The command at the end of the text.
    pub command: Option<String>,
}

impl Finding {
    /// Without a command.
    pub fn new(level: Level, subject: &'static str, text: impl Into<String>) -> Self {
        Finding {
            level,
            subject,
            instance: None,
            text: text.into(),
            command: None,
        }
    }

    /// With the command that mends it, after the words that lead up to it, if there is one.
    pub fn mended(self, how: &str, command: Option<String>) -> Self {
        let text = match &command {
            Some(command) => {
                format!("{}{}{how}: {command}", self.text, at_later_boots(command))
            }
            None => self.text,
        };
        Finding {
            text,
            command,
            ..self
        }
    }
}

/// What keeps a setting that a command makes only until the next boot.
fn at_later_boots(command: &str) -> String {
    let settings = command.strip_prefix("sysctl -w ");
    settings.map_or(String::new(), |settings| {
        let lines = settings.replace(' ', " and ");
        format!("; for later boots, write {lines} to a file in /etc/sysctl.d")
    })
}

const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    findings: &'a [Finding],
}

/// Writes the findings to standard output.
pub fn print(findings: &[Finding], format: CheckFormat) -> io::Result<()> {
    let text = match format {
        // On a terminal only, and not with NO_COLOR: as logging has it.
        CheckFormat::Text => {
            let choice = AutoStream::choice(&io::stdout());
            lines(findings, choice != ColorChoice::Never)
        }
        CheckFormat::Json => json(findings)?,
    };
    io::stdout().write_all(text.as_bytes())
}

/// `nodefwd check --help` shows its shape. Fields may be added; one that is renamed, removed or changes its
/// type raises [`SCHEMA`].
fn json(findings: &[Finding]) -> serde_json::Result<String> {
    let schema = SCHEMA;
    let text = serde_json::to_string_pretty(&Document { schema, findings })?;
    Ok(printable_json(&text).into_owned() + "\n")
}

/// A line for each. Where there are several instances, it names the one that it is about.
fn lines(findings: &[Finding], coloured: bool) -> String {
    let mut instances: Vec<&str> = findings
        .iter()
        .filter_map(|f| f.instance.as_deref())
        .collect();
    instances.dedup();
    let mut lines = String::new();
    for finding in findings {
        let (word, colour) = match finding.level {
            Level::Ok => ("ok", AnsiColor::Green),
            Level::Doubt | Level::Unseen | Level::Warning => ("warning", AnsiColor::Yellow),
            Level::Failure => ("failure", AnsiColor::Red),
        };
        let style = if coloured {
            colour.on_default()
        } else {
            Style::new()
        };
        let instance = match &finding.instance {
            Some(instance) if instances.len() > 1 => format!("{instance}: "),
            _ => String::new(),
        };
        let Finding { subject, text, .. } = finding;
        let text = Printable(text);
        lines += &format!("{style}{word}:{style:#} {subject}: {instance}{text}\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::hostile::{any_name, is_hostile};
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn whatever_is_found_is_a_line_each(texts in proptest::collection::vec(any_name(), 1..4)) {
            let finding = |text: &String| Finding::new(Level::Failure, "routes", text.clone());
            let findings: Vec<Finding> = texts.iter().map(finding).collect();
            let text = lines(&findings, false);
            prop_assert_eq!(text.lines().count(), findings.len());
            let json = json(&findings).unwrap();
            for shown in [&text, &json] {
                prop_assert!(!shown.replace('\n', "").contains(is_hostile), "{shown:?}");
            }
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            for (index, text) in texts.iter().enumerate() {
                prop_assert_eq!(&read["findings"][index]["text"], text);
            }
        }
    }

    #[test]
    fn the_schema_stays_as_it_is() {
        let mended = Finding::new(Level::Failure, "routes", "none");
        let mended = mended.mended(": add one with", Some("ip r".into()));
        let about = Finding {
            instance: Some("web".into()),
            ..Finding::new(Level::Unseen, "firewall", "not looked at: all")
        };
        let written = json(&[mended, about]).unwrap();
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        let expected = json!({
            "schema": 1,
            "findings": [
                {
                    "level": "failure",
                    "subject": "routes",
                    "instance": null,
                    "text": "none: add one with: ip r",
                    "command": "ip r",
                },
                {
                    "level": "warning",
                    "subject": "firewall",
                    "instance": "web",
                    "text": "not looked at: all",
                    "command": null,
                },
            ],
        });
        assert_eq!(read, expected);
    }
}
