//! What a start needs of the kernel: privileges, forwarding, rules, a free name and free ports.

use nix::sys::signal::Signal;

use super::{Line, Report, shell};
use crate::fixture::{Namespace, Nodefwd, expect_parts, nodefwd};

fn check(arguments: &[&str]) -> Nodefwd {
    nodefwd(["check", "tcp/80=10.2.0.11"]).args(arguments)
}

/// A node with a default route of each family.
fn node() -> Namespace {
    let node = Namespace::forwarding("node");
    node.ip("link add uplink type veth peer name other
         addr add 10.1.0.1/24 dev uplink
         addr add fd00:1::1/64 dev uplink nodad
         link set uplink up
         link set other up
         route add default via 10.1.0.2
         route add default via fd00:1::2");
    node
}

#[test]
fn without_cap_net_admin_the_checks_that_do_not_need_it_are_made() {
    let node = node();
    let report = Report::from(&check(&[]).without_net_admin(), &node);
    let failure = report.only("failure", "privileges");
    expect_parts(
        &failure.text,
        [
            "CAP_NET_ADMIN",
            "--cap-add=NET_ADMIN",
            "AmbientCapabilities",
        ],
    );
    for subject in ["rules", "instances", "firewall", "other NAT"] {
        assert!(
            report.0.iter().all(|line| line.subject != subject),
            "{report:#?}"
        );
    }
    report.line("ok", "routes");
}

#[test]
fn a_family_that_the_host_does_not_forward_is_a_warning_or_a_failure_as_for_a_start() {
    let node = node();
    let both = "tcp/80=10.2.0.11,fd00:2::11";
    let ipv4 = ("net/ipv4/ip_forward", "sysctl -w net.ipv4.ip_forward=1");
    let ipv6 = (
        "net/ipv6/conf/all/forwarding",
        "sysctl -w net.ipv6.conf.all.forwarding=1",
    );
    for (file, command) in [ipv4, ipv6] {
        node.set_sysctl(file, "0");
        let report = Report::of(&node, both);
        let lines: Vec<_> = report.0.iter().filter(|line| line.level != "ok").collect();
        assert_eq!(lines.len(), 1, "{report:#?}");
        assert_eq!(
            (&*lines[0].level, &*lines[0].subject),
            ("warning", "forwarding")
        );
        assert_eq!(lines[0].command(), command);

        let strict = Report::of(&node, &format!("{both} --strict"));
        assert_eq!(strict.of_level("failure").len(), 1, "{strict:#?}");
        shell(&node, command);
        Report::of(&node, both).expect_ok();
    }
    for (file, _) in [ipv4, ipv6] {
        node.set_sysctl(file, "0");
    }
    let report = Report::of(&node, both);
    let failed: Vec<&str> = report
        .of_level("failure")
        .iter()
        .map(|line| line.command())
        .collect();
    assert_eq!(failed[..2], [ipv4.1, ipv6.1], "{report:#?}");
}

/// The other family has backends, but no address to listen on.
#[test]
fn without_forwarding_of_the_only_family_that_it_listens_on_it_is_a_failure() {
    let node = node();
    let call = "tcp/80=10.2.0.11,fd00:2::11 --listen=10.1.0.1";
    let report = Report::of(&node, call);
    assert_eq!(report.of_level("failure").len(), 0, "{report:#?}");
    node.set_sysctl("net/ipv4/ip_forward", "0");
    let report = Report::of(&node, call);
    let failed: Vec<&str> = report
        .of_level("failure")
        .iter()
        .map(|line| line.command())
        .collect();
    assert_eq!(
        failed[..1],
        ["sysctl -w net.ipv4.ip_forward=1"],
        "{report:#?}"
    );
}

#[test]
fn check_reports_hairpin_without_masquerading() {
    let report = Report::of(&node(), "tcp/80=10.2.0.11 --hairpin --masquerade=false");
    let about = |line: &&Line| line.level == "warning" && line.subject == "input";
    let warnings: Vec<&Line> = report.0.iter().filter(about).collect();
    assert_eq!(warnings.len(), 1, "{report:#?}");
    assert!(warnings[0].text.contains("NODEFWD_HAIRPIN"), "{report:#?}");
}

/// check has the kernel try the rules.
#[test]
fn rules_that_the_kernel_rejects_are_a_failure() {
    let node = node();
    let ranges: Vec<String> = (1..5).map(|number| format!("10.{number}.0.0/16")).collect();
    let call = check(&["--src-ranges", &ranges.join(",")]);
    Report::from(&call, &node).expect_ok();
    // The name of the table in which the kernel tries them.
    node.load("table inet nodefwd-tcp-80.dry-run");
    let before = node.ruleset();
    let report = Report::from(&call, &node);
    let failure = report.line("failure", "rules");
    expect_parts(&failure.text, ["table inet nodefwd-tcp-80"]);
    assert_eq!(node.ruleset(), before);
}

#[test]
fn every_kind_of_rules_passes() {
    let node = node();
    for arguments in [
        "tcp/80=10.2.0.11,10.2.0.12 --balance=source --output",
        "tcp/80-90=10.2.0.11:1080-1090 --balance=round-robin --hairpin",
        "sctp/80=fd00:2::11 --listen=any --masquerade=false",
        "udp/80=fd00:2::11,fd00:2::12 --listen=fd00:1::1 --src-ranges=fd00::/8 --owner=false",
    ] {
        let report = Report::of(&node, arguments);
        assert_eq!(report.of_level("failure").len(), 0, "{report:#?}");
        report.line("ok", "rules");
    }
}

#[test]
fn a_running_instance_of_the_name_with_other_rules_is_a_failure_in_the_same_words_as_at_a_start() {
    let node = node();
    for owner in ["--owner=true", "--owner=false"] {
        // With hairpin its rules match every connection, which must not count as other NAT.
        let call = check(&[owner, "--hairpin"]);
        let start = nodefwd(["tcp/80=10.2.0.11", owner, "--hairpin"]);
        let other = nodefwd(["tcp/80=10.2.0.12", owner, "--hairpin"]).start(&node);
        let report = Report::from(&call, &node);
        let refused = start.finish(&node).expect_exit(1);
        let failure = report.only("failure", "instances");
        assert_eq!(refused.stderr, format!("error: {}\n", failure.text));
        assert!(
            failure.text.contains(&other.id().to_string()),
            "{failure:?}"
        );
        other.stop(Signal::SIGTERM).expect_exit(0);
        Report::from(&call, &node).expect_ok();
    }
}

#[test]
fn another_programs_table_and_a_port_of_another_instance_are_failures() {
    let node = node();
    node.load("table inet nodefwd-tcp-80 { chain theirs { counter; }; }");
    let report = Report::from(&check(&[]), &node);
    let failure = report.only("failure", "instances");
    let command = "nft delete table inet nodefwd-tcp-80";
    expect_parts(&failure.text, [command]);
    Report::from(&check(&["--name=other"]), &node).expect_ok();
    shell(&node, command);
    Report::from(&check(&[]), &node).expect_ok();

    let other = nodefwd(["--name=other", "tcp/70-90=10.2.0.11"]).start(&node);
    let report = Report::from(&check(&[]), &node);
    let failure = report.only("failure", "instances");
    expect_parts(
        &failure.text,
        ["tcp/80 over IPv4", "nodefwd-other", &other.id().to_string()],
    );
}

#[test]
fn a_conntrack_table_that_is_nearly_full_is_a_warning() {
    let node = node();
    for (count, most, full) in [(90, 100, false), (91, 100, true), (5, 0, false)] {
        let script = format!(
            "mount -t tmpfs none /proc/sys/net/netfilter \
             && echo {count} > /proc/sys/net/netfilter/nf_conntrack_count \
             && echo {most} > /proc/sys/net/netfilter/nf_conntrack_max \
             && exec \"$@\""
        );
        let call = check(&[]).wrapped(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
        let report = Report::from(&call, &node);
        if full {
            let warning = report.only("warning", "connections");
            assert_eq!(
                warning.command(),
                "sysctl -w net.netfilter.nf_conntrack_max=200"
            );
        } else {
            report.expect_ok();
        }
    }
}

/// `nft list ruleset` writes it too.
#[test]
fn a_saved_ruleset_with_the_table_of_an_instance_is_a_warning() {
    let node = node();
    let _instance = nodefwd(["udp/9=10.2.0.11"]).start(&node);
    let with_saved = |ruleset: &str| {
        let script = format!(
            "mount -t tmpfs none /etc && echo '{ruleset}' > /etc/nftables.conf && exec \"$@\""
        );
        let call = check(&[]).wrapped(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
        Report::from(&call, &node)
    };
    let report = with_saved(&node.ruleset());
    let line = report.only("warning", "saved rules");
    expect_parts(&line.text, ["/etc/nftables.conf"]);
    with_saved("table ip nat {}").expect_ok();
}
