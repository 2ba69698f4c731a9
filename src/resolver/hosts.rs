//! /etc/hosts (hosts(5)).

use crate::config::HostName;
use nix::libc::O_NONBLOCK;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;

/// Where it is.
pub const PATH: &str = "/etc/hosts";

/// As much of a file as is read: lists of blocked names have a few megabytes.
const MAX_BYTES: u64 = 32 << 20;

/// The text of a file, whatever its encoding; empty if it is not there. Waits for none that writes into it, as a
/// pipe would have it.
pub fn read(path: &str) -> io::Result<String> {
    let mut text = Vec::new();
    let mut options = OpenOptions::new();
    match options.read(true).custom_flags(O_NONBLOCK).open(path) {
        Ok(file) => file.take(MAX_BYTES).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The addresses that lines of such a file give a name, which may be an alias.
pub fn addresses(text: &str, name: &HostName) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| address(line, name.as_str()))
        .collect()
}

fn address(line: &str, name: &str) -> Option<IpAddr> {
    let line = line.split('#').next()?;
    let mut words = line.split_ascii_whitespace();
    let address = words.next()?;
    let is_it = |word: &str| {
        let word = word.strip_suffix('.').unwrap_or(word);
        word.eq_ignore_ascii_case(name)
    };
    words.any(is_it).then(|| address.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    /// Else a start would hang.
    #[test]
    fn a_pipe_that_nobody_writes_into_is_empty() {
        let path = std::env::temp_dir().join(format!("nodefwd-{}-hosts", std::process::id()));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let text = read(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.unwrap(), "");
    }

    #[test]
    fn names_and_aliases_in_any_case_and_of_several_lines() {
        let text = "\
# 10.0.0.1 home.example
127.0.0.1\tlocalhost
10.0.0.5  Home.Example home # 10.0.0.9 other
fd00::5 home.example.
10.0.0 home
fe80::1%eth0 home
10.0.0.6
\u{fffd} home
";
        let of = |word: &str| match Host::read(word) {
            Ok(Host::Name(name)) => addresses(text, &name),
            other => panic!("{other:?}"),
        };
        let ips = |ips: &[&str]| {
            ips.iter()
                .map(|ip| ip.parse().unwrap())
                .collect::<Vec<IpAddr>>()
        };
        assert_eq!(of("home.example"), ips(&["10.0.0.5", "fd00::5"]));
        assert_eq!(of("HOME."), ips(&["10.0.0.5"]));
        assert_eq!(of("other"), ips(&[]));
        assert_eq!(of("localhost"), ips(&["127.0.0.1"]));
    }
}
