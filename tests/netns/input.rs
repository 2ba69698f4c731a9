//! Input that is refused: status 2 and one line that names the variable and the offending part.
//!
//! All of this runs without CAP_NET_ADMIN, so it needs no root, and a program that touched the
//! kernel before it had read all of its input would fail with status 1.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::fixture::{Nodefwd, Outcome, nodefwd};

/// Right in every part.
const GOOD: [(&str, &str); 4] = [
    ("DEST_IPS", "10.2.0.11"),
    ("DEST_PROTO", "TCP"),
    ("SRC_PORT", "80"),
    ("DEST_PORT", "8080"),
];

/// A variable, a value that is refused, and the part of it that the message must show.
const BAD: [(&str, &str, &str); 47] = [
    ("DEST_IPS", "", ""),
    ("DEST_IPS", " , ", ""),
    ("DEST_IPS", "example", "example"),
    ("DEST_IPS", "10.2.0.11,example", "example"),
    ("DEST_IPS", "10.2.0.11 example", "example"),
    ("DEST_IPS", "10.2.0.11;10.2.0.12", "10.2.0.11;10.2.0.12"),
    ("DEST_IPS", "10.2.0.256", "10.2.0.256"),
    ("DEST_IPS", "10.2.0", "10.2.0"),
    ("DEST_IPS", "010.2.0.11", "010.2.0.11"),
    ("DEST_IPS", "10.2.0.11:80", "10.2.0.11:80"),
    ("DEST_IPS", "10.2.0.0/24", "10.2.0.0/24"),
    ("DEST_IPS", "10.2.0.11/32", "10.2.0.11/32"),
    ("DEST_IPS", "fd00:2::/64", "fd00:2::/64"),
    ("DEST_IPS", "::ffff:10.2.0.11", "::ffff:10.2.0.11"),
    ("DEST_IPS", "fe80::1%eth0", "fe80::1%eth0"),
    ("DEST_IPS", "[fd00:2::11]", "[fd00:2::11]"),
    ("DEST_IPS", "0.0.0.0", "0.0.0.0"),
    ("DEST_IPS", "::", "::"),
    ("DEST_IPS", "224.0.0.1", "224.0.0.1"),
    ("DEST_IPS", "239.255.255.255", "239.255.255.255"),
    ("DEST_IPS", "ff02::1", "ff02::1"),
    ("DEST_IPS", "255.255.255.255", "255.255.255.255"),
    ("DEST_IPS", "127.0.0.1", "127.0.0.1"),
    ("DEST_IPS", "127.255.0.9", "127.255.0.9"),
    ("DEST_IPS", "::1", "::1"),
    ("DEST_IPS", "fd00:2::11,10.2.0.11,127.0.0.1", "127.0.0.1"),
    ("DEST_PROTO", "", ""),
    ("DEST_PROTO", "icmp", "icmp"),
    ("DEST_PROTO", "6", "6"),
    ("DEST_PROTO", "TCP,icmp", "icmp"),
    ("SRC_PORT", "", ""),
    ("SRC_PORT", "0", "0"),
    ("SRC_PORT", "65536", "65536"),
    ("SRC_PORT", "80a", "80a"),
    ("SRC_PORT", "-80", "-80"),
    ("SRC_PORT", "+80", "+80"),
    ("SRC_PORT", "http", "http"),
    ("SRC_PORT", "90-80", "90-80"),
    ("SRC_PORT", "80-", "80-"),
    ("SRC_PORT", "80,443a", "443a"),
    ("SRC_PORT", "99999999999999999999", "99999999999999999999"),
    ("DEST_PORT", "0", "0"),
    ("DEST_PORT", "65536", "65536"),
    ("DEST_PORT", "80a", "80a"),
    ("DEST_PORT", "90-80", "90-80"),
    ("SRC_RANGES", "10.0.0.0/33", "10.0.0.0/33"),
    ("SRC_RANGES", "10.0.0.0/8,example", "example"),
];

fn good_but(changes: &[(&str, &OsStr)]) -> Nodefwd {
    let mut call = nodefwd([""; 0]).without_net_admin();
    for (name, value) in GOOD {
        if changes.iter().all(|(changed, _)| *changed != name) {
            call = call.env(name, value);
        }
    }
    for (name, value) in changes {
        call = call.env(name, value);
    }
    call
}

fn good_without(name: &str) -> Nodefwd {
    let rest = GOOD.iter().filter(|(other, _)| *other != name);
    rest.fold(
        nodefwd([""; 0]).without_net_admin(),
        |call, (name, value)| call.env(name, value),
    )
}

/// What is wrong with the refusal, if anything.
fn complaint(outcome: &Outcome, parts: &[&str]) -> Option<String> {
    let Outcome {
        status,
        stdout,
        stderr,
        ..
    } = outcome;
    let right = status.code() == Some(2)
        && stdout.is_empty()
        && stderr.lines().count() == 1
        && parts.iter().all(|part| stderr.contains(part));
    (!right).then(|| format!("expected 2 and {parts:?} in one line, got {outcome:?}"))
}

fn expect_none(complaints: impl Iterator<Item = String>) {
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Without it, the refusals below could have any other reason.
#[test]
fn the_good_values_are_good() {
    let rules = good_but(&[])
        .args(&["render"])
        .finish_here()
        .expect_success();
    assert!(rules.contains("10.2.0.11"), "{rules}");
}

#[test]
fn bad_values_of_variables_are_refused() {
    expect_none(BAD.iter().filter_map(|(name, value, part)| {
        let outcome = good_but(&[(*name, OsStr::new(value))]).finish_here();
        // The name holds digits and letters of its own: look for the part elsewhere.
        complaint(&outcome, &[name]).or_else(|| {
            let rest = outcome.stderr.replace(name, "");
            let missing = !rest.contains(part);
            missing.then(|| format!("'{part}' of {name}={value} is not in: {rest}"))
        })
    }));
}

#[test]
fn bad_values_of_flags_are_refused() {
    expect_none(BAD.iter().filter_map(|(name, value, part)| {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let call = good_without(name).args(&[&format!("{flag}={value}")]);
        complaint(&call.finish_here(), &[&flag, part])
    }));
}

#[test]
fn what_is_needed_and_missing_is_named() {
    expect_none(
        ["DEST_IPS", "DEST_PROTO", "SRC_PORT"]
            .iter()
            .filter_map(|name| complaint(&good_without(name).finish_here(), &[name])),
    );
}

#[test]
fn values_that_are_not_utf8_are_refused() {
    let names = [
        "DEST_IPS",
        "DEST_PROTO",
        "SRC_PORT",
        "DEST_PORT",
        "SRC_RANGES",
    ];
    expect_none(names.iter().filter_map(|name| {
        let call = good_but(&[(*name, OsStr::from_bytes(b"80\xff"))]);
        complaint(&call.finish_here(), &[name])
    }));
}

#[test]
fn an_unknown_flag_is_refused() {
    let outcome = good_but(&[]).args(&["--no-such-flag"]).finish_here();
    expect_none(complaint(&outcome, &["--no-such-flag"]).into_iter());
}

#[test]
fn an_unknown_word_is_refused() {
    let outcome = good_but(&[]).args(&["no-such-word"]).finish_here();
    expect_none(complaint(&outcome, &["no-such-word"]).into_iter());
}

/// What is refused to run is refused to be printed.
#[test]
fn render_refuses_the_same() {
    let call = good_but(&[("DEST_IPS", OsStr::new("10.2.0.11,example"))]);
    let outcome = call.args(&["render"]).finish_here();
    expect_none(complaint(&outcome, &["DEST_IPS", "example"]).into_iter());
}

#[test]
fn a_destination_named_twice_counts_once_with_a_warning() {
    let render = |destinations: &str| {
        let call = good_but(&[("DEST_IPS", OsStr::new(destinations))]);
        call.args(&["render"]).finish_here().expect_exit(0)
    };
    let once = render("10.2.0.11,10.2.0.12,fd00:2::11");
    let twice = render("10.2.0.11,10.2.0.12,10.2.0.11,fd00:2::11,fd00:2:0::11");
    assert_eq!(once.stderr, "");
    assert_eq!(once.stdout, twice.stdout);
    for part in ["DEST_IPS", "10.2.0.11", "fd00:2::11"] {
        assert!(
            twice.stderr.contains(part),
            "'{part}' is not in: {}",
            twice.stderr
        );
    }
}

/// In any case.
#[test]
fn a_protocol_named_twice_counts_once_with_a_warning() {
    let render = |protocols: &str| {
        let call = good_but(&[("DEST_PROTO", OsStr::new(protocols))]);
        call.args(&["render"]).finish_here().expect_exit(0)
    };
    let once = render("TCP,udp");
    let twice = render("TCP,udp,tcp");
    assert_eq!(once.stderr, "");
    assert_eq!(once.stdout, twice.stdout);
    let warning = "warning: DEST_PROTO (--dest-proto): tcp is listed more than once";
    assert!(twice.stderr.starts_with(warning), "{}", twice.stderr);
    assert_eq!(twice.stderr.lines().count(), 1, "{}", twice.stderr);
}

/// Nothing could be forwarded, whatever the host is like.
#[test]
fn addresses_to_listen_on_that_are_of_no_forwards_family_are_refused() {
    let v6 = "tcp/80=[fd00:2::11]:80";
    let v4 = "udp/53=10.2.0.11:53";
    let refused = [("10.1.0.1", v6, "IPv6"), ("fd00:1::1", v4, "IPv4")];
    expect_none(
        refused
            .iter()
            .flat_map(|(listen, forward, family)| {
                let reason = format!("has no {family} entry, so nothing would be forwarded");
                ["run", "check", "render"].map(|command| {
                    let call = nodefwd([command, "--listen", listen, forward]).without_net_admin();
                    let parts = ["NODEFWD_LISTEN (--listen)", forward, &reason];
                    complaint(&call.finish_here(), &parts)
                })
            })
            .flatten(),
    );
}

/// One of them is left: a warning tells of the other.
#[test]
fn addresses_to_listen_on_of_one_family_among_two_are_a_warning() {
    let call = nodefwd(["render", "--listen=10.1.0.1", "tcp/80=10.2.0.11,fd00:2::11"]);
    let stderr = call.finish_here().expect_exit(0).stderr;
    let warning =
        "warning: NODEFWD_LISTEN (--listen) has no IPv6 entry: nobody can connect over IPv6";
    assert_eq!(stderr.trim_end(), warning);
}

#[test]
fn forwards_with_commas_between_them_are_refused_with_what_belongs_there() {
    let forwards = "tcp/80=10.2.0.11,tcp/81=10.2.0.12";
    let parts = [
        "NODEFWD_FORWARDS",
        "'tcp/81=10.2.0.12'",
        "forwards are separated by white space",
    ];
    for call in [
        nodefwd([forwards]),
        nodefwd([""; 0]).env("NODEFWD_FORWARDS", forwards),
    ] {
        let outcome = call.without_net_admin().finish_here();
        expect_none(complaint(&outcome, &parts).into_iter());
    }
}

/// `--strict true` is the flag, which needs no value, and a forward.
#[test]
fn the_value_of_a_switch_without_an_equals_sign_is_refused_with_how_to_write_it() {
    expect_none(["true", "False", "yes", "no"].iter().filter_map(|value| {
        let call = nodefwd(["--strict", value]).without_net_admin();
        let written = format!("'{value}' is no forward");
        complaint(
            &call.finish_here(),
            &[&written, "behind '='", "--strict=true"],
        )
    }));
}

/// Each of the two by itself is well.
#[test]
fn hairpin_without_masquerading_is_a_warning() {
    let render = |arguments: &[&str]| {
        let call = nodefwd(["render", "tcp/80=10.2.0.11"]).args(arguments);
        call.finish_here().expect_exit(0).stderr
    };
    assert_eq!(
        render(&["--hairpin"]) + &render(&["--masquerade=false"]),
        ""
    );
    let stderr = render(&["--hairpin", "--masquerade=false"]);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in ["warning: ", "NODEFWD_HAIRPIN", "NODEFWD_MASQUERADE"] {
        assert!(stderr.contains(part), "'{part}' is not in: {stderr}");
    }
}
