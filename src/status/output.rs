//! Where the status is written, and how.

use super::{Instance, StatusError, StatusFormat, StatusOptions};
use super::{json, prometheus, text};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

/// How much is kept of the output at a time. What `--watch` prints in one piece is seen whole, or not at all.
const BUFFER: usize = 1 << 16;

/// Writes the instances.
pub fn write(instances: &[Instance], options: &StatusOptions) -> Result<(), StatusError> {
    let render = |out: &mut dyn Write| match options.format {
        StatusFormat::Text => {
            let text = text::render(instances, options.all_namespaces, now());
            out.write_all(text.as_bytes())
        }
        StatusFormat::Json => json::write(instances, options.watch, out),
        StatusFormat::Prometheus => prometheus::write(instances, out),
    };
    match &options.file {
        None => to_stdout(&render, options.watch).map_err(StatusError::Output),
        Some(path) => to_file(&render, path).map_err(|error| StatusError::File {
            path: path.display().to_string(),
            error,
        }),
    }
}

type Render<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

fn to_stdout(render: Render<'_>, watch: bool) -> io::Result<()> {
    let stdout = io::stdout().lock();
    let clears = watch && stdout.is_terminal();
    let mut out = BufWriter::with_capacity(BUFFER, stdout);
    if clears {
        // ECMA-48: cursor to the top left (CUP), and erase everything after it (ED).
        out.write_all(b"\x1b[H\x1b[J")?;
    }
    render(&mut out)?;
    out.flush()
}

/// Puts a new file in the place of the one that is there, so that no reader sees a part of it.
fn to_file(render: Render<'_>, path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let error = "it is there, and no regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    // A name that node_exporter does not read: it takes those that end with .prom.
    let mut new = OsString::from(path);
    new.push(format!(".{}", process::id()));
    let new = PathBuf::from(new);
    // One that a killed process with this number has left.
    let _ = fs::remove_file(&new);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&new)
        .and_then(|file| {
            let mut out = BufWriter::with_capacity(BUFFER, file);
            render(&mut out)?;
            out.flush()
        })
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
