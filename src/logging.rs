//! Log lines on standard error: `warning: …` for people and machines alike, without a time of its
//! own, because containers and journals add theirs.

mod format;
mod stderr;

pub use format::{LogFormat, LogFormatError};
pub use stderr::{catch_up, full};

use anstream::{AutoStream, ColorChoice};
use env_logger::{Builder, Target, WriteStyle};
use log::{LevelFilter, warn};
use std::env;
use std::error::Error;
use std::io::{self, Write};

/// Sets the logger up. `RUST_LOG`, unless it is empty, overrides the levels: that of this program, and that
/// of libraries. Colours only on a terminal, and not with `NO_COLOR`. To be called once.
pub fn init(format: LogFormat, level: LevelFilter, of_libraries: LevelFilter) {
    format::set(format);
    let coloured = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let style = match format {
        LogFormat::Text if coloured => WriteStyle::Always,
        _ => WriteStyle::Never,
    };
    let mut builder = Builder::new();
    builder.filter_level(of_libraries);
    builder.filter_module(env!("CARGO_PKG_NAME"), level);
    let overriding = env::var("RUST_LOG").unwrap_or_default();
    // env_logger would complain of a wrong one on a standard error that may be closed.
    let refused = env_filter::Builder::new().try_parse(&overriding).err();
    if !overriding.is_empty() && refused.is_none() {
        builder = Builder::new();
        builder.parse_filters(&overriding);
    }
    builder
        .write_style(style)
        .target(Target::Pipe(Box::new(stderr::Stderr::open())))
        .format(|out, record| {
            let colour = out.default_level_style(record.level());
            let fields = record.key_values();
            let line = format::line(record.level(), record.args(), &fields, colour);
            out.write_all(line.as_bytes())
        })
        .init();
    if let Some(error) = refused {
        warn!(
            "RUST_LOG is ignored: {error}: use a level, such as debug, or several as in warn,nodefwd=debug"
        );
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
