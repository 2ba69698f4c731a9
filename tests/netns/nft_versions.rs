//! The nft of other releases beside nodefwd's rules: it must not crash, and must say what they are, also to
//! those who use it for other tables. tests/run.sh unpacks them, each with its own libraries.

use std::net::UdpSocket;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::encoders;
use crate::fixture::{Monitor, Namespace, Process, expect_parts, nodefwd, wait_until};

/// Another nft, with what it does wrong, whoever made the table.
struct Nft {
    program: &'static str,
    version: &'static str,
    /// It can load what it lists, if the kernel lets it. nft 0.9.8 has no words for the elements of a map that count.
    loads: bool,
    /// It writes the name of the table's flag `owner` into JSON. nft 1.0.6 reads it from past the end of a
    /// list, so that what it writes may be no JSON.
    knows_owner: bool,
}

const NFTS: [Nft; 3] = [
    Nft {
        program: "nft-bullseye",
        version: "v0.9.8",
        loads: false,
        knows_owner: true,
    },
    Nft {
        program: "nft-bookworm",
        version: "v1.0.6",
        loads: true,
        knows_owner: false,
    },
    Nft {
        program: "nft-trixie",
        version: "v1.1.3",
        loads: true,
        knows_owner: true,
    },
];

/// What an administrator does with tables of others.
const OTHER_TABLE: [&str; 6] = [
    "add table ip other",
    "add chain ip other input { type filter hook input priority 0; }",
    "add rule ip other input tcp dport 22 accept",
    "list table ip other",
    "delete table ip other",
    "list tables",
];

impl Nft {
    #[track_caller]
    fn run(&self, namespace: &Namespace, command: &str) -> String {
        let words: Vec<_> = command.split(' ').collect();
        let outcome = namespace.output(self.program, &words);
        for text in [&outcome.stdout, &outcome.stderr] {
            assert!(
                !text.contains("invalid type"),
                "{} {command}: {text}",
                self.program
            );
        }
        outcome.expect_success()
    }

    /// Gives what it lists.
    fn expect_listed(&self, namespace: &Namespace) -> String {
        let listed = self.run(namespace, "list ruleset");
        expect_parts(
            &listed,
            ["table inet nodefwd-", "chain prerouting", "dnat ip"],
        );
        let text = self.run(namespace, "-j list ruleset");
        if self.knows_owner || !listed.contains("flags owner") {
            let json: serde_json::Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}: {text}", self.program));
            let objects = json["nftables"].as_array().map_or(0, Vec::len);
            assert!(objects > 4, "{}: {json:#}", self.program);
        }
        listed
    }

    fn expect_loads_again(&self, namespace: &Namespace, listed: &str) {
        namespace.feed(listed, self.program, &["-f", "-"]);
        let again = self.run(namespace, "list ruleset");
        assert_eq!(again, listed, "{}", self.program);
        self.run(namespace, "flush ruleset");
    }
}

#[test]
fn they_are_of_the_releases_that_they_are_named_after() {
    let namespace = Namespace::new("versions");
    for nft in NFTS {
        expect_parts(&nft.run(&namespace, "--version"), [nft.version]);
    }
}

#[test]
fn each_lists_the_rules_of_every_option_and_changes_other_tables_beside_them() {
    let node = Namespace::forwarding("node");
    let loading = Namespace::new("load");
    let loads = NFTS.map(|nft| nft.loads && encoders::loads_ranges(nft.program, &loading));
    assert!(loads[2], "that of 1.1.3 loads them in every kernel");
    for call in encoders::calls() {
        for owner in ["true", "false"] {
            let forwarder = nodefwd(call.split_whitespace()).env("NODEFWD_OWNER", owner);
            let forwarder = forwarder.start(&node);
            for (nft, loads) in NFTS.iter().zip(loads) {
                let listed = nft.expect_listed(&node);
                for command in OTHER_TABLE {
                    nft.run(&node, command);
                }
                if loads && !listed.contains("flags owner") {
                    nft.expect_loads_again(&loading, &listed);
                }
            }
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}

/// Every kind of set and chain.
const FORWARDS: &str = "tcp/80=10.2.0.11 tcp/81=10.2.0.11,10.2.0.12 tcp/82-84=10.2.0.11 \
    udp/82-84=10.2.0.11:92-94,10.2.0.12 sctp/85-86=[fd00:2::11]:95-96 --src-ranges=10.1.0.0/24";

/// That of 1.1.3, from before the first start on. That of 1.0.6 writes garbage for ranges of two fields, also if
/// nft itself has added them.
///
/// That of 0.9.8 crashes on every event of a set that counts, as it reads the counter without a table
/// (netlink_parse_set_expr), and on those of elements with counters of their own. Sets of elements that count
/// without being told to are no way out: nft 1.0.6 and 1.1.3 do not load those unless the set is dynamic, and then
/// their events have counters too. What no event shows are named counters, one more object and line for each port
/// and twice the time to load 10,000, and elements that packets add, at two more look-ups for each connection.
#[test]
fn a_new_one_reports_the_rules_of_every_option() {
    let node = Namespace::forwarding("node");
    let monitor = Monitor::start_by("nft-trixie", &node);
    for call in encoders::calls() {
        let forwarder = nodefwd(call.split_whitespace()).start(&node);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
    let changes = monitor.changes();
    for kind in ["add map inet nodefwd-", "add set inet nodefwd-"] {
        expect_parts(&changes, [kind]);
    }
    let deleted = changes.matches("delete table inet nodefwd-").count();
    assert_eq!(deleted, encoders::calls().count());
    assert!(!changes.contains("invalid type"), "{changes}");
}

/// Those of packets, as each of them writes for `nft monitor trace`, from before the start on.
#[test]
fn each_traces_packets_through_the_rules() {
    let node = Namespace::forwarding("node");
    node.load(
        "table inet other {
            chain output { type filter hook output priority -300; udp dport 53 meta nftrace set 1; }
         }",
    );
    let address = "10.1.0.1";
    node.ip(&format!(
        "link set lo up\naddress add {address}/32 dev lo\nroute add 10.2.0.0/24 dev lo"
    ));
    let send = || {
        let sent = node.run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", (address, 53)));
        sent.expect("a packet");
    };
    let traces = |nft: &Process, part: &str| {
        let look = || {
            send();
            nft.stdout()
        };
        wait_until("a trace", look, |stdout| stdout.contains(part));
    };
    let monitors = NFTS.map(|nft| {
        let mut command = Command::new(nft.program);
        command.args(["monitor", "trace"]);
        let monitor = node.spawn(command);
        traces(&monitor, "inet other");
        monitor
    });
    let call = nodefwd(FORWARDS.split_whitespace()).args(&["udp/53=10.2.0.11", "--output"]);
    let forwarder = call.start(&node);
    for monitor in monitors {
        traces(&monitor, "inet nodefwd-");
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// One that starts beside the rules of an instance.
#[test]
fn each_reports_changes_of_other_tables_beside_the_rules() {
    let node = Namespace::forwarding("node");
    let forwarder = nodefwd(FORWARDS.split_whitespace()).start(&node);
    let monitors = NFTS.map(|nft| Monitor::start_by(nft.program, &node));
    for nft in NFTS {
        for command in OTHER_TABLE {
            nft.run(&node, command);
        }
    }
    for monitor in monitors {
        let changes = monitor.changes();
        expect_parts(&changes, ["add rule ip other input tcp dport"]);
        assert!(!changes.contains("invalid type"), "{changes}");
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
