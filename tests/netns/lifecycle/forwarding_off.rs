//! Hosts whose kernel does not forward one family, or both.

use nix::sys::signal::Signal;

use crate::fixture::{
    Family, Monitor, Namespace, Net, Nodefwd, Outcome, Protocol, expect_parts, nodefwd,
};

/// The sysctl that turns a family's forwarding on, and how messages name it.
struct Sysctl {
    key: &'static str,
    file: &'static str,
    fix: &'static str,
}

fn sysctl(family: Family) -> Sysctl {
    match family {
        Family::V4 => Sysctl {
            key: "net/ipv4/ip_forward",
            file: "/proc/sys/net/ipv4/ip_forward",
            fix: "sysctl -w net.ipv4.ip_forward=1",
        },
        Family::V6 => Sysctl {
            key: "net/ipv6/conf/all/forwarding",
            file: "/proc/sys/net/ipv6/conf/all/forwarding",
            fix: "sysctl -w net.ipv6.conf.all.forwarding=1",
        },
    }
}

fn turn_off(namespace: &Namespace, family: Family) {
    namespace.set_sysctl(sysctl(family).key, "0");
}

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// Forwards TCP port 80 to the backend's addresses of these families.
fn forward(net: &Net, families: &[Family]) -> Nodefwd {
    let backend = &net.backends[0];
    let addresses = families
        .iter()
        .map(|family| backend.address(*family).to_string());
    nodefwd([""; 0])
        .env("DEST_IPS", addresses.collect::<Vec<_>>().join(" "))
        .env("DEST_PROTO", "TCP")
        .env("SRC_PORT", "80")
}

/// How many lines name the family's sysctl; each must name its value and the fix too.
#[track_caller]
fn lines_about(family: Family, stderr: &str) -> usize {
    let sysctl = sysctl(family);
    let about = |line: &&str| line.contains(sysctl.file);
    let lines: Vec<_> = stderr.lines().filter(about).collect();
    for line in &lines {
        let rest = line.replace(sysctl.fix, "");
        assert_ne!(&rest, line, "'{}' is not in '{line}'", sysctl.fix);
        // The fix and the file have digits of their own.
        let rest = rest.replace(sysctl.file, "");
        assert!(rest.contains('0'), "the value 0 is not in '{line}'");
    }
    lines.len()
}

#[track_caller]
fn expect_forwarded(net: &Net, family: Family) {
    let reply = net.client.request(Protocol::Tcp, net.node_addr(family, 80));
    assert_eq!(reply.expect("a reply").server, "backend-1");
}

/// Runs it where it must exit with status 1, without an attempt to install anything.
#[track_caller]
fn expect_failure(net: &Net, nodefwd: &Nodefwd) -> Outcome {
    let monitor = Monitor::start(&net.node);
    let outcome = nodefwd.finish(&net.node).expect_exit(1);
    assert_eq!(monitor.changes(), "", "{outcome:?}");
    outcome
}

fn one_family_off(off: Family) {
    let net = Net::new(1);
    let _server = net.backends[0].serve(80);
    turn_off(&net.node, off);
    let forward = forward(&net, &Family::BOTH);

    let forwarder = forward.start(&net.node);
    expect_forwarded(&net, other(off));
    net.client
        .expect_refused(Protocol::Tcp, net.node_addr(off, 80));
    let stderr = forwarder.stderr();
    assert_eq!(lines_about(off, &stderr), 1, "{stderr}");
    assert_eq!(lines_about(other(off), &stderr), 0, "{stderr}");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    let strict = forward.clone().args(&["--strict=true"]);
    let stderr = expect_failure(&net, &strict).stderr;
    assert_eq!(lines_about(off, &stderr), 1, "{stderr}");
}

#[test]
fn a_node_that_does_not_forward_ipv6_forwards_ipv4_with_a_warning_and_fails_with_strict() {
    one_family_off(Family::V6);
}

#[test]
fn a_node_that_does_not_forward_ipv4_forwards_ipv6_with_a_warning_and_fails_with_strict() {
    one_family_off(Family::V4);
}

#[test]
fn without_forwarding_of_the_only_family_it_fails() {
    let net = Net::new(1);
    for family in Family::BOTH {
        turn_off(&net.node, family);
        let stderr = expect_failure(&net, &forward(&net, &[family])).stderr;
        assert!(lines_about(family, &stderr) >= 1, "{stderr}");
        net.node.set_sysctl(sysctl(family).key, "1");
    }
}

#[test]
fn without_forwarding_of_either_family_it_fails_and_names_both() {
    let net = Net::new(1);
    for family in Family::BOTH {
        turn_off(&net.node, family);
    }
    let stderr = expect_failure(&net, &forward(&net, &Family::BOTH)).stderr;
    for family in Family::BOTH {
        assert_eq!(lines_about(family, &stderr), 1, "{stderr}");
    }
    // In one error, after no warning.
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: cannot forward: "), "{stderr}");
    assert!(!stderr.contains("going on"), "{stderr}");
}

/// The other family has backends, but no address to listen on.
#[test]
fn without_forwarding_of_the_only_family_that_it_listens_on_it_fails() {
    let net = Net::new(1);
    for family in Family::BOTH {
        let listen = net.client.gateway(family).to_string();
        let call = forward(&net, &Family::BOTH).env("NODEFWD_LISTEN", listen);
        turn_off(&net.node, family);
        let stderr = expect_failure(&net, &call).stderr;
        assert_eq!(lines_about(family, &stderr), 1, "{stderr}");
        // Why the other family is not forwarded either.
        expect_parts(&stderr, ["NODEFWD_LISTEN"]);
        turn_off(&net.node, other(family));
        let stderr = expect_failure(&net, &call).stderr;
        assert!(lines_about(family, &stderr) >= 1, "{stderr}");
        for family in Family::BOTH {
            net.node.set_sysctl(sysctl(family).key, "1");
        }
    }
}

/// With strict, or if the other family could not be forwarded anyway, nothing goes on.
#[test]
fn without_forwarding_of_either_family_it_does_not_say_that_it_goes_on_where_it_does_not() {
    let net = Net::new(1);
    for family in Family::BOTH {
        turn_off(&net.node, family);
    }
    let both = forward(&net, &Family::BOTH);
    let ipv4_only = format!("--listen={}", net.client.gateway(Family::V4));
    for option in ["--strict", &ipv4_only] {
        let stderr = expect_failure(&net, &both.clone().args(&[option])).stderr;
        assert!(!stderr.contains("going on"), "{option}: {stderr}");
        let error = stderr.lines().last().expect("an error");
        expect_parts(error, [sysctl(Family::V4).fix]);
    }
}

#[test]
fn a_family_that_it_does_not_listen_on_needs_no_forwarding() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(80);
    for off in Family::BOTH {
        turn_off(&net.node, off);
        let listen = net.client.gateway(other(off)).to_string();
        let call = forward(&net, &Family::BOTH).env("NODEFWD_LISTEN", listen);
        let forwarder = call.start(&net.node);
        expect_forwarded(&net, other(off));
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        net.node.set_sysctl(sysctl(off).key, "1");
    }
}

#[test]
fn a_family_without_backends_needs_no_forwarding_even_with_strict() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(80);
    turn_off(&net.node, Family::V6);
    let strict = forward(&net, &[Family::V4]).args(&["--strict=true"]);
    let forwarder = strict.start(&net.node);
    expect_forwarded(&net, Family::V4);
    let stderr = forwarder.stderr();
    assert!(!stderr.contains("ipv6"), "{stderr}");
}

/// A kernel without IPv6 has no /proc/sys/net/ipv6, nor a list of its addresses; here empty directories are in
/// their places.
#[test]
fn a_node_without_ipv6_forwards_ipv4() {
    const SCRIPT: &str = "mount -t tmpfs none /proc/sys/net/ipv6 &&
        mount -t tmpfs none /proc/$$/task/$$/net && exec \"$@\"";
    let without_ipv6 = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh"];
    let net = Net::new(1);
    let _server = net.backends[0].serve(80);
    let file = sysctl(Family::V6).file;

    let both = forward(&net, &Family::BOTH).wrapped(&without_ipv6);
    let forwarder = both.start(&net.node);
    expect_forwarded(&net, Family::V4);
    net.client
        .expect_refused(Protocol::Tcp, net.node_addr(Family::V6, 80));
    expect_parts(&forwarder.stderr(), ["IPv6 is not available", file]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    for call in [
        both.args(&["--strict=true"]),
        forward(&net, &[Family::V6]).wrapped(&without_ipv6),
    ] {
        let stderr = expect_failure(&net, &call).stderr;
        expect_parts(&stderr, [file]);
    }
}

/// The call, where a shell command has been run in a mount namespace of its own.
fn after_mount(call: Nodefwd, mount: &str) -> Nodefwd {
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    call.wrapped(&["unshare", "--mount", "sh", "-c", &script])
}

/// As with ProcSubset=pid in a unit, or in a container whose runtime leaves /proc out; and the families whose
/// switches cannot be seen then.
pub const HIDDEN: [(&str, &str, &[&str]); 6] = [
    (
        "mount -t proc -o subset=pid proc /proc",
        "without /proc/sys (subset=pid",
        &["IPv4", "IPv6"],
    ),
    (
        "mount -t tmpfs none /proc",
        "/proc is not mounted here",
        &["IPv4", "IPv6"],
    ),
    (
        "mount -t tmpfs none /proc/sys/net",
        "something is mounted over",
        &["IPv4", "IPv6"],
    ),
    (
        "mount -t tmpfs none /proc/sys/net/ipv6",
        "something is mounted over",
        &["IPv6"],
    ),
    (
        "mount --bind /dev/null /proc/sys/net/ipv4/ip_forward",
        "something is mounted over",
        &["IPv4"],
    ),
    (
        "mount --bind /proc/version /proc/sys/net/ipv6/conf/all/forwarding",
        "something is mounted over",
        &["IPv6"],
    ),
];

#[test]
fn where_proc_is_hidden_it_says_that_it_cannot_tell() {
    let node = Namespace::forwarding("node");
    for (mount, why, families) in HIDDEN {
        let call = nodefwd(["--strict", "tcp/80=10.2.0.11,fd00:2::11"]);
        let stderr = after_mount(call, mount).finish(&node).expect_exit(1).stderr;
        for family in families {
            let unknown = format!("cannot tell whether {family} forwarding is on");
            expect_parts(&stderr, [unknown.as_str(), why]);
            let to = if *family == "IPv4" {
                "10.2.0.11"
            } else {
                "fd00:2::11"
            };
            let check = nodefwd(["check", &format!("tcp/80={to}")]);
            let stdout = after_mount(check, mount)
                .finish(&node)
                .expect_exit(1)
                .stdout;
            expect_parts(&stdout, [&format!("failure: forwarding: {unknown}"), why]);
            if families.len() > 1 {
                expect_parts(
                    &stdout,
                    ["warning: connections: cannot tell how many are tracked"],
                );
            }
        }
        for wrong in ["is not available", "start the kernel"] {
            assert!(!stderr.contains(wrong), "{stderr}");
        }
        assert_eq!(node.ruleset(), "");
    }
}

/// As a start says it there.
#[test]
fn where_proc_is_hidden_status_says_that_it_is_not_ready() {
    let node = Namespace::forwarding("node");
    let _forwarder = nodefwd(["--name=web", "tcp/80=10.2.0.11,fd00:2::11"]).start(&node);
    for (mount, why, families) in HIDDEN {
        for call in [&["status", "--ready"][..], &["status", "--ready", "web"]] {
            let probe = after_mount(nodefwd(call), mount);
            let stderr = probe.finish(&node).expect_exit(1).stderr;
            for family in families {
                let unknown = format!("cannot tell whether {family} forwarding is on");
                expect_parts(&stderr, ["error: not ready: ", &unknown, why]);
            }
        }
    }
    nodefwd(["status", "--ready"]).finish(&node).expect_exit(0);
}
