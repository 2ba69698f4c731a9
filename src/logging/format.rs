//! How a line of the log looks: for people, for the journal, or as JSON.

use super::stderr;
use crate::text::{Printable, printable_json};
use env_logger::fmt::style::Style;
use log::Level;
use log::kv::{Error, Key, Source, Value, VisitSource};
use std::fmt::{Display, Write};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::{env, time::SystemTime};
use thiserror::Error;

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `warning: …`
    #[default]
    Text,
    /// One object on each line.
    Json,
}

/// A word that names no format.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is no format of the log: use text or json")]
pub struct LogFormatError;

impl FromStr for LogFormat {
    type Err = LogFormatError;

    fn from_str(word: &str) -> Result<Self, LogFormatError> {
        match word {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(LogFormatError),
        }
    }
}

/// The format, and whether the journal reads it.
static SHAPE: OnceLock<(LogFormat, bool)> = OnceLock::new();

/// Sets the format. To be called once.
pub fn set(format: LogFormat) {
    let _ = SHAPE.set((format, goes_to_journal()));
}

/// Whether standard error is the journal's own socket, as systemd names it (JOURNAL_STREAM in
/// systemd.exec(5)), and not what a process in between has put there.
fn goes_to_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    let is = |(device, inode): (&str, &str)| {
        let file = stderr::metadata().ok()?;
        Some(device.parse() == Ok(file.dev()) && inode.parse() == Ok(file.ino()))
    };
    stream.split_once(':').and_then(is).unwrap_or(false)
}

/// A line with its end.
pub fn line(level: Level, message: impl Display, fields: &dyn Source, colour: Style) -> String {
    let (format, to_journal) = SHAPE.get().copied().unwrap_or_default();
    let mut line = String::new();
    if to_journal {
        line += priority(level);
    }
    match format {
        LogFormat::Json => line += &json(level, &message.to_string(), fields),
        LogFormat::Text => {
            let message = Printable(message);
            // Writing to a string cannot fail.
            let _ = match level {
                Level::Info => write!(line, "{message}"),
                level => write!(line, "{colour}{}:{colour:#} {message}", label(level)),
            };
        }
    }
    line.push('\n');
    line
}

/// The line that says how many are missing.
pub fn lost(lines: usize) -> String {
    let message = match lines {
        1 => "1 line of this log is missing, as it could not be written".to_owned(),
        _ => format!("{lines} lines of this log are missing, as they could not be written"),
    };
    line(Level::Warn, message, &("lines", lines), Style::new())
}

fn label(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// The priority as sd-daemon(3) writes it.
fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

fn json(level: Level, message: &str, fields: &dyn Source) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    let (level, message) = (label(level), serde_json::Value::from(message));
    let start = format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{message}");
    let mut object = Object(start);
    // The visitor does not fail.
    let _ = fields.visit(&mut object);
    printable_json(&object.0).into_owned() + "}"
}

/// An object of JSON without its end.
struct Object(String);

impl<'kvs> VisitSource<'kvs> for Object {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let key = serde_json::Value::from(key.as_str());
        let value = match (value.to_u64(), value.to_f64()) {
            (Some(number), _) => number.into(),
            (_, Some(number)) => number.into(),
            _ => serde_json::Value::from(value.to_string()),
        };
        let _ = write!(self.0, ",{key}:{value}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::hostile::{any_name, is_hostile};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_a_line_holds_it_is_one_line(message in any_name(), field in any_name()) {
            let fields: &[(&str, Value<'_>)] = &[("table", Value::from(&*field))];
            let text = line(Level::Warn, &message, &fields, Style::new());
            let json = json(Level::Warn, &message, &fields);
            for line in [text.strip_suffix('\n').unwrap(), &json] {
                prop_assert!(!line.contains(is_hostile), "{line:?}");
            }
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read["message"], &message);
            prop_assert_eq!(&read["table"], &field);
        }
    }

    #[test]
    fn json_has_time_level_message_and_fields() {
        let fields: &[(&str, Value<'_>)] = &[
            ("lines", 3.into()),
            ("milliseconds", 0.5.into()),
            ("table", "a\"\u{9b}".into()),
        ];
        let line = json(Level::Warn, "a\nb\u{202e}", &fields);
        assert!(!line.contains(['\n', '\u{202e}', '\u{9b}']), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["level"], "warning");
        assert_eq!(read["message"], "a\nb\u{202e}");
        assert_eq!(read["lines"], 3);
        assert_eq!(read["milliseconds"], 0.5);
        assert_eq!(read["table"], "a\"\u{9b}");
        let time = read["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn a_line_of_text_is_one_line() {
        let none: &[(&str, usize)] = &[];
        let shown = line(Level::Error, "a\nready: b\u{1b}[2J", &none, Style::new());
        assert_eq!(shown, "error: a\\nready: b\\u{1b}[2J\n");
    }
}
