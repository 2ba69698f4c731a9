//! The nft of other releases beside nodefwd's rules: it must not crash, and must say what they are, also to
//! those who use it for other tables. tests/run.sh unpacks them, each with its own libraries.

use nix::sys::signal::Signal;

use crate::encoders;
use crate::fixture::{Monitor, Namespace, expect_parts, nodefwd};

/// Another nft, with what it does wrong, whoever made the table.
struct Nft {
    program: &'static str,
    version: &'static str,
    /// It can load what it lists. nft 0.9.8 has no words for the elements of a map that count.
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
    for call in encoders::calls() {
        for owner in ["true", "false"] {
            let forwarder = nodefwd(call.split_whitespace()).env("NODEFWD_OWNER", owner);
            let forwarder = forwarder.start(&node);
            for nft in NFTS {
                let listed = nft.expect_listed(&node);
                for command in OTHER_TABLE {
                    nft.run(&node, command);
                }
                if nft.loads && !listed.contains("flags owner") {
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

/// One that starts beside the rules of an instance. It may not report those rules themselves: when such sets
/// are added, nft 0.9.8 crashes on one that counts, and 1.0.6 writes garbage for ranges of two fields, also
/// if nft itself has added them.
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
