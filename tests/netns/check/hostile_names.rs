//! Names that other processes choose, wherever they are shown: they forge no line, control no terminal, and are
//! one argument of the commands that are to be pasted.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::hostile_tables::add_dropping_chain;
use super::{BACKEND_PORT, net, start};
use crate::fixture::{Net, Process, nodefwd};

/// What each name holds: a line break and words of the log, what a terminal obeys, and what ends an argument.
const FORGED: &str = "x\nready: no\u{1b}[2J\u{202e};touch ";

/// A process with a hostile name that listens on the forwarded port.
fn hostile_listener(net: &Net) -> Process {
    let script = "import socket, sys, time
open('/proc/self/comm', 'wb').write(b'a\\nready: \\x1b[2J')
listener = socket.socket()
listener.bind(('', 80))
listener.listen(9)
print('listening', file=sys.stderr, flush=True)
time.sleep(9999)";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script]);
    let listener = net.node.spawn(command);
    listener.wait_for_line("listening");
    listener
}

#[track_caller]
pub fn expect_harmless(text: &str) {
    let hostile = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!text.contains(hostile), "{text:?}");
    let forged = text.lines().filter(|line| line.starts_with("ready: no"));
    assert_eq!(forged.count(), 0, "{text}");
}

#[test]
fn names_of_tables_chains_interfaces_and_processes_forge_nothing() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile-names");
    fs::create_dir_all(&folder).expect("a folder");
    // No path fits into the name of an interface: the command would run in the namespace's own folder.
    let interface = "a;id>b\u{1b}[2J";
    net.node.ip(&format!(
        "link set client down\nlink set client name {interface}"
    ));
    net.node.ip(&format!("link set {interface} up"));
    net.node.ip("route add default via 10.1.1.2");
    net.node
        .run(|| {
            fs::write(
                format!("/proc/sys/net/ipv4/conf/{interface}/forwarding"),
                "0",
            )
        })
        .expect("the switch");
    let marker = folder.join("touched");
    let name = |prefix: &str| format!("{prefix}{FORGED}{}", marker.display());
    for prefix in ["", "nodefwd-", "nodefwd-a'b\"c$(id)`id`"] {
        add_dropping_chain(&net.node, name(prefix).as_bytes());
    }
    let _listener = hostile_listener(&net);

    let forwards = "tcp/80=10.2.1.2:8080";
    let instance = start(&net, &format!("{forwards} -v"));
    instance.wait_for_line("debug: checked routes, other tables and sockets");
    for arguments in [
        &["check", forwards][..],
        &["check"],
        &["status"],
        &["status", "--format=prometheus"],
    ] {
        let outcome = nodefwd(arguments).finish(&net.node);
        expect_harmless(&outcome.stdout);
        expect_harmless(&outcome.stderr);
    }
    let status = nodefwd(["status", "--format=json"])
        .finish(&net.node)
        .expect_success();
    expect_harmless(&status);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(
        status["instances"].as_array().map(Vec::len),
        Some(1),
        "{status}"
    );

    let checked = nodefwd(["check", "--format=json"]).finish(&net.node).stdout;
    expect_harmless(&checked);
    let checked: Value = serde_json::from_str(&checked).expect("JSON");
    let findings = checked["findings"].as_array().expect("findings");
    // What was hostile is there, as it is.
    for part in ["ready: no", "(a\nready: ", interface] {
        let has = |finding: &&Value| {
            finding["text"]
                .as_str()
                .is_some_and(|text| text.contains(part))
        };
        assert!(
            findings.iter().any(|finding| has(&finding)),
            "{part:?}: {checked:#}"
        );
    }
    for command in findings
        .iter()
        .filter_map(|finding| finding["command"].as_str())
    {
        expect_harmless(command);
        for part in ["touch", "id>b"] {
            assert!(!command.contains(part), "it cannot be named: {command}");
        }
    }
    let stderr = instance.stop(Signal::SIGTERM).expect_exit(0).stderr;
    expect_harmless(&stderr);
    assert!(stderr.contains("\\nready: "), "{stderr}");
    assert!(!marker.exists());
}

/// An interface whose name is an own command to a shell, but can be shown.
#[test]
fn a_shell_that_runs_a_command_sees_the_name_of_an_interface_as_one_argument() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    for interface in ["a;id>$(id)'b", "eth0.100"] {
        let before = if interface.starts_with('a') {
            "client"
        } else {
            "a;id>$(id)'b"
        };
        net.node.ip(&format!("link set {before} down"));
        net.node
            .succeed("ip", &["link", "set", before, "name", interface]);
        net.node.succeed("ip", &["link", "set", interface, "up"]);
        net.node.ip("route add default via 10.1.1.2");
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
        net.node.run(|| fs::write(&path, "0")).expect("the switch");
        let checked = nodefwd(["check", "--format=json", "tcp/80=10.2.1.2:8080"]);
        let checked = checked.finish(&net.node).stdout;
        let checked: Value = serde_json::from_str(&checked).expect("JSON");
        let findings = checked["findings"].as_array().expect("findings");
        let mut commands = findings
            .iter()
            .filter_map(|finding| finding["command"].as_str());
        let command = commands.rfind(|command| command.contains("forwarding"));
        let command = command.unwrap_or_else(|| panic!("no command: {checked:#}"));
        net.node
            .succeed("sh", &["-c", &format!("cd /proc/self && {command}")]);
        let value = net
            .node
            .run(|| fs::read_to_string(&path))
            .expect("the switch");
        assert_eq!(value, "1\n", "{command}");
    }
}
