//! The options that rules show, and what is left out.

use serde_json::{Value, json};

use super::status;
use crate::fixture::{Namespace, Nodefwd, expect_parts, nodefwd};

fn defaults() -> Value {
    json!({
        "src_ranges": null,
        "listen": "local",
        "balance": null,
        "output": false,
        "masquerade": true,
        "fully_random": true,
        "clamp_mss": false,
        "hairpin": false,
        "fast_path": [],
    })
}

/// Starts it, and gives what the status says of it.
fn shown(call: &Nodefwd, node: &Namespace) -> Value {
    let _forwarder = call.start(node);
    status(node)["instances"][0].clone()
}

/// Options, each with its value in JSON.
type Shown = &'static [(&'static str, &'static str)];

/// Arguments, and the options that are not as by default.
const SHOWN: [(&[&str], Shown); 16] = [
    (&["tcp/80=10.2.0.11"], &[]),
    (
        &["tcp/80=10.2.0.11,10.2.0.12"],
        &[("balance", "\"random\"")],
    ),
    (
        &["--balance=round-robin", "udp/80-90=10.2.0.11,10.2.0.12"],
        &[("balance", "\"round-robin\"")],
    ),
    (
        &["--balance=source", "tcp/80=fd00::11,fd00::12"],
        &[("balance", "\"source\"")],
    ),
    (
        &["--listen=any", "tcp/80=10.2.0.11"],
        &[("listen", "\"any\"")],
    ),
    (
        &["--listen=any", "--masquerade=false", "tcp/80=fd00::11"],
        &[("listen", "\"any\""), ("masquerade", "false")],
    ),
    (
        &["--listen=eth7,10.9.0.1", "tcp/80=10.2.0.11"],
        &[("listen", "\"10.9.0.1,eth7\"")],
    ),
    (&["--output", "tcp/80=10.2.0.11"], &[("output", "true")]),
    (
        &["--fully-random=false", "tcp/80=10.2.0.11,fd00::11"],
        &[("fully_random", "false")],
    ),
    (
        &["--clamp-mss", "tcp/80=10.2.0.11"],
        &[("clamp_mss", "true")],
    ),
    (&["--hairpin", "tcp/80=10.2.0.11"], &[("hairpin", "true")]),
    (
        &["--src-ranges=10.8.0.0/15,10.1.0.1", "tcp/80=10.2.0.11"],
        &[("src_ranges", r#"["10.1.0.1/32", "10.8.0.0/15"]"#)],
    ),
    (
        &[
            "--src-ranges=fd00::/8,0.0.0.0/0",
            "tcp/80=10.2.0.11,fd00::11",
        ],
        &[("src_ranges", r#"["0.0.0.0/0", "fd00::/8"]"#)],
    ),
    (
        &["--src-ranges=10.0.0.0/8", "tcp/80=10.2.0.11,fd00::11"],
        &[("src_ranges", r#"["10.0.0.0/8"]"#)],
    ),
    (
        &["--src-ranges=10.0.0.0/8", "tcp/80-81=fd00::11"],
        &[("src_ranges", "[]")],
    ),
    (&["--src-ranges=0.0.0.0/0,::/0", "tcp/80=10.2.0.11"], &[]),
];

#[test]
fn options_are_read_back_from_the_rules() {
    let node = Namespace::forwarding("node");
    for (arguments, differing) in SHOWN {
        let mut expected = defaults();
        for (option, value) in differing {
            expected[option] = serde_json::from_str(value).expect("JSON");
        }
        let instance = shown(&nodefwd(arguments.iter().copied()), &node);
        assert_eq!(instance["options"], expected, "{arguments:?}");
    }
}

#[test]
fn the_text_names_options_that_are_not_as_by_default() {
    let node = Namespace::forwarding("node");
    let call = nodefwd(["--hairpin", "--listen=any", "--src-ranges=10.0.0.0/8"]);
    let _forwarder = call.args(&["tcp/80=10.2.0.11,10.2.0.12"]).start(&node);
    let text = nodefwd(["status"]).finish(&node).expect_success();
    let line = "\n  options: src-ranges 10.0.0.0/8; listen any; balance random; hairpin true\n";
    expect_parts(&text, [line]);
}

/// The reason is that of now: forwarding is still off, or the option has no entry of the family.
#[test]
fn what_is_left_out_is_shown_with_the_reason() {
    let node = Namespace::forwarding("node");
    let left_out = |arguments: &[&str]| {
        let call = nodefwd(arguments.iter().copied()).args(&["tcp/80=10.2.0.11,fd00::11"]);
        let instance = shown(&call, &node);
        let left_out = instance["left_out"].as_array().expect("a list").clone();
        let shown = left_out.iter().map(|entry| {
            let text = |field: &str| entry[field].as_str().expect("a text").to_owned();
            (text("family"), text("reason"))
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(left_out(&[]), []);
    for (arguments, option) in [
        ("--listen=10.1.0.1", "NODEFWD_LISTEN (--listen)"),
        ("--src-ranges=10.0.0.0/8", "SRC_RANGES (--src-ranges)"),
    ] {
        let reason = format!("{option} has no IPv6 entry: no client can connect over IPv6");
        assert_eq!(left_out(&[arguments]), [("ipv6".to_owned(), reason)]);
    }
    for (sysctl, family, other) in [
        (
            "net/ipv4/ip_forward",
            "ipv4",
            "net/ipv6/conf/all/forwarding",
        ),
        (
            "net/ipv6/conf/all/forwarding",
            "ipv6",
            "net/ipv4/ip_forward",
        ),
    ] {
        node.set_sysctl(sysctl, "0");
        // An address to listen on of that family is none of the reasons.
        let listen = "--listen=10.1.0.1,fd00::1";
        let found = left_out(&[listen]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, family);
        expect_parts(&found[0].1, [sysctl, "sysctl -w"]);
        assert!(!found[0].1.contains(other), "{found:?}");
        node.set_sysctl(sysctl, "1");
    }
}

/// A family that is left out is no reason not to be ready; one whose forwarding is switched off is.
#[test]
fn ready_is_about_the_families_that_are_forwarded() {
    let node = Namespace::forwarding("node");
    node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    let _forwarder = nodefwd(["tcp/80=10.2.0.11,fd00::11"]).start(&node);
    let probe = nodefwd(["status", "--ready"]);
    probe.finish(&node).expect_success();
    node.set_sysctl("net/ipv4/ip_forward", "0");
    let stderr = probe.finish(&node).expect_exit(1).stderr;
    expect_parts(&stderr, ["error: not ready: ", "net.ipv4.ip_forward=1"]);
}

/// Its first chain is empty by then.
#[test]
fn an_instance_that_drains_shows_what_it_listened_on() {
    use crate::fixture::{Family, ForwardedConnection};
    use nix::sys::signal::Signal;
    let mut forwarded = ForwardedConnection::start(Family::V4, |call| {
        call.args(&["--drain=3600", "--listen=any"])
    });
    forwarded.forwarder.signal(Signal::SIGTERM);
    forwarded.forwarder.wait_until_draining(1);
    let instance = &status(&forwarded.net.node)["instances"][0];
    assert_eq!(instance["options"]["listen"], "any", "{instance:#}");
    assert_eq!(instance["accepting"], false);
}
