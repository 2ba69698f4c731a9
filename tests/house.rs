//! What holds for every file of the project: its length, its name, its unsafe code and its doc comments.

use std::fs;
use std::path::Path;

/// The most lines that a file may have.
const MAX_LINES: usize = 400;

/// Files that may be longer, and why.
const LONGER: [(&str, &str); 1] = [("tests/help.txt", "the program writes it")];

/// The files that may have unsafe code: those that permit it, and the modules that they permit it in.
const UNSAFE: [(&str, &str, &str); 2] = [
    ("src/netlink.rs", "mod sys;", "src/netlink/sys.rs"),
    (
        "src/nftables.rs",
        "mod libnftnl;",
        "src/nftables/libnftnl.rs",
    ),
];

/// The kernel's numbers, under the kernel's names.
const UAPI: &str = "src/uapi.rs";

/// The files in a folder of the project, by path and text. Of benches, those in Rust.
fn files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        let path = format!("{folder}/{name}");
        if entry.path().is_dir() {
            found.extend(files(&path));
        } else if !folder.starts_with("benches") || name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("a text");
            found.push((path, text));
        }
    }
    found
}

fn all_files() -> Vec<(String, String)> {
    ["src", "tests", "benches"].map(files).concat()
}

#[test]
fn no_file_is_too_long() {
    let files = all_files();
    for (path, text) in &files {
        let lines = text.lines().count();
        let may = LONGER.iter().any(|(longer, _)| longer == path);
        assert!(
            may || lines <= MAX_LINES,
            "{path} has {lines} lines; {MAX_LINES} are allowed"
        );
        assert!(
            !may || lines > MAX_LINES,
            "{path} is no exception any more: it has {lines} lines"
        );
    }
    for (longer, _) in LONGER {
        assert!(files.iter().any(|(path, _)| path == longer), "no {longer}");
    }
}

#[test]
fn a_module_is_a_file_beside_the_folder_of_its_name() {
    for (path, _) in all_files() {
        assert!(!path.ends_with("/mod.rs"), "{path}");
    }
}

/// A line without comments and the insides of literals.
fn code(line: &str) -> String {
    let outside: Vec<&str> = line.split('"').step_by(2).collect();
    let code = outside.join("\"");
    code.split("//").next().unwrap_or_default().to_owned()
}

fn has_word(code: &str, word: &str) -> bool {
    let is_between = |c: char| !c.is_alphanumeric() && c != '_';
    code.split(is_between).any(|found| found == word)
}

#[test]
fn unsafe_code_is_in_two_files() {
    for (path, text) in all_files() {
        if !path.ends_with(".rs") {
            continue;
        }
        let lines: Vec<String> = text.lines().map(code).collect();
        for (number, line) in (1..).zip(&lines) {
            let may = UNSAFE.iter().any(|(.., file)| *file == path);
            assert!(
                may || !has_word(line, "unsafe"),
                "{path}:{number}: no unsafe code here"
            );
            // In no other way than before one of the two modules.
            let lint = has_word(line, "unsafe_code");
            let denies = has_word(line, "deny") || has_word(line, "forbid");
            let next = lines.get(number).map_or("", |line| line.as_str());
            let permits = UNSAFE
                .iter()
                .any(|(file, module, _)| *file == path && *module == next);
            assert!(
                !lint || denies || permits,
                "{path}:{number}: unsafe code is permitted"
            );
        }
    }
    let root = files("src")
        .into_iter()
        .find(|(path, _)| path == "src/lib.rs");
    let (_, root) = root.expect("src/lib.rs");
    assert!(root.contains("#![deny(unsafe_code)]"), "{root}");
}

/// Whether a line begins an item that other files can use.
fn is_public_item(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let public = words
        .next()
        .is_some_and(|word| word == "pub" || word.starts_with("pub("));
    let mut words = words.skip_while(|word| ["unsafe", "async"].contains(word));
    let kind = words.next();
    public && kind.is_some_and(|kind| ["fn", "struct", "enum", "trait", "const"].contains(&kind))
}

/// The names of an option say what it is.
fn is_option_name(line: &str) -> bool {
    line.contains(": Self = Self::new(\"") || line.contains(": Self = Self::positional(\"")
}

#[test]
fn every_public_item_has_a_doc_comment() {
    for (path, text) in files("src") {
        if path == UAPI {
            continue;
        }
        let mut documented = false;
        let mut in_attribute = false;
        for (number, line) in (1..).zip(text.lines()) {
            let trimmed = line.trim();
            if in_attribute || trimmed.starts_with("#[") {
                in_attribute = !code(line).trim_end().ends_with(']');
                continue;
            }
            assert!(
                documented || !is_public_item(line) || is_option_name(line),
                "{path}:{number}: no doc comment for: {trimmed}"
            );
            documented = trimmed.starts_with("/// ");
        }
    }
}
