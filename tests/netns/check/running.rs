//! What check says of instances that run.

use nix::sys::signal::Signal;

use super::{BACKEND_PORT, FORWARDED_PORT, Line, Report, all_forwards, net, start, words};
use crate::fixture::{Family, Net, Protocol, TempFile, expect_parts, nodefwd, wait_until};

/// The line about instances, which must be ok and name the process.
#[track_caller]
fn expect_runs(report: &Report, name: &str, process: u32) {
    let runs = format!("{name} runs here, process {process}");
    assert_eq!(report.line("ok", "instances").text, runs, "{report:#?}");
}

#[test]
fn without_forwards_and_instances_it_fails() {
    let net = net(1);
    let report = Report::of(&net.node, "");
    let failure = report.only("failure", "instances");
    expect_parts(&failure.text, ["none runs in this network namespace"]);
    let outcome = nodefwd(["check", "web"]).finish(&net.node).expect_exit(1);
    assert_eq!(outcome.stdout, "");
    expect_parts(
        &outcome.stderr,
        ["no instance 'web' in this network namespace"],
    );
}

/// Arguments, the name, and what is read back.
const CASES: [(&str, &str, &[&str]); 10] = [
    (
        "tcp/80=10.2.1.2:8080",
        "tcp-80",
        &["forwarding tcp/80=10.2.1.2:8080, sent to an address of this host"],
    ),
    (
        "--name=web tcp/80=10.2.1.2:8080,10.2.2.2:8081 udp/53=fd00:2:1::2",
        "web",
        &[
            "tcp/80=10.2.1.2:8080,10.2.2.2:8081",
            "udp/53=[fd00:2:1::2]:53",
        ],
    ),
    (
        "--balance=source tcp/1000-1009=10.2.1.2:2000-2009,10.2.2.2:2000-2009 sctp/7=10.2.1.2",
        "tcp-1000-1009",
        &[
            "tcp/1000-1009=10.2.1.2:2000-2009,10.2.2.2:2000-2009",
            ", by client",
        ],
    ),
    (
        "--balance=round-robin --fully-random=false --clamp-mss tcp/80=10.2.1.2,10.2.2.2",
        "tcp-80",
        &[", with the MSS clamped, with the client's port where it is free, in turn"],
    ),
    (
        "--balance=source --fully-random=false --masquerade=false udp/80=10.2.1.2,10.2.2.2",
        "udp-80",
        &[", without masquerading, by client"],
    ),
    (
        "tcp/1000-1009=10.2.1.2:2000-2009 tcp/2000-2009=10.2.1.2 tcp/3000-3009=10.2.1.2:9",
        "tcp-1000-1009",
        &[
            "tcp/1000-1009=10.2.1.2:2000-2009",
            "tcp/2000-2009=10.2.1.2:2000-2009",
            "tcp/3000-3009=10.2.1.2:9",
        ],
    ),
    (
        "--src-ranges=10.1.0.0/16,10.7.0.0/17,fd00::/8,0.0.0.0/8 tcp/80=10.2.1.2,fd00:2:1::2",
        "tcp-80",
        &[", from 0.0.0.0/8, 10.1.0.0/16, 10.7.0.0/17, from fd00::/8"],
    ),
    (
        "--listen=10.1.1.1,fd00:1:1::1 --output --src-ranges=10.1.1.0/24 tcp/80=10.2.1.2",
        "tcp-80",
        &[
            "sent to 10.1.1.1",
            ", from 10.1.1.0/24",
            ", also from this host",
        ],
    ),
    (
        "--listen=client,10.2.1.1 tcp/80=10.2.1.2,fd00:2:1::2",
        "tcp-80",
        &["sent to 10.2.1.1, this host on client"],
    ),
    (
        "--listen=any --hairpin tcp/80=10.2.1.2",
        "tcp-80",
        &["sent to any address", ", also from destinations"],
    ),
];

#[test]
fn what_a_running_instance_forwards_is_read_back_and_its_own_arguments_agree_with_it() {
    let net = net(2);
    for owner in ["", "--owner=false "] {
        for (arguments, name, parts) in CASES {
            let arguments = format!("{owner}{arguments}");
            let instance = start(&net, &arguments);
            for call in ["", name, &arguments] {
                let report = Report::of(&net.node, call);
                expect_runs(&report, name, instance.id());
                expect_parts(&report.line("ok", "input").text, parts.iter().copied());
                assert_eq!(
                    report.of_level("failure"),
                    Vec::<&Line>::new(),
                    "{report:#?}"
                );
            }
            instance.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}

/// As `kubectl exec` finds it.
#[test]
fn in_the_environment_of_a_running_instance_it_is_ok() {
    let net = net(1);
    let with_environment = |call: &[&str]| {
        nodefwd(call)
            .env("DEST_IPS", "10.2.1.2 fd00:2:1::2")
            .env("DEST_PROTO", "TCP")
            .env("SRC_PORT", "80")
            .env("DEST_PORT", "8080")
            .env("SRC_RANGES", "10.1.0.0/16")
            .env("NODEFWD_HAIRPIN", "true")
    };
    // Of IPv6, no source may connect, and it is not forwarded at all.
    net.node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    let instance = with_environment(&[]).start(&net.node);
    let report = Report::from(&with_environment(&["check"]), &net.node);
    expect_runs(&report, "tcp-80", instance.id());
    assert_eq!(report.of_level("failure").len(), 0, "{report:#?}");
    Report::of(&net.node, "tcp-80").expect_ok();
}

#[test]
fn other_arguments_of_its_name_are_a_failure() {
    let net = net(1);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080 --src-ranges=10.1.0.0/16");
    for arguments in [
        "tcp/80=10.2.1.2:8080",
        "tcp/80=10.2.1.2:8081 --src-ranges=10.1.0.0/16",
        "tcp/80=10.2.1.2:8080 --src-ranges=10.1.0.0/17",
        "tcp/80=10.2.1.2:8080 --src-ranges=10.1.0.0/16 --hairpin",
        "tcp/80=10.2.1.2:8080 --src-ranges=10.1.0.0/16 --output",
        "tcp/80=10.2.1.2:8080 --src-ranges=10.1.0.0/16 --listen=any",
        "tcp/80=10.2.1.2:8080 --src-ranges=10.1.0.0/16 --clamp-mss",
        "tcp/80=10.2.1.2:8080 --src-ranges=10.1.0.0/16 --fully-random=false",
    ] {
        let report = Report::of(&net.node, arguments);
        let failure = report.only("failure", "instances");
        expect_parts(&failure.text, ["runs in this network namespace already"]);
    }
}

#[test]
fn another_balance_is_a_failure_where_there_are_several_destinations() {
    let net = net(2);
    let destinations = "tcp/80=10.2.1.2:8080,10.2.2.2:8080";
    let _instance = start(&net, &format!("--balance=source {destinations}"));
    Report::of(&net.node, &format!("--balance=source {destinations}")).expect_ok();
    for balance in ["random", "round-robin"] {
        let report = Report::of(&net.node, &format!("--balance={balance} {destinations}"));
        report.only("failure", "instances");
    }
}

/// One of its destinations fails, and no rule leads there.
#[test]
fn an_instance_that_leaves_out_a_destination_still_has_its_own_arguments() {
    let net = net(2);
    let _server = net.backends[1].serve(BACKEND_PORT);
    let arguments = "--health=1 --balance=round-robin tcp/80=10.2.1.2:8080,10.2.2.2:8080";
    let instance = start(&net, arguments);
    instance.wait_for_line("warning: destination 10.2.1.2:8080 is down");
    let rules = || net.node.rules();
    let is_out = |rules: &String| rules.contains("chain tcp-80-ipv4-down");
    wait_until("rules without it", rules, is_out);
    let report = Report::of(&net.node, arguments);
    expect_runs(&report, "tcp-80", instance.id());
    for others in [
        "--health=1 --balance=round-robin tcp/80=10.2.1.2:8081,10.2.2.2:8080",
        "--health=1 --balance=round-robin tcp/80=10.2.2.2:8080",
    ] {
        Report::of(&net.node, others).line("failure", "instances");
    }
}

/// As the systemd unit has it.
#[test]
fn a_file_of_variables_is_checked_before_and_while_it_runs() {
    let net = net(1);
    let file = TempFile::new(
        "NODEFWD_NAME=web\nNODEFWD_FORWARDS=tcp/80=10.2.1.2:8080\nSRC_RANGES=10.1.0.0/16\n",
    );
    let path = file.path().display().to_string();
    let report = || Report::of(&net.node, &format!("--env-file {path}"));
    report().expect_ok();
    let read = ["tcp/80=10.2.1.2:8080", ", from 10.1.0.0/16"];
    expect_parts(&report().line("ok", "input").text, read);

    let instance = start(&net, &format!("--env-file {path}"));
    expect_runs(&report(), "web", instance.id());
    // The file has changed since, and was not read again.
    file.write("NODEFWD_NAME=web\nNODEFWD_FORWARDS=tcp/80=10.2.1.2:8081\n");
    report().only("failure", "instances");
    // Flags go before it.
    let report = Report::of(
        &net.node,
        &format!("--env-file {path} --name=other tcp/81=10.2.1.2"),
    );
    report.expect_ok();
    expect_parts(&report.line("ok", "input").text, ["tcp/81=10.2.1.2:81"]);

    file.write("NODEFWD_FORWARDS=tcp/80\n");
    let outcome = nodefwd(["check", "--env-file", &path])
        .finish(&net.node)
        .expect_exit(2);
    assert_eq!(outcome.stdout, "");
    expect_parts(&outcome.stderr, [&*path, "NODEFWD_FORWARDS"]);
}

/// The line of deploy/README.md, for a file that is to take the place of the unit's.
#[test]
fn the_command_for_ansible_tells_good_files_from_bad_ones_while_the_instance_runs() {
    let net = net(2);
    let first = "NODEFWD_FORWARDS=tcp/80=10.2.1.2:8080\n";
    let own = TempFile::new(first);
    let path = own.path().display().to_string();
    // As the unit has it.
    let instance = nodefwd([""; 0])
        .env("NODEFWD_NAME", "web")
        .env("NODEFWD_ENV_FILE", &path)
        .start(&net.node);
    let _other = start(&net, "--name=other udp/53=10.2.1.2");
    let rules = net.node.rules();
    let file = TempFile::new("");
    let path = file.path().display().to_string();
    let line = ["check", "--name", "web", "--replace", "--env-file", &path];
    for good in [
        first,
        "NODEFWD_FORWARDS=tcp/80=10.2.2.2:8081 tcp/81=10.2.1.2\nSRC_RANGES=10.1.0.0/16\n",
        "NODEFWD_FORWARDS=tcp/81=10.2.1.2\nNODEFWD_HEALTH=5\nNODEFWD_WATCH=true\n",
    ] {
        file.write(good);
        nodefwd(line).finish(&net.node).expect_exit(0);
    }
    for (bad, status, reason) in [
        // Nothing to forward is not what runs.
        ("", 2, "DEST_IPS (--dest-ips) is not set"),
        ("NODEFWD_NAME=web\n", 2, "DEST_IPS (--dest-ips) is not set"),
        ("NODEFWD_FORWARDS=web\n", 2, "'web' is no forward"),
        ("NODEFWD_FORWARDS=tcp/80=10.2.1.2:80800\n", 2, "'80800'"),
        ("NODEFWD_FORWARDS=udp/53=10.2.1.2\n", 1, "nodefwd-other"),
    ] {
        file.write(bad);
        let outcome = nodefwd(line).finish(&net.node).expect_exit(status);
        expect_parts(&(outcome.stdout + &outcome.stderr), [reason]);
    }
    assert_eq!(net.node.rules(), rules);
    instance.stop(Signal::SIGTERM).expect_exit(0);
}

/// The environment may be the image's, or that of an instance.
#[test]
fn flags_that_would_change_nothing_are_refused() {
    let net = net(1);
    let _instance = start(&net, "tcp/80=10.2.1.2:8080");
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.1.2:8080\n");
    let path = file.path().display().to_string();
    for (arguments, flag) in [
        (&["--listen=10.2.0.1"][..], "NODEFWD_LISTEN (--listen)"),
        (&["--health=5"], "NODEFWD_HEALTH (--health)"),
        (&["--strict"], "NODEFWD_STRICT (--strict)"),
        (&["tcp-80", "--src-ranges=10.0.0.0/8"], "SRC_RANGES"),
        (&["tcp-80", "--name=other"], "NODEFWD_NAME (--name)"),
        (&["tcp-80", "--env-file", &path], "NODEFWD_ENV_FILE"),
    ] {
        let call = nodefwd(["check"]).args(arguments);
        let outcome = call.finish(&net.node).expect_exit(2);
        expect_parts(&outcome.stderr, [flag, "has no effect without forwards"]);
        assert_eq!(outcome.stdout, "");
    }
    for arguments in [&["check"][..], &["check", "tcp-80"]] {
        let call = nodefwd(arguments).env("NODEFWD_HAIRPIN", "true");
        Report::from(&call, &net.node).expect_ok();
    }
    Report::of(&net.node, "--name=tcp-80").expect_ok();
}

#[test]
fn several_instances_are_told_apart_by_their_names() {
    let net = net(1);
    let one = start(&net, "tcp/80=10.2.1.2:8080");
    let other = start(&net, "udp/80=10.2.1.2:8080");
    let report = Report::of(&net.node, "");
    report.expect_ok();
    for (name, process) in [("tcp-80", one.id()), ("udp-80", other.id())] {
        let runs = format!("{name}: {name} runs here, process {process}");
        let found = report.0.iter().filter(|line| line.text == runs);
        assert_eq!(found.count(), 1, "{report:#?}");
    }
    let report = Report::of(&net.node, "udp-80");
    expect_runs(&report, "udp-80", other.id());
}

#[test]
fn an_instance_that_died_or_drains_is_a_failure() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let instance = start(&net, "--owner=false tcp/80=10.2.1.2:8080");
    instance.stop(Signal::SIGKILL);
    let failure = Report::of(&net.node, "")
        .only("failure", "instances")
        .clone();
    expect_parts(&failure.text, ["was left by an instance that died"]);

    let mut instance = start(&net, "--owner=false --drain=60 tcp/80=10.2.1.2:8080");
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let _flow = net.client.live_flow(Protocol::Tcp, node_addr);
    instance.signal(Signal::SIGTERM);
    let report = || nodefwd(["check"]).finish(&net.node).stdout;
    wait_until("it drains", report, |text| {
        text.contains("accepts no new connections")
    });
    instance.stop(Signal::SIGTERM).expect_exit(0);
}

fn json(net: &Net, arguments: &str) -> serde_json::Value {
    let call = nodefwd(["check", "--format=json"]).args(&words(arguments));
    let outcome = call.finish(&net.node);
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

#[test]
fn findings_for_programs_have_the_same_words_and_the_command() {
    let net = net(1);
    let instance = start(&net, &all_forwards(&net));
    net.node.set_sysctl("net/ipv4/conf/client/forwarding", "0");
    for (arguments, name) in [("", Some("tcp-80")), ("tcp/81=10.2.1.2", None)] {
        let found = json(&net, arguments);
        assert_eq!(found["schema"], 1);
        let findings = found["findings"].as_array().expect("a list");
        let outcome = nodefwd(["check"]).args(&words(arguments)).finish(&net.node);
        let lines: Vec<Line> = outcome.stdout.lines().map(Line::parse).collect();
        assert_eq!(findings.len(), lines.len());
        for (finding, line) in findings.iter().zip(&lines) {
            assert_eq!(finding["level"], line.level, "{finding}");
            assert_eq!(finding["subject"], line.subject, "{finding}");
            assert_eq!(finding["text"], line.text, "{finding}");
            assert_eq!(finding["instance"].as_str(), name, "{finding}");
            if line.level == "failure" {
                assert_eq!(finding["command"], line.command());
            }
        }
        let failures = lines.iter().filter(|line| line.level == "failure");
        assert_eq!(failures.count(), 1, "{lines:#?}");
    }
    instance.stop(Signal::SIGTERM).expect_exit(0);
}
