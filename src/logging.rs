//! Log lines on standard error: `warning: …` for people and machines alike, without a time of its
//! own, because containers and journals add theirs.

use env_logger::Builder;
use log::{Level, LevelFilter};
use std::env;
use std::error::Error;
use std::io::Write;

/// Sets the logger up. `RUST_LOG`, unless it is empty, overrides `level`; colours only on a terminal, and
/// not with `NO_COLOR`. To be called once.
pub fn init(level: LevelFilter) {
    let overriding = env::var("RUST_LOG")
        .ok()
        .filter(|filter| !filter.is_empty());
    Builder::new()
        .parse_filters(overriding.as_deref().unwrap_or(level.as_str()))
        .format(|out, record| {
            let style = out.default_level_style(record.level());
            match record.level() {
                Level::Info => writeln!(out, "{}", record.args()),
                level => writeln!(out, "{style}{}:{style:#} {}", label(level), record.args()),
            }
        })
        .init();
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

/// The error and what caused it, on one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
