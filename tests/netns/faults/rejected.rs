//! Transactions that the kernel rejects: nothing is installed, and the error names the step. A unit
//! test has it reject each message of a transaction.

use nix::sys::signal::Signal;

use super::nft_with_input;
use crate::fixture::{Monitor, Namespace, TempFile, expect_parts, nodefwd};

/// How many chains a hook takes: MAX_HOOK_COUNT in net/netfilter/core.c.
pub const CHAINS_OF_A_HOOK: usize = 1024;

/// How often it is started while another program adds and deletes a table of its name.
pub const COLLISIONS: usize = 100;

const FORWARD: &str = "tcp/80=10.2.0.11,fd00:2::11";

/// Fills a hook of nat with as many chains as it takes.
fn fill(node: &Namespace, hook: &str, priority: i32) {
    let chain = format!("type nat hook {hook} priority {priority};");
    let chains = (1..=CHAINS_OF_A_HOOK).map(|number| format!("chain c{number} {{ {chain} }}\n"));
    node.load(&format!(
        "table inet full {{\n{}}}",
        chains.collect::<String>()
    ));
}

#[test]
fn the_chain_that_a_full_hook_rejects_is_named() {
    let node = Namespace::forwarding("node");
    for (hook, priority) in [("prerouting", -100), ("output", -100), ("postrouting", 100)] {
        fill(&node, hook, priority);
        let monitor = Monitor::start(&node);
        let outcome = nodefwd([FORWARD, "--output=true"]).finish(&node);
        let stderr = outcome.expect_exit(1).stderr;
        let message = format!("the kernel refused to make chain {hook}: E2BIG");
        expect_parts(&stderr, [message]);
        assert_eq!(monitor.changes(), "");
        node.succeed("nft", &["delete", "table", "inet", "full"]);
        nodefwd([FORWARD, "--output=true"])
            .start(&node)
            .stop(Signal::SIGTERM)
            .expect_exit(0);
    }
}

#[test]
fn a_reload_that_the_kernel_rejects_leaves_the_rules_and_is_said() {
    let node = Namespace::forwarding("node");
    let variables = format!("NODEFWD_NAME=web\nNODEFWD_FORWARDS={FORWARD}\n");
    let file = TempFile::new(&variables);
    let call = nodefwd([""; 0]).env("NODEFWD_ENV_FILE", file.path());
    let mut forwarder = call.start(&node);
    fill(&node, "output", -100);
    let rules = || {
        let table = ["list", "table", "inet", "nodefwd-web"];
        node.succeed("nft", &table)
    };
    let before = rules();
    file.write(format!("{variables}NODEFWD_OUTPUT=true\n"));
    forwarder.signal(Signal::SIGHUP);
    let refused = "warning: not reloaded, going on with the rules as they are: ";
    let said = forwarder.wait_for_line(refused);
    expect_parts(&said, ["the kernel refused to make chain output: E2BIG"]);
    let marked = rules().replace("\n\tchain reload-failed {\n\t}\n", "");
    assert_eq!(marked, before);
    let status = nodefwd(["status"]).finish(&node).expect_success();
    expect_parts(&status, ["the last reload failed"]);
    node.succeed("nft", &["delete", "table", "inet", "full"]);
    forwarder.signal(Signal::SIGHUP);
    forwarder.wait_for_line("reloaded: ");
    assert!(rules().contains("hook output"), "{}", rules());
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Whichever comes first, exactly one of the two has the table.
#[test]
fn a_table_of_its_name_that_another_program_adds_and_deletes_never_gets_its_rules() {
    let node = Namespace::forwarding("node");
    let theirs = "add table inet nodefwd-tcp-80\nadd chain inet nodefwd-tcp-80 theirs\n\
        delete table inet nodefwd-tcp-80\n";
    let other = nft_with_input(&node, &theirs.repeat(50_000));
    for _ in 0..COLLISIONS {
        let forwarder = nodefwd([FORWARD]).spawn(&node);
        if forwarder.has_said("ready") {
            let ruleset = node.ruleset();
            assert!(!ruleset.contains("theirs"), "{ruleset}");
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        } else {
            let stderr = forwarder.finish().expect_exit(1).stderr;
            expect_parts(&stderr, ["table inet nodefwd-tcp-80 is already there"]);
        }
    }
    other.stop(Signal::SIGTERM);
    let ruleset = node.ruleset();
    assert!(!ruleset.contains("prerouting"), "{ruleset}");
}
