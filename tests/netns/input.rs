//! Invalid input: status 2, and one line that names the variable and the invalid part.
//!
//! All of this runs without CAP_NET_ADMIN, so it needs no root, and a program that opened netlink
//! before it had read all of its input would fail with status 1.

mod env_file;
mod typos;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::fixture::{Nodefwd, Outcome, expect_parts, nodefwd};

/// Valid in every part.
const VALID: [(&str, &str); 4] = [
    ("DEST_IPS", "10.2.0.11"),
    ("DEST_PROTO", "TCP"),
    ("SRC_PORT", "80"),
    ("DEST_PORT", "8080"),
];

/// A variable, an invalid value, and the part of it that the message must show.
const INVALID: [(&str, &str, &str); 53] = [
    ("DEST_IPS", "", ""),
    ("DEST_IPS", " , ", ""),
    ("DEST_IPS", "exa$mple", "exa$mple"),
    ("DEST_IPS", "10.2.0.11,exa$mple", "exa$mple"),
    ("DEST_IPS", "10.2.0.11 exa$mple", "exa$mple"),
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
    ("DEST_IPS", "fe80::5", "fe80::5"),
    ("DEST_IPS", "fd00:2::11,febf::5", "febf::5"),
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
    ("SRC_PORT", "nosuch", "nosuch"),
    ("SRC_PORT", "90-80", "90-80"),
    ("SRC_PORT", "80-", "80-"),
    ("SRC_PORT", "80,443a", "443a"),
    ("SRC_PORT", "99999999999999999999", "99999999999999999999"),
    ("DEST_PORT", "0", "0"),
    ("DEST_PORT", "65536", "65536"),
    ("DEST_PORT", "80a", "80a"),
    ("DEST_PORT", "90-80", "90-80"),
    ("SRC_RANGES", ",", ""),
    ("SRC_RANGES", ", ,,", ""),
    ("SRC_RANGES", " ", ""),
    ("SRC_RANGES", "\n", ""),
    ("SRC_RANGES", "10.0.0.0/33", "10.0.0.0/33"),
    ("SRC_RANGES", "10.0.0.0/8,example", "example"),
];

fn valid_except(changes: &[(&str, &OsStr)]) -> Nodefwd {
    let mut call = nodefwd([""; 0]).without_net_admin();
    for (name, value) in VALID {
        if changes.iter().all(|(changed, _)| *changed != name) {
            call = call.env(name, value);
        }
    }
    for (name, value) in changes {
        call = call.env(name, value);
    }
    call
}

fn valid_without(name: &str) -> Nodefwd {
    let rest = VALID.iter().filter(|(other, _)| *other != name);
    rest.fold(
        nodefwd([""; 0]).without_net_admin(),
        |call, (name, value)| call.env(name, value),
    )
}

/// What is wrong with a rejection, if anything.
fn complaint(outcome: &Outcome, parts: &[&str]) -> Option<String> {
    let Outcome {
        status,
        stdout,
        stderr,
        ..
    } = outcome;
    let as_expected = status.code() == Some(2)
        && stdout.is_empty()
        && stderr.lines().count() == 1
        && parts.iter().all(|part| stderr.contains(part));
    (!as_expected).then(|| format!("expected 2 and {parts:?} in one line, got {outcome:?}"))
}

fn expect_no_complaint(complaints: impl Iterator<Item = String>) {
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Otherwise the rejections below could have another reason.
#[test]
fn the_valid_values_are_accepted() {
    let rules = valid_except(&[])
        .args(&["render"])
        .finish_here()
        .expect_success();
    assert!(rules.contains("10.2.0.11"), "{rules}");
}

#[test]
fn invalid_values_of_variables_are_rejected() {
    expect_no_complaint(INVALID.iter().filter_map(|(name, value, part)| {
        let outcome = valid_except(&[(*name, OsStr::new(value))]).finish_here();
        // The part must not be found in the name of the variable.
        complaint(&outcome, &[name]).or_else(|| {
            let rest = outcome.stderr.replace(name, "");
            let missing = !rest.contains(part);
            missing.then(|| format!("'{part}' of {name}={value} is not in: {rest}"))
        })
    }));
}

#[test]
fn invalid_values_of_flags_are_rejected() {
    expect_no_complaint(INVALID.iter().filter_map(|(name, value, part)| {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let call = valid_without(name).args(&[&format!("{flag}={value}")]);
        complaint(&call.finish_here(), &[&flag, part])
    }));
}

#[test]
fn a_missing_variable_is_named() {
    expect_no_complaint(
        ["DEST_IPS", "DEST_PROTO", "SRC_PORT"]
            .iter()
            .filter_map(|name| complaint(&valid_without(name).finish_here(), &[name])),
    );
}

#[test]
fn a_variable_without_the_others_that_it_takes_names_itself_too() {
    let call = |name, value| nodefwd([""; 0]).without_net_admin().env(name, value);
    let rejected = [
        (call("DEST_IPS", "10.2.0.11"), "DEST_IPS", "DEST_PROTO"),
        (call("DEST_PORT", "8080"), "DEST_PORT", "DEST_IPS"),
        (valid_without("SRC_PORT"), "DEST_IPS", "SRC_PORT"),
    ];
    expect_no_complaint(rejected.iter().filter_map(|(call, set, missing)| {
        let what = format!("{set} is set, but {missing} (--");
        let unset = format!(", or unset {set}");
        complaint(&call.finish_here(), &[&what, " is not: give ", &unset])
    }));
}

#[test]
fn values_that_are_not_utf8_are_rejected() {
    let names = [
        "DEST_IPS",
        "DEST_PROTO",
        "SRC_PORT",
        "DEST_PORT",
        "SRC_RANGES",
    ];
    expect_no_complaint(names.iter().filter_map(|name| {
        let call = valid_except(&[(*name, OsStr::from_bytes(b"80\xff"))]);
        complaint(&call.finish_here(), &[name])
    }));
}

#[test]
fn an_unknown_flag_is_rejected() {
    let outcome = valid_except(&[]).args(&["--no-such-flag"]).finish_here();
    expect_no_complaint(complaint(&outcome, &["--no-such-flag"]).into_iter());
}

#[test]
fn an_unknown_word_is_rejected() {
    let outcome = valid_except(&[]).args(&["no-such-word"]).finish_here();
    expect_no_complaint(complaint(&outcome, &["no-such-word"]).into_iter());
}

/// Each with the help of the command.
#[test]
fn a_wrong_command_line_is_rejected_with_what_is_allowed() {
    let rejected: [(&[&str], &str); 4] = [
        (
            &["status", "--format", "xml"],
            "'xml' for '--format <FORMAT>' [possible values: text, json, prometheus]; nodefwd status --help lists",
        ),
        (
            &["completions", "powershell"],
            "[possible values: bash, fish, zsh]; nodefwd completions --help lists",
        ),
        (
            &["completions"],
            "were not provided: <SHELL>; nodefwd completions --help lists",
        ),
        (&["--no-such-flag"], "found; nodefwd --help lists"),
    ];
    expect_no_complaint(rejected.iter().filter_map(|(arguments, text)| {
        let call = nodefwd(arguments.iter().copied()).without_net_admin();
        complaint(&call.finish_here(), &[text])
    }));
}

#[test]
fn render_rejects_the_same_input() {
    let call = valid_except(&[("DEST_IPS", OsStr::new("10.2.0.11,exa$mple"))]);
    let outcome = call.args(&["render"]).finish_here();
    expect_no_complaint(complaint(&outcome, &["DEST_IPS", "exa$mple"]).into_iter());
}

#[test]
fn a_backend_that_is_listed_twice_counts_once_with_a_warning() {
    let render = |destinations: &str| {
        let call = valid_except(&[("DEST_IPS", OsStr::new(destinations))]);
        call.args(&["render"]).finish_here().expect_exit(0)
    };
    let once = render("10.2.0.11,10.2.0.12,fd00:2::11");
    let twice = render("10.2.0.11,10.2.0.12,10.2.0.11,fd00:2::11,fd00:2:0::11");
    assert_eq!(once.stderr, "");
    assert_eq!(once.stdout, twice.stdout);
    expect_parts(&twice.stderr, ["DEST_IPS", "10.2.0.11", "fd00:2::11"]);
    let render = |forward: &str| nodefwd(["render", forward]).finish_here().expect_exit(0);
    let [once, twice] =
        ["10.2.0.11", "10.2.0.11,10.2.0.11"].map(|to| render(&format!("tcp/80={to}")));
    assert_eq!(once.stdout, twice.stdout);
    let warning = "warning: destination 10.2.0.11:80 is listed more than once: it counts once\n";
    assert_eq!(twice.stderr, warning);
}

/// In upper or lower case.
#[test]
fn a_protocol_that_is_listed_twice_counts_once_with_a_warning() {
    let render = |protocols: &str| {
        let call = valid_except(&[("DEST_PROTO", OsStr::new(protocols))]);
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

/// Nothing would be forwarded, on any host.
#[test]
fn addresses_to_listen_on_without_the_family_of_any_forward_are_rejected() {
    let v6 = "tcp/80=[fd00:2::11]:80";
    let v4 = "udp/53=10.2.0.11:53";
    let rejected = [("10.1.0.1", v6, "IPv6"), ("fd00:1::1", v4, "IPv4")];
    expect_no_complaint(
        rejected
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

#[test]
fn addresses_to_listen_on_of_only_one_of_two_families_are_a_warning() {
    let call = nodefwd(["render", "--listen=10.1.0.1", "tcp/80=10.2.0.11,fd00:2::11"]);
    let stderr = call.finish_here().expect_exit(0).stderr;
    let warning =
        "warning: NODEFWD_LISTEN (--listen) has no IPv6 entry: no client can connect over IPv6";
    assert_eq!(stderr.trim_end(), warning);
}

#[test]
fn forwards_separated_by_commas_are_rejected_with_the_right_separator() {
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
        expect_no_complaint(complaint(&outcome, &parts).into_iter());
    }
}

/// The flag `--strict` needs no value, so in `--strict true` the second word is a forward.
#[test]
fn the_value_of_a_boolean_flag_without_an_equals_sign_is_rejected_with_how_to_write_it() {
    expect_no_complaint(["true", "False", "yes", "no"].iter().filter_map(|value| {
        let call = nodefwd(["--strict", value]).without_net_admin();
        let written = format!("'{value}' is no forward");
        complaint(
            &call.finish_here(),
            &[&written, "after '='", "--strict=true"],
        )
    }));
}

#[test]
fn a_word_that_is_no_command_and_a_flag_that_is_none_name_the_nearest() {
    let tip = |flag: &str| format!("a similar argument exists: '{flag}'");
    expect_no_complaint(
        [
            (
                &["rendr", "tcp/80=10.2.0.11"][..],
                "did you mean 'render'?".to_owned(),
            ),
            (
                &["--strict", "status"],
                "the command 'status' goes before its options: nodefwd status".into(),
            ),
            (&["--listn=any", "tcp/80=10.2.0.11"], tip("--listen")),
            (&["check", "--conect"], tip("--connect")),
            (&["status", "--formt=json"], tip("--format")),
        ]
        .iter()
        .filter_map(|(arguments, part)| {
            let call = nodefwd(*arguments).without_net_admin();
            complaint(&call.finish_here(), &[part])
        }),
    );
}

/// Either of the two alone is none.
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
    expect_parts(
        &stderr,
        ["warning: ", "NODEFWD_HAIRPIN", "NODEFWD_MASQUERADE"],
    );
}
