//! One version, that of Cargo.toml: every document that names one names this.

use std::fs;
use std::path::Path;
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The files that name the version, and what stands before it.
const NAMED: [(&str, &str); 4] = [
    ("CHANGELOG.md", "## ["),
    ("Containerfile", "nodefwd:"),
    ("deploy/README.md", "nodefwd:"),
    ("deploy/daemonset.yaml", "nodefwd:"),
];

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn documents_name_the_version_of_the_manifest() {
    for (file, before) in NAMED {
        let text = read(file);
        let starts_with_digit = |after: &&str| after.starts_with(|c: char| c.is_ascii_digit());
        let mut named = text.split(before).skip(1).filter(starts_with_digit);
        // Of the changelog only the newest: below it are those before.
        let first = named.next().unwrap_or_else(|| panic!("{file}: no version"));
        let others = named.filter(|_| file != "CHANGELOG.md");
        for found in [first].into_iter().chain(others) {
            let line = found.lines().next().unwrap_or_default();
            assert!(found.starts_with(VERSION), "{file}: {before}{line}");
        }
    }
}

#[test]
fn the_program_names_version_and_target() {
    let say = |argument: &str| {
        let mut nodefwd = Command::new(env!("CARGO_BIN_EXE_nodefwd"));
        let output = nodefwd.arg(argument).output().expect("nodefwd");
        assert!(output.status.success() && output.stderr.is_empty());
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let said = say("--version");
    assert_eq!(say("version"), said);
    let rest = said.strip_prefix(&format!("nodefwd {VERSION} ("));
    let rest = rest.and_then(|rest| rest.strip_suffix(")\n"));
    let words: Vec<&str> = rest.expect(&said).split(", ").collect();
    let target = words.last().expect("a target");
    assert!(target.contains("-linux-"), "{said}");
    if Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        let mut git = Command::new("git");
        git.args(["-c", "safe.directory=*", "rev-parse", "--short=12", "HEAD"]);
        let output = git.current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let head = String::from_utf8(output.expect("git").stdout).expect("UTF-8");
        assert_eq!(words[0], format!("commit {}", head.trim()), "{said}");
    }
}
