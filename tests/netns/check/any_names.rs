//! Names of any bytes: in what check prints each is a part of one line, and in the commands that it suggests one
//! argument, or there is no command.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::hostile_names::expect_harmless;
use super::hostile_tables::add_dropping_chain;
use super::net;
use crate::fixture::{Namespace, nodefwd};

/// How many names tables and chains have, and interfaces.
pub const TABLES: usize = 300;
pub const INTERFACES: usize = 100;

const FORWARD: &str = "tcp/80=10.2.1.2:8080";

/// So many names, the same ones in each run.
fn names(count: usize, strategy: impl Strategy<Value = Vec<u8>>) -> BTreeSet<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let mut names = BTreeSet::new();
    while names.len() < count {
        names.insert(strategy.new_tree(&mut runner).expect("a name").current());
    }
    names
}

/// Any bytes, what shells and terminals obey, and a name without any of that.
fn any_name(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let text = |regex: String| {
        let text = proptest::string::string_regex(&regex).expect("a regular expression");
        text.prop_map(String::into_bytes)
    };
    let obeyed = "[\u{1}-/:-@\\[-`{-\u{a0}\u{200b}-\u{206f}]";
    prop_oneof![
        vec(1..=u8::MAX, 1..=longest),
        text(format!("{obeyed}{{1,{}}}", longest / 3)),
        text(format!("[a-zA-Z_.][a-zA-Z0-9_.-]{{7,{}}}", longest - 1)),
    ]
}

/// What check finds of a subject, as lines of text, which are harmless, and as JSON.
fn findings(node: &Namespace, subject: &str) -> Vec<Value> {
    let text = nodefwd(["check", FORWARD]).finish(node);
    expect_harmless(&text.stdout);
    expect_harmless(&text.stderr);
    let json = nodefwd(["check", "--format=json", FORWARD])
        .finish(node)
        .stdout;
    expect_harmless(&json);
    let read: Value = serde_json::from_str(&json).expect("JSON");
    let all = read["findings"].as_array().expect("findings");
    let lines = text.stdout.lines();
    assert_eq!(lines.count(), all.len(), "{}", text.stdout);
    let of_subject = all.iter().filter(|finding| finding["subject"] == subject);
    of_subject.cloned().collect()
}

/// The arguments of each command, as a shell hands them to its program.
fn arguments(commands: &[&str], program: &str) -> Vec<Vec<String>> {
    let functions = format!("{program}() {{ printf '%s\\0' \"$@\"; printf '\\n\\0'; }}\n");
    let script = functions + &commands.join("\n");
    let output = Command::new("/bin/sh").args(["-c", &script]).output();
    let output = output.expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let lists = printed.split_terminator("\n\0");
    let words = |list: &str| list.split_terminator('\0').map(str::to_owned).collect();
    lists.map(words).collect()
}

/// Whether nft has such a name in its grammar.
fn is_plain(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || "_.".contains(c));
    starts
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/_.-".contains(c))
}

#[test]
fn tables_and_chains_of_any_name_are_one_line_and_one_argument_or_no_command() {
    let net = net(1);
    let names = names(TABLES, any_name(40));
    for name in &names {
        add_dropping_chain(&net.node, name);
    }
    let found = findings(&net.node, "other NAT");
    assert_eq!(found.len(), TABLES);
    // Those of bytes that are no text have others in their place.
    for name in names
        .iter()
        .filter_map(|name| std::str::from_utf8(name).ok())
    {
        let start = format!("the policy of chain {name} in table inet {name} drops tcp/80 ");
        let mut texts = found.iter().filter_map(|finding| finding["text"].as_str());
        assert!(texts.any(|text| text.starts_with(&start)), "{start:?}");
    }

    let plain = names
        .iter()
        .filter_map(|name| std::str::from_utf8(name).ok());
    let plain: BTreeSet<&str> = plain.filter(|name| is_plain(name)).collect();
    let commands: Vec<&str> = found
        .iter()
        .filter_map(|finding| finding["command"].as_str())
        .collect();
    assert!(plain.len() > TABLES / 4, "{plain:?}");
    assert_eq!(commands.len(), plain.len());
    let accept = |name: &&str| format!("chain inet {name} {name} {{ policy accept; }}");
    let expected: BTreeSet<String> = plain.iter().map(accept).collect();
    let mut seen = BTreeSet::new();
    for words in arguments(&commands, "nft") {
        assert_eq!(words.len(), 1, "{words:?}");
        seen.extend(words);
    }
    assert_eq!(seen, expected);
    // What nft would get from all of them, in one call: they do what they say, and nothing else.
    let all: Vec<String> = seen.into_iter().collect();
    net.node.load(&all.join("\n"));
    let left = findings(&net.node, "other NAT");
    assert_eq!(left.len(), TABLES - plain.len());
}

/// Names that the kernel takes (dev_valid_name in net/core/dev.c): it has its own idea of a blank.
fn interface_names() -> BTreeSet<Vec<u8>> {
    let forbidden = |byte: &u8| b"/:%\t\n\x0b\x0c\r \xa0".contains(byte);
    let allowed = |name: &Vec<u8>| name.len() <= 15 && !name.iter().any(forbidden);
    let mut names = names(INTERFACES, any_name(15).prop_filter("a name", allowed));
    // Of these, sysctl(8) would take a part only, or set those of other interfaces too.
    names.extend([&b"a=b"[..], b"*", b"?acks", b"[bcd]*", b"a\\b", b"eth0.1"].map(<[u8]>::to_vec));
    names.retain(|name| ![&b"."[..], b"..", b"lo", b"backend1"].contains(&&name[..]));
    names
}

/// The switch of an interface.
fn switch(interface: &[u8]) -> PathBuf {
    let folder = PathBuf::from("/proc/sys/net/ipv4/conf");
    folder.join(OsStr::from_bytes(interface)).join("forwarding")
}

fn read(node: &Namespace, interface: &[u8]) -> String {
    let value = node.run(|| fs::read_to_string(switch(interface)));
    value.expect("the switch").trim_end().to_owned()
}

#[test]
fn interfaces_of_any_name_are_one_line_and_one_argument_or_no_command() {
    let net = net(1);
    let mut before = b"client".to_vec();
    let mut with_command = 0;
    // No path runs through it: no command may switch it.
    net.node.set_sysctl("net/ipv4/conf/lo/forwarding", "0");
    for name in interface_names() {
        let ip = |arguments: &[&[u8]]| {
            let mut command = Command::new("ip");
            command.args(arguments.iter().map(|argument| OsStr::from_bytes(argument)));
            net.node.spawn(command).finish().expect_success();
        };
        ip(&[b"link", b"set", b"dev", &before, b"down"]);
        ip(&[b"link", b"set", b"dev", &before, b"name", &name]);
        ip(&[b"link", b"set", b"dev", &name, b"up"]);
        before.clone_from(&name);
        net.node.ip("route add default via 10.1.1.2");
        let off = || fs::write(switch(&name), "0");
        net.node.run(off).expect("the switch");

        let found = findings(&net.node, "forwarding");
        let off = |finding: &&Value| finding["level"] == "failure";
        let [finding] = found.iter().filter(off).collect::<Vec<_>>()[..] else {
            panic!("{name:?}: {found:#?}");
        };
        let Some(command) = finding["command"].as_str() else {
            let taken = |c: char| c.is_ascii_graphic() && !"=*?[\\".contains(c);
            let text = std::str::from_utf8(&name).unwrap_or("\0");
            assert!(!text.chars().all(taken), "no command for {text:?}");
            continue;
        };
        with_command += 1;
        let name_for_sysctl = String::from_utf8(name.clone())
            .expect("UTF-8")
            .replace('.', "/");
        let setting = format!("net.ipv4.conf.{name_for_sysctl}.forwarding=1");
        assert_eq!(
            arguments(&[command], "sysctl"),
            [["-w".to_owned(), setting]]
        );
        net.node.succeed("sh", &["-c", command]);
        assert_eq!(read(&net.node, &name), "1", "{command}");
        assert_eq!(read(&net.node, b"lo"), "0", "{command}");
    }
    assert!(with_command > INTERFACES / 4, "{with_command}");
}
