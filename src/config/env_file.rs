//! `NODEFWD_ENV_FILE`: a file of variables, in the form that systemd.exec(5) describes at
//! `EnvironmentFile=`, so that a service's file means the same to both.
//!
//! The rules are those of systemd's parser (src/basic/env-file.c), version 254 and later: before, a
//! comment that ended with a backslash went on in the next line.

use super::shown;
use log::warn;
use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// More than every limit of the options lets through: whoever names a device does not fill the memory.
const MAX_BYTES: u64 = 64 << 20;

/// Of how many lines that assign nothing each has a warning of its own.
const MAX_IGNORED_SAID: usize = 8;

/// A file that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EnvFileError {
    #[error("cannot be read: {}", .0.desc())]
    Read(Errno),
    /// It may be empty by now, and a read may wait for ever.
    #[error(
        "is a pipe or a device, which is read at the start only: restart the instance, or give it a regular file"
    )]
    NotRegular,
    #[error("is larger than {} MiB: is it the right file?", MAX_BYTES >> 20)]
    TooLarge,
}

/// The variables of a file. A later one takes the place of an earlier one of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFile {
    path: PathBuf,
    /// In the order of the file.
    variables: Vec<Variable>,
    /// Numbers of the lines that assign nothing, which are ignored.
    ignored: Vec<usize>,
}

/// A line of a file, as messages show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    path: PathBuf,
    /// Counted from 1.
    line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, line {}",
            shown(&self.path.to_string_lossy()),
            self.line
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    name: String,
    value: OsString,
    /// Where its name stands, counted from 1.
    line: usize,
}

impl EnvFile {
    /// Reads a file, a pipe or a device to its end.
    pub fn read(path: &Path) -> Result<Self, EnvFileError> {
        let mut text = Vec::new();
        let file = File::open(path).map(|file| file.take(MAX_BYTES + 1));
        let read = file.and_then(|mut file| file.read_to_end(&mut text));
        let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
        if read.map_err(|error| EnvFileError::Read(errno(error)))? as u64 > MAX_BYTES {
            return Err(EnvFileError::TooLarge);
        }
        Ok(Self::parse(path, &text))
    }

    /// Reads it once more, for an instance that runs: it must not wait for whoever writes into a pipe.
    pub fn read_again(path: &Path) -> Result<Self, EnvFileError> {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
                Err(EnvFileError::NotRegular)
            }
            // Why it cannot be read, reading tells.
            _ => Self::read(path),
        }
    }

    /// Warns of the lines that assign nothing; of many, as a wrong file has them, only how many there are.
    pub fn warn_of_ignored(&self) {
        let (said, more) = self
            .ignored
            .split_at(self.ignored.len().min(MAX_IGNORED_SAID));
        for line in said {
            warn!("{}: ignored, as it is no NAME=VALUE", self.location(*line));
        }
        if let [next, ..] = more {
            let (next, others) = (self.location(*next), more.len() - 1);
            warn!("{next}: ignored, like {others} more: is it the right file?");
        }
    }

    /// A variable's value and its line.
    pub fn get(&self, name: &str) -> Option<(&OsStr, usize)> {
        let mut from_last = self.variables.iter().rev();
        from_last
            .find(|variable| variable.name == name)
            .map(|variable| (variable.value.as_os_str(), variable.line))
    }

    /// The names of all variables, each with its line.
    pub fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        let variables = self.variables.iter();
        variables.map(|variable| (&*variable.name, variable.line))
    }

    /// A line of it.
    pub fn location(&self, line: usize) -> Location {
        Location {
            path: self.path.clone(),
            line,
        }
    }

    fn parse(path: &Path, text: &[u8]) -> Self {
        let mut file = EnvFile {
            path: path.to_owned(),
            variables: Vec::new(),
            ignored: Vec::new(),
        };
        let mut text = Reader {
            rest: text,
            line: 1,
        };
        while let Some(name) = text.name() {
            let line = text.line;
            match name {
                Line::Blank => {}
                Line::Other => file.ignored.push(line),
                Line::Assigns(name) => {
                    let value = OsString::from_vec(text.value());
                    file.variables.push(Variable { name, value, line });
                    continue; // the value's end ended the line
                }
            }
            text.skip_line();
        }
        file
    }
}

/// What stands at the start of a line.
enum Line {
    /// Nothing, or a comment.
    Blank,
    /// `NAME=`
    Assigns(String),
    /// Something that assigns nothing.
    Other,
}

/// The text that is not read yet, and the number of its line.
struct Reader<'a> {
    rest: &'a [u8],
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += usize::from(byte == b'\n');
        Some(byte)
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|byte| !ends_line(byte)) {}
    }

    /// Reads the start of a line, up to its `=` if it assigns. `None` at the end of the file.
    fn name(&mut self) -> Option<Line> {
        let start = self.rest.iter().position(|byte| !is_blank(*byte))?;
        self.rest = &self.rest[start..];
        if matches!(self.rest[0], b'#' | b';' | b'\n' | b'\r') {
            return Some(Line::Blank);
        }
        let end = |byte: &u8| *byte == b'=' || ends_line(*byte);
        let Some(end) = self
            .rest
            .iter()
            .position(end)
            .filter(|end| self.rest[*end] == b'=')
        else {
            return Some(Line::Other);
        };
        let name = self.rest[..end].trim_ascii_end();
        if !is_name(name) {
            return Some(Line::Other);
        }
        self.rest = &self.rest[end + 1..];
        Some(Line::Assigns(String::from_utf8_lossy(name).into_owned()))
    }

    /// Reads a value and the end of its line. Parts in quotes and one without can follow each other.
    fn value(&mut self) -> Vec<u8> {
        let mut value = Vec::new();
        loop {
            match self.next() {
                None | Some(b'\n' | b'\r') => return value,
                Some(b'\'') => self.single_quoted(&mut value),
                Some(b'"') => self.double_quoted(&mut value),
                Some(byte) if is_blank(byte) => {}
                Some(byte) => {
                    self.unquoted(byte, &mut value);
                    return value;
                }
            }
        }
    }

    fn single_quoted(&mut self, value: &mut Vec<u8>) {
        while let Some(byte) = self.next().filter(|byte| *byte != b'\'') {
            value.push(byte);
        }
    }

    fn double_quoted(&mut self, value: &mut Vec<u8>) {
        while let Some(byte) = self.next().filter(|byte| *byte != b'"') {
            match byte {
                b'\\' => match self.next() {
                    Some(byte @ (b'"' | b'\\' | b'`' | b'$')) => value.push(byte),
                    Some(b'\n') | None => {}
                    Some(byte) => value.extend([b'\\', byte]),
                },
                _ => value.push(byte),
            }
        }
    }

    /// Reads to the end of the line, without the blanks before it. Quotes are nothing special here.
    fn unquoted(&mut self, first: u8, value: &mut Vec<u8>) {
        // A blank after a backslash stays.
        let mut end = value.len();
        let mut next = Some(first);
        while let Some(byte) = next.filter(|byte| !ends_line(*byte)) {
            if byte == b'\\' {
                // A line's end after a backslash counts for nothing.
                value.extend(self.next().filter(|escaped| !ends_line(*escaped)));
                end = value.len();
            } else {
                value.push(byte);
                if !is_blank(byte) {
                    end = value.len();
                }
            }
            next = self.next();
        }
        value.truncate(end);
    }
}

fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// As environ(7) and systemd have it.
fn is_name(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    !name.is_empty() && !name[0].is_ascii_digit() && name.iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(text: &str) -> String {
        let file = EnvFile::parse(Path::new("test.env"), text.as_bytes());
        let (value, _) = file.get("A").expect("A is assigned");
        value.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn values_as_systemd_reads_them() {
        for (text, value) in [
            ("A=b", "b"),
            ("  A = b c \t\n", "b c"),
            ("A=", ""),
            ("A=#b ;c", "#b ;c"),
            ("A=b # c", "b # c"),
            ("A='b # c'", "b # c"),
            (r#"A="b c""#, "b c"),
            (r#"A="b"'c' "d""#, "bcd"),
            (r#"A=b"c""#, r#"b"c""#),
            (r#"A="b"c "#, "bc"),
            (r"A='b\'", r"b\"),
            (r#"A="b\"\\\$\`\n""#, r#"b"\$`\n"#),
            (r"A=b\c\\", r"bc\"),
            ("A=b\\ ", "b "),
            ("A=b, \\\n  c", "b,   c"),
            ("A=\"b \\\nc\"", "b c"),
            ("A='b\nc'", "b\nc"),
            ("A=b\r\n", "b"),
            ("A=b\nA=c", "c"),
            ("# x\\\nA=b", "b"),
        ] {
            assert_eq!(value_of(text), value, "{text}");
        }
    }

    #[test]
    fn names_have_their_lines_and_other_lines_are_ignored() {
        let text = b"# comment\n\nA=b \\\n c\nexport B=c\nnothing\n1C=d\n;E=f\nD=e";
        let file = EnvFile::parse(Path::new("test.env"), text);
        let line = |name| file.get(name).map(|(_, line)| line);
        assert_eq!(
            ["A", "B", "D", "E"].map(line),
            [Some(3), None, Some(9), None]
        );
        assert_eq!(file.ignored, [5, 6, 7]);
    }
}
