//! What happens where the kernel does not forward one family or both.

use nix::sys::signal::Signal;

use crate::fixture::{Family, Monitor, Namespace, Net, Nodefwd, Outcome, Protocol, nodefwd};

/// What names a family's switch in a message.
struct Switch {
    key: &'static str,
    file: &'static str,
    remedy: &'static str,
}

fn switch(family: Family) -> Switch {
    match family {
        Family::V4 => Switch {
            key: "net/ipv4/ip_forward",
            file: "/proc/sys/net/ipv4/ip_forward",
            remedy: "sysctl -w net.ipv4.ip_forward=1",
        },
        Family::V6 => Switch {
            key: "net/ipv6/conf/all/forwarding",
            file: "/proc/sys/net/ipv6/conf/all/forwarding",
            remedy: "sysctl -w net.ipv6.conf.all.forwarding=1",
        },
    }
}

fn turn_off(namespace: &Namespace, family: Family) {
    namespace.set_sysctl(switch(family).key, "0");
}

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// Forwards TCP port 80 to the backend's addresses of these families.
fn forward(net: &Net, families: &[Family]) -> Nodefwd {
    let destinations = families
        .iter()
        .map(|f| net.backends[0].address(*f).to_string());
    nodefwd([""; 0])
        .env("DEST_IPS", destinations.collect::<Vec<_>>().join(" "))
        .env("DEST_PROTO", "TCP")
        .env("SRC_PORT", "80")
}

/// The lines that name the family's switch; each must name its value and its remedy too.
fn lines_about(family: Family, stderr: &str) -> usize {
    let switch = switch(family);
    let about = |line: &&str| line.contains(switch.file);
    let lines: Vec<_> = stderr.lines().filter(about).collect();
    for line in &lines {
        let rest = line.replace(switch.remedy, "");
        assert_ne!(&rest, line, "'{}' is not in '{line}'", switch.remedy);
        // The value, once the remedy's own digits and the names' are gone.
        let rest = rest.replace(switch.file, "");
        assert!(rest.contains('0'), "the value 0 is not in '{line}'");
    }
    lines.len()
}

#[track_caller]
fn expect_served(net: &Net, family: Family) {
    let answer = net.client.request(Protocol::Tcp, net.front(family, 80));
    assert_eq!(answer.expect("an answer").server, "backend-1");
}

/// Runs it where it must refuse, and shows that it did not even try to install anything.
#[track_caller]
fn expect_refusal(net: &Net, nodefwd: &Nodefwd) -> Outcome {
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
    expect_served(&net, other(off));
    net.client.expect_refused(Protocol::Tcp, net.front(off, 80));
    assert_eq!(
        lines_about(off, &forwarder.stderr()),
        1,
        "{}",
        forwarder.stderr()
    );
    assert_eq!(lines_about(other(off), &forwarder.stderr()), 0);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    let strict = forward.clone().args(&["--strict=true"]);
    let stderr = expect_refusal(&net, &strict).stderr;
    assert_eq!(lines_about(off, &stderr), 1, "{stderr}");
}

#[test]
fn ipv6_off_is_a_warning_beside_ipv4_and_an_error_with_strict() {
    one_family_off(Family::V6);
}

#[test]
fn ipv4_off_is_a_warning_beside_ipv6_and_an_error_with_strict() {
    one_family_off(Family::V4);
}

#[test]
fn the_only_family_off_is_an_error() {
    let net = Net::new(1);
    for family in Family::BOTH {
        turn_off(&net.node, family);
        let stderr = expect_refusal(&net, &forward(&net, &[family])).stderr;
        assert!(lines_about(family, &stderr) >= 1, "{stderr}");
        net.node.set_sysctl(switch(family).key, "1");
    }
}

#[test]
fn both_families_off_is_an_error_that_names_both() {
    let net = Net::new(1);
    for family in Family::BOTH {
        turn_off(&net.node, family);
    }
    let stderr = expect_refusal(&net, &forward(&net, &Family::BOTH)).stderr;
    for family in Family::BOTH {
        assert!(lines_about(family, &stderr) >= 1, "{stderr}");
    }
}

/// The other family has destinations, but no address to listen on.
#[test]
fn the_only_family_that_is_listened_on_off_is_an_error() {
    let net = Net::new(1);
    for family in Family::BOTH {
        let listen = net.client.gateway(family).to_string();
        let call = forward(&net, &Family::BOTH).env("NODEFWD_LISTEN", listen);
        turn_off(&net.node, family);
        let stderr = expect_refusal(&net, &call).stderr;
        assert_eq!(lines_about(family, &stderr), 1, "{stderr}");
        // Why the other one would not do.
        assert!(stderr.contains("NODEFWD_LISTEN"), "{stderr}");
        turn_off(&net.node, other(family));
        let stderr = expect_refusal(&net, &call).stderr;
        assert!(lines_about(family, &stderr) >= 1, "{stderr}");
        for family in Family::BOTH {
            net.node.set_sysctl(switch(family).key, "1");
        }
    }
}

#[test]
fn a_family_that_is_not_listened_on_may_be_off() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(80);
    for off in Family::BOTH {
        turn_off(&net.node, off);
        let listen = net.client.gateway(other(off)).to_string();
        let call = forward(&net, &Family::BOTH).env("NODEFWD_LISTEN", listen);
        let forwarder = call.start(&net.node);
        expect_served(&net, other(off));
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        net.node.set_sysctl(switch(off).key, "1");
    }
}

#[test]
fn a_family_without_destinations_may_be_off() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(80);
    turn_off(&net.node, Family::V6);
    let strict = forward(&net, &[Family::V4]).args(&["--strict=true"]);
    let forwarder = strict.start(&net.node);
    expect_served(&net, Family::V4);
    assert!(
        !forwarder.stderr().contains("ipv6"),
        "{}",
        forwarder.stderr()
    );
}

/// A kernel without IPv6 has no /proc/sys/net/ipv6; an empty directory is as good as none.
#[test]
fn a_kernel_without_ipv6_counts_as_ipv6_off() {
    const SCRIPT: &str = "mount -t tmpfs none /proc/sys/net/ipv6 && exec \"$@\"";
    let without_ipv6 = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh"];
    let net = Net::new(1);
    let _server = net.backends[0].serve(80);
    let file = switch(Family::V6).file;

    let both = forward(&net, &Family::BOTH).wrapped(&without_ipv6);
    let forwarder = both.start(&net.node);
    expect_served(&net, Family::V4);
    net.client
        .expect_refused(Protocol::Tcp, net.front(Family::V6, 80));
    assert!(forwarder.stderr().contains(file), "{}", forwarder.stderr());
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    for call in [
        both.args(&["--strict=true"]),
        forward(&net, &[Family::V6]).wrapped(&without_ipv6),
    ] {
        let stderr = expect_refusal(&net, &call).stderr;
        assert!(stderr.contains(file), "{stderr}");
    }
}
