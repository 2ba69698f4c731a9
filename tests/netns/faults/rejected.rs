//! Refusals that the kernel really gives: nothing is half installed, and the error names the step.
//! src/netfilter/refusals.rs has it refuse each message of a transaction.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::fixture::{Monitor, Namespace, Process, nodefwd};

/// How many chains a hook takes: MAX_HOOK_COUNT in net/netfilter/core.c.
pub const FULL: usize = 1024;

/// How often it is started while somebody else makes and removes a table of its name.
pub const COLLISIONS: usize = 100;

const FORWARD: &str = "tcp/80=10.2.0.11,fd00:2::11";

#[test]
fn a_hook_that_is_full_is_named() {
    let node = Namespace::forwarding("node");
    for (hook, priority) in [("prerouting", -100), ("output", -100), ("postrouting", 100)] {
        let chain = format!("type nat hook {hook} priority {priority};");
        let chains = (1..=FULL).map(|number| format!("chain c{number} {{ {chain} }}\n"));
        node.load(&format!(
            "table inet full {{\n{}}}",
            chains.collect::<String>()
        ));
        let monitor = Monitor::start(&node);
        let outcome = nodefwd([FORWARD, "--output=true"]).finish(&node);
        let stderr = outcome.expect_exit(1).stderr;
        let said = format!("the kernel refused to make chain {hook}: E2BIG");
        assert!(stderr.contains(&said), "{stderr}");
        assert_eq!(monitor.changes(), "");
        node.succeed("nft", &["delete", "table", "inet", "full"]);
        nodefwd([FORWARD, "--output=true"])
            .start(&node)
            .stop(Signal::SIGTERM)
            .expect_exit(0);
    }
}

/// However the two meet, exactly one of them has the table.
#[test]
fn a_table_of_its_name_that_comes_and_goes_is_never_mixed_with_its_own() {
    let node = Namespace::forwarding("node");
    let theirs = "add table inet nodefwd-tcp-80\nadd chain inet nodefwd-tcp-80 theirs\n\
        delete table inet nodefwd-tcp-80\n";
    let mut others = Command::new("nft");
    others.arg("--interactive");
    let others = node.run(|| Process::spawn(others, &theirs.repeat(50_000)));
    for _ in 0..COLLISIONS {
        let forwarder = nodefwd([FORWARD]).spawn(&node);
        if forwarder.has_said("ready") {
            let ruleset = node.ruleset();
            assert!(!ruleset.contains("theirs"), "{ruleset}");
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        } else {
            let stderr = forwarder.finish().expect_exit(1).stderr;
            assert!(
                stderr.contains("table inet nodefwd-tcp-80 is already there"),
                "{stderr}"
            );
        }
    }
    others.stop(Signal::SIGTERM);
    let ruleset = node.ruleset();
    assert!(!ruleset.contains("prerouting"), "{ruleset}");
}
