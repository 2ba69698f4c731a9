//! `nodefwd check`: what it reports of a host without problems and of hosts with them, next to what
//! becomes of real traffic there.

mod any_names;
mod client;
mod connect;
mod connections;
mod destinations;
mod firewall;
mod firewall_rules;
mod hostile_names;
mod hostile_tables;
mod kernel;
mod links;
mod listen;
mod other_hooks;
mod other_nat;
mod paths;
mod read_again;
mod remedies;
mod replies;
mod running;
mod sockets;
mod start_warnings;
mod unseen;

pub use any_names::{INTERFACES, TABLES};
pub use hostile_tables::{INSTANCES, READINGS};
pub use start_warnings::{CHAINS, DESTINATIONS, SOCKETS};

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Monitor, Namespace, Net, Nodefwd, Process, Protocol,
    expect_parts, nodefwd,
};

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    level: String,
    subject: String,
    pub text: String,
}

impl Line {
    fn parse(line: &str) -> Self {
        let parse = || {
            let (level, rest) = line.split_once(": ")?;
            let (subject, text) = rest.split_once(": ")?;
            assert!(["ok", "warning", "failure"].contains(&level), "{line}");
            Some([level, subject, text].map(str::to_owned))
        };
        let [level, subject, text] = parse().unwrap_or_else(|| panic!("not a check: {line}"));
        Line {
            level,
            subject,
            text,
        }
    }

    /// The command at its end, which fixes the problem.
    #[track_caller]
    pub fn command(&self) -> &str {
        let command = self.text.rsplit_once(" with: ");
        command.unwrap_or_else(|| panic!("no command: {self:?}")).1
    }
}

/// The whole report.
#[derive(Debug)]
pub struct Report(Vec<Line>);

impl Report {
    /// Runs `nodefwd check` with these arguments; the exit status must agree with the lines.
    #[track_caller]
    pub fn of(namespace: &Namespace, arguments: &str) -> Self {
        Report::from(&nodefwd(["check"]).args(&words(arguments)), namespace)
    }

    #[track_caller]
    fn from(call: &Nodefwd, namespace: &Namespace) -> Self {
        let outcome = call.finish(namespace);
        let report = Report::read(&outcome.stdout);
        let failures = report.of_level("failure").len();
        let last = outcome.stderr.lines().last().unwrap_or_default();
        if failures > 0 {
            assert_eq!(
                last,
                format!("error: {failures} of the checks failed"),
                "{outcome:?}"
            );
        } else {
            assert!(!last.starts_with("error"), "{outcome:?}");
        }
        outcome.expect_exit(i32::from(failures > 0));
        report
    }

    fn read(text: &str) -> Self {
        Report(text.lines().map(Line::parse).collect())
    }

    pub fn of_level(&self, level: &str) -> Vec<&Line> {
        self.0.iter().filter(|line| line.level == level).collect()
    }

    /// The only line about a subject, which must have this level.
    #[track_caller]
    pub fn line(&self, level: &str, subject: &str) -> &Line {
        let about: Vec<&Line> = self
            .0
            .iter()
            .filter(|line| line.subject == subject)
            .collect();
        match about[..] {
            [line] if line.level == level => line,
            _ => panic!("there should be one line '{level}: {subject}':\n{self:#?}"),
        }
    }

    /// All lines must say `ok`.
    #[track_caller]
    pub fn expect_ok(&self) {
        assert!(self.0.iter().all(|line| line.level == "ok"), "{self:#?}");
    }

    /// All lines but the only one about a subject must say `ok`; gives that line.
    #[track_caller]
    pub fn only(&self, level: &str, subject: &str) -> &Line {
        let others = self
            .0
            .iter()
            .filter(|line| line.level != "ok" && line.subject != subject);
        assert_eq!(others.count(), 0, "{self:#?}");
        self.line(level, subject)
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// A net whose node has its default route on the client's link, as a host has on its uplink.
fn net(backends: u8) -> Net {
    let net = Net::new(backends);
    for family in Family::BOTH {
        let client = net.client.address(family);
        net.node.ip(&format!("route add default via {client}"));
    }
    net
}

/// Arguments that forward TCP and UDP of both families to a backend.
fn all_forwards(net: &Net) -> String {
    let [v4, v6] = Family::BOTH.map(|family| net.backends[0].address(family));
    format!(
        "tcp/{FORWARDED_PORT}={v4}:{BACKEND_PORT},[{v6}]:{BACKEND_PORT} udp/{FORWARDED_PORT}={v4}:{BACKEND_PORT},[{v6}]:{BACKEND_PORT}"
    )
}

fn start(net: &Net, arguments: &str) -> Process {
    nodefwd(words(arguments)).start(&net.node)
}

/// Runs a command as it would be typed.
fn shell(namespace: &Namespace, command: &str) {
    namespace.succeed("sh", &["-c", command]);
}

const SUBJECTS: [&str; 11] = [
    "input",
    "privileges",
    "forwarding",
    "rules",
    "instances",
    "routes",
    "replies",
    "other NAT",
    "firewall",
    "sockets",
    "connections",
];

/// What check prints of a forward: as it is, and if the kernel refuses its last socket of a netlink protocol.
fn without_netlink(net: &Net, protocol: &str, error: &str) -> [String; 2] {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(protocol);
    let output = format!("--output={}", file.display());
    let printed = |options: &[&str]| {
        let options = [&["--trace=socket", &output], options].concat();
        let check = nodefwd(["check", "tcp/80=10.2.1.2"]).traced(&options);
        check.finish(&net.node).stdout
    };
    let all = printed(&[]);
    let calls = fs::read_to_string(file).expect("a trace");
    let calls = (1..).zip(calls.lines());
    let (number, _) = calls
        .filter(|(_, call)| call.contains(protocol))
        .last()
        .expect("such a socket");
    let fault = format!("--inject=socket:error={error}:when={number}");
    [all, printed(&[&fault])]
}

#[test]
fn on_a_host_without_problems_every_line_says_ok_and_nothing_is_changed() {
    let net = net(1);
    net.node.load("table ip theirs { chain c { counter; }; }");
    let before = net.node.ruleset();
    let monitor = Monitor::start(&net.node);
    let call = nodefwd(["check"]).args(&words(&all_forwards(&net)));
    let outcome = call.finish(&net.node).expect_exit(0);
    assert_eq!(monitor.changes(), "");
    assert_eq!(net.node.ruleset(), before);

    assert_eq!(outcome.stderr, "");
    assert!(!outcome.stdout.contains('\x1b'), "{}", outcome.stdout);
    let report = Report::read(&outcome.stdout);
    report.expect_ok();
    let subjects: Vec<&str> = report.0.iter().map(|line| line.subject.as_str()).collect();
    assert_eq!(subjects, SUBJECTS);
}

#[test]
fn on_a_host_with_many_problems_nothing_is_changed_either() {
    let net = net(1);
    net.node.load(
        "table inet theirs {
            chain early { type nat hook prerouting priority -150; tcp dport 80 redirect to :1; };
            chain drops { type filter hook forward priority 0; policy drop; };
         }
         table inet nodefwd-tcp-80 {
         }",
    );
    net.node.ip("route add blackhole 10.2.1.2");
    let before = net.node.ruleset();
    let monitor = Monitor::start(&net.node);
    let report = Report::of(&net.node, &all_forwards(&net));
    assert_eq!(monitor.changes(), "");
    assert_eq!(net.node.ruleset(), before);
    let failed: Vec<&str> = report
        .of_level("failure")
        .iter()
        .map(|line| line.subject.as_str())
        .collect();
    assert_eq!(
        failed,
        ["instances", "routes", "other NAT", "firewall"],
        "{report:#?}"
    );
}

#[test]
fn a_hundred_checks_do_not_disturb_a_running_instance() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let instance = start(&net, &all_forwards(&net));
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    // On a slow machine, the checks take longer than the kernel keeps an entry of a flow that is silent.
    net.node.keep_udp_entries();
    let mut flow = net.client.live_flow(Protocol::Udp, node_addr);
    let rules = net.node.ruleset();
    for _ in 0..100 {
        Report::of(&net.node, "--name=other tcp/81=10.2.1.2").expect_ok();
    }
    flow.expect_unchanged();
    assert_eq!(net.node.ruleset(), rules);
    instance.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn colours_are_printed_on_terminals_only() {
    let node = Namespace::forwarding("node");
    let call = nodefwd(["check", "tcp/80=10.9.0.1"]);
    let plain = call.finish(&node).expect_exit(1).stdout;
    assert!(!plain.contains('\x1b'), "{plain}");
    let on_a_terminal = ["sh", "-c", "script -qefc \"$*\" /dev/null", "sh"];
    let call = call.wrapped(&on_a_terminal).env("TERM", "xterm");
    let coloured = call.finish(&node).expect_exit(1).stdout;
    let levels = ["\x1b[32mok:\x1b[0m ", "\x1b[31mfailure:\x1b[0m "];
    expect_parts(&coloured, levels);
    let forbidden = call.env("NO_COLOR", "1").finish(&node).stdout;
    assert!(!forbidden.contains('\x1b'), "{forbidden}");
}

#[test]
fn invalid_input_is_rejected_before_any_check() {
    let node = Namespace::forwarding("node");
    for arguments in [
        "tcp/80",
        "tcp/80=10.0.0.5 --balance=fair",
        "--what tcp/80=10.0.0.5",
    ] {
        let call = nodefwd(["check"]).args(&words(arguments));
        let outcome = call.without_net_admin().finish(&node).expect_exit(2);
        assert_eq!(outcome.stdout, "", "{arguments}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
}

#[test]
fn the_input_comes_from_the_environment_too() {
    let node = Namespace::forwarding("node");
    node.ip("route add default dev lo");
    let call = nodefwd(["check"])
        .env("DEST_IPS", "10.43.0.10 10.43.0.10")
        .env("DEST_PROTO", "TCP")
        .env("SRC_PORT", "80")
        .env("SRC_RANGES", "fd00::/8")
        .env("NODEFWD_LISTEN", "10.1.0.1,fd00::1");
    let report = Report::from(&call, &node);
    let input: Vec<&Line> = report
        .0
        .iter()
        .filter(|line| line.subject == "input")
        .collect();
    let levels: Vec<&str> = input.iter().map(|line| line.level.as_str()).collect();
    assert_eq!(levels, ["ok", "warning"], "{report:#?}");
    let read = ["tcp/80=10.43.0.10:80", "10.1.0.1, fd00::1"];
    expect_parts(&input[0].text, read);
    expect_parts(&input[1].text, ["SRC_RANGES", "IPv4"]);
    let stderr = call.finish(&node).stderr;
    assert!(
        stderr.starts_with("warning: DEST_IPS (--dest-ips): 10.43.0.10 is listed more than once"),
        "{stderr}"
    );
}
