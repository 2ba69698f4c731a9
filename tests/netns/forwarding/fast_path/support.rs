//! What the kernel makes of it, whichever runs: stock ones have flowtables, those of small virtual machines often
//! have not.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use super::{FORWARDS, INTERFACES, forward_both};
use crate::check::Report;
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Namespace, Net, PROTOCOLS_AND_FAMILIES, expect_parts,
    expect_reply, kernel_version, nodefwd,
};

/// Why a kernel does without, in every message.
const MISSING: &str =
    "this kernel has no flowtables, which NODEFWD_FAST_PATH (--fast-path) needs: load the modules";

/// What another program learns of it, and leaves nothing behind.
fn has_flowtables() -> bool {
    let namespace = Namespace::new("probe");
    let table = "table inet probe {
        flowtable any { hook ingress priority 0; devices = { lo }; }
        chain forward { type filter hook forward priority 0; ct status dnat flow add @any; }
    }";
    let outcome = namespace.output("nft", &["--check", table]);
    outcome.status.success()
}

/// Why `auto` does without the flowtables of this kernel, if it has some.
fn defect() -> Option<&'static str> {
    match kernel_version() {
        version if version < (5, 13) => Some("before Linux 5.13"),
        version if version >= (6, 19) => Some("since Linux 6.19"),
        _ => None,
    }
}

#[test]
fn auto_forwards_with_or_without_flowtables_and_says_so_once() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    for owner in ["--owner=true", "--owner=false"] {
        let call = forward_both(&net.backends).args(&["--fast-path=auto", owner]);
        let forwarder = call.start(&net.node);
        // Interfaces that come later are no reason to try again.
        net.node
            .ip("link add late type veth peer name later\nlink set late up\nlink del late");
        for (protocol, family) in PROTOCOLS_AND_FAMILIES {
            let to = net.node_addr(family, FORWARDED_PORT);
            let reply = net.client.request(protocol, to);
            expect_reply(reply, "backend-1", net.backends[0].gateway(family));
        }
        let said = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
        let (expected, other) = if let Some(defect) = defect() {
            (format!("no fast path: {defect}"), "fast path: on ")
        } else if has_flowtables() {
            ("fast path: on ".to_owned(), "no fast path: ")
        } else {
            (format!("no fast path: {MISSING}"), "fast path: on ")
        };
        assert_eq!(said.matches(&expected).count(), 1, "{said}");
        assert!(!said.contains(other), "{said}");
    }
}

/// What was asked for by name is not left out without an error.
#[test]
fn with_a_list_a_start_without_flowtables_fails_and_leaves_no_rules() {
    let net = Net::new(1);
    let call = forward_both(&net.backends).args(&[INTERFACES]);
    if has_flowtables() {
        let forwarder = call.start(&net.node);
        expect_parts(&forwarder.stderr(), ["fast path: on "]);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    } else {
        let said = call.finish(&net.node).expect_exit(1).stderr;
        expect_parts(&said, [MISSING]);
    }
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn check_says_whether_the_kernel_has_flowtables() {
    let net = Net::new(1);
    let report = |fast_path| Report::of(&net.node, &format!("{FORWARDS} {fast_path}"));
    for (fast_path, level) in [("--fast-path=auto", "warning"), (INTERFACES, "failure")] {
        let found = report(fast_path);
        if let Some(defect) = defect() {
            let warnings = found.of_level("warning");
            let is_named = warnings.iter().any(|line| line.text.contains(defect));
            assert!(is_named, "{found:#?}");
        } else if has_flowtables() {
            found.line("ok", "fast path");
        } else {
            expect_parts(&found.line(level, "fast path").text, [MISSING]);
        }
    }
}

/// The printed rules name the interfaces, also where the kernel has no flowtables; none where `auto` does without them.
#[test]
fn auto_takes_the_interfaces_that_allowed_clients_can_come_in_on() {
    let net = Net::new(1);
    // One without an address of its own, as of a tunnel.
    net.node
        .ip("link add tunnel type veth peer name end\nlink set tunnel up\nroute add 10.77.0.0/16 dev tunnel");
    // The first host of the client's networks is the node itself; no route leads to the first of those around them.
    let usual = ["backend-1", "client"];
    for (ranges, expected) in [
        ("", &usual[..]),
        ("10.1.1.0/24,fd00:1:1::/64", &usual),
        ("10.0.0.0/8,fd00::/8", &usual),
        ("10.77.0.0/16", &["backend-1", "client", "tunnel"]),
    ] {
        let call = nodefwd(["render", "--fast-path=auto", "--src-ranges", ranges]);
        let call = call.args(&FORWARDS.split(' ').collect::<Vec<_>>());
        let rules = call.finish(&net.node).expect_success();
        let devices = rules.lines().find(|line| line.contains("devices = "));
        let names = devices.into_iter().flat_map(|line| line.split('"'));
        let names: BTreeSet<_> = names.skip(1).step_by(2).collect();
        let expected = if defect().is_some() { &[] } else { expected };
        assert_eq!(Vec::from_iter(names), expected, "{ranges}");
    }
}

/// A port of a bridge is enough for what goes over the bridge.
#[test]
fn check_warns_of_a_list_without_the_interfaces_that_lead_to_destinations() {
    let net = Net::new(1);
    net.node.ip("link add br9 type bridge\nlink set br9 up
         link add port type veth peer name end\nlink set port master br9 up
         route add 10.77.0.0/16 dev br9");
    for (list, destination, expected) in [
        ("client", "10.2.1.2", Some("backend-1")),
        ("client,backend-1", "10.2.1.2", None),
        ("client", "10.77.0.1", Some("br9, port")),
        ("client,port", "10.77.0.1", None),
        ("client,br9", "10.77.0.1", None),
    ] {
        let report = Report::of(
            &net.node,
            &format!("tcp/80={destination} --fast-path={list}"),
        );
        let mut lines = report.of_level("warning").into_iter();
        let warning = lines.find(|line| line.text.contains("in one direction only"));
        match (warning, expected) {
            (Some(line), Some(names)) => {
                expect_parts(
                    &line.text,
                    [format!("reached over {names} would not take it")],
                );
            }
            (found, expected) => assert!(found.is_none() && expected.is_none(), "{report:#?}"),
        }
    }
}
