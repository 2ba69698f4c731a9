//! What it tells a service manager that listens on NOTIFY_SOCKET (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{
    Family, ForwardedConnection, Manager, Namespace, Net, Nodefwd, Protocol, forward_to, nodefwd,
    wait_until,
};

const FORWARDING: &str = "forwarding tcp/80=10.2.0.11:80 in table inet nodefwd-tcp-80";
const STOPPED: &str = "stopped: removed table inet nodefwd-tcp-80, and deleted the conntrack entries of 0 running connections";

const SECOND: Duration = Duration::from_secs(1);

fn forward() -> Nodefwd {
    nodefwd(["tcp/80=10.2.0.11"])
}

#[test]
fn the_manager_is_notified_of_the_start_and_the_stop() {
    let node = Namespace::forwarding("node");
    for manager in [
        Manager::at_path("begin-and-end"),
        Manager::at_abstract_name(&node),
    ] {
        let forwarder = manager.of(forward()).spawn(&node);
        assert_eq!(manager.receive(), format!("READY=1\nSTATUS={FORWARDING}\n"));
        assert!(node.ruleset().contains("table inet nodefwd-tcp-80"));
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(manager.receive(), "STOPPING=1\nSTATUS=stopping\n");
        assert_eq!(manager.receive(), format!("STATUS={STOPPED}\n"));
        manager.expect_no_more();
    }
}

/// The last step before it is ready is the kernel's commit, which fails here.
#[test]
fn it_is_not_ready_before_the_rules_are_in_the_kernel() {
    let node = Namespace::forwarding("node");
    let manager = Manager::at_path("not-ready");
    node.load("table inet nodefwd-tcp-80 { chain theirs { counter accept; }; }");
    manager.of(forward()).finish(&node).expect_exit(1);
    let why = "STATUS=cannot install the rules: table inet nodefwd-tcp-80 is already there";
    let said = manager.receive();
    assert!(said.starts_with(why), "{said}");
    manager.expect_no_more();
}

/// The name of an interface is another process's choice.
#[test]
fn the_manager_gets_no_control_characters() {
    let net = Net::new(1);
    let interface = "a\u{1b}[2J";
    net.node.ip(&format!(
        "link set client down\nlink set client name {interface}"
    ));
    net.node.ip(&format!(
        "link set {interface} up\nroute add default via 10.1.1.2"
    ));
    let manager = Manager::at_abstract_name(&net.node);
    let forwarder = manager.of(nodefwd(["tcp/80=10.2.1.2"])).start(&net.node);
    assert!(manager.receive().starts_with("READY=1\n"));
    let switch = format!("net/ipv4/conf/{interface}/forwarding");
    // What is off when it begins to watch is no change.
    let log = || {
        net.node.set_sysctl(&switch, "1");
        net.node.set_sysctl(&switch, "0");
        forwarder.stderr()
    };
    wait_until("a change", log, |log| log.contains("warning: not ready"));
    let is_other = |status: &String| !status.contains("not ready");
    let mut statuses = std::iter::repeat_with(|| manager.receive()).skip_while(is_other);
    let status = statuses.next().expect("a status");
    let expected =
        "STATUS=not ready: IPv4 forwarding is off for packets that come in on a\\u{1b}[2J\n";
    assert_eq!(status, expected);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Prints what is in /dev when the program has ended, and what it has written there in the place of something
/// longer.
const IN_POD: &str = "mount -t tmpfs none /dev && printf 'old%0999d\\n' 0 >/dev/$0
    \"$@\"; status=$?; ls /dev; cat /dev/*; exit $status";

/// What was there before.
fn old() -> String {
    format!("old{:0999}\n", 0)
}

/// What a program that fails writes to the file that Kubernetes reads, if the file is there, and to its
/// standard error.
fn termination(call: &Nodefwd, node: &Namespace, file: &str) -> (String, String) {
    let pod = ["unshare", "--mount", "sh", "-c", IN_POD, file];
    let outcome = call.clone().wrapped(&pod).finish(node);
    assert!(!outcome.status.success(), "{outcome:?}");
    (outcome.stdout, outcome.stderr)
}

#[test]
fn the_manager_and_kubernetes_are_told_why_it_fails() {
    let node = Namespace::forwarding("node");
    node.set_sysctl("net/ipv4/ip_forward", "0");
    let manager = Manager::at_path("fails");
    let long = format!("tcp/80=10.2.0.11,{}", "x".repeat(5000));
    for arguments in [
        &["tcp/80=10.2.0.11"][..],
        &["tcp/80=10.2.0.256"],
        &["run", "tcp/80"],
        &["rendr"],
        &["--bogus"],
        &["--log-format=xml", "tcp/80=10.2.0.11"],
        &[&long],
    ] {
        let call = manager.of(nodefwd(arguments.iter().copied()));
        let (written, stderr) = termination(&call, &node, "termination-log");
        let last = stderr.lines().last().expect("an error");
        let error = last.strip_prefix("error: ").expect("an error");
        // The advice to look at the help is for a shell.
        let reason = error.split("; nodefwd ").next().unwrap_or(error);
        assert_eq!(written, format!("termination-log\n{reason}\n"), "{stderr}");
        assert_eq!(manager.receive(), format!("STATUS={reason}\n"));
    }
    manager.expect_no_more();
}

/// A probe, or a command that somebody runs in the container, is not what the container ends of; and no file is
/// made where there is none.
#[test]
fn commands_that_do_not_forward_leave_the_termination_log_alone() {
    let node = Namespace::forwarding("node");
    let manager = Manager::at_path("does-not-fail");
    for arguments in [
        &["status", "--ready"][..],
        &["status", "--bogus"],
        &["render", "tcp/80"],
        &["check", "none"],
        &["reload", "none"],
    ] {
        let call = manager.of(nodefwd(arguments.iter().copied()));
        let (written, stderr) = termination(&call, &node, "termination-log");
        assert_eq!(written, format!("termination-log\n{}", old()), "{stderr}");
    }
    manager.expect_no_more();
    let (written, _) = termination(&nodefwd(["tcp/80"]), &node, "other");
    assert_eq!(written, format!("other\n{}", old()));
}

#[test]
fn while_it_drains_the_manager_is_asked_to_wait_and_told_why() {
    let manager = Manager::at_path("drain");
    let mut forwarded =
        ForwardedConnection::start(Family::V4, |call| manager.of(call.args(&["--drain=86400"])));
    assert!(manager.receive().starts_with("READY=1\n"));
    forwarded.forwarder.signal(Signal::SIGTERM);
    // A minute more than the drain may take, in microseconds.
    assert_eq!(
        manager.receive(),
        "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=86460000000\n"
    );
    let draining = "STATUS=draining: 1 connections, for at most 86400s\n";
    assert_eq!(manager.receive(), draining);
    drop(forwarded.flow);
    forwarded.forwarder.finish().expect_exit(0);
    assert!(manager.receive().starts_with("STATUS=stopped: "));
    manager.expect_no_more();
}

#[test]
fn without_a_manager_there_is_no_notification_and_no_warning() {
    let net = Net::new(1);
    let node = &net.node;
    let manager = Manager::at_abstract_name(node);
    let forward = || forward_to(Protocol::Tcp, &net.backends);
    let absent = forward().env("NOTIFY_SOCKET", "/nonexistent/notify");
    let nameless = forward().env("NOTIFY_SOCKET", "");
    for call in [forward(), absent, nameless] {
        let outcome = call.start(node).stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    }
    manager.expect_no_more();
}

/// It waits a second for it in all, and not for each of the messages: ready, stopping, and what was drained.
#[test]
fn a_manager_that_does_not_read_does_not_keep_it_from_stopping() {
    let node = Namespace::forwarding("node");
    let manager = Manager::at_path("does-not-read");
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.set_nonblocking(true).expect("non-blocking");
    while sender.send_to(b"full", manager.name()).is_ok() {}
    let call = manager.of(forward()).args(&["--drain=1", "-v"]);
    let forwarder = call.start(&node);
    let failed = "debug: cannot notify the service manager";
    forwarder.wait_for_line(failed);
    let begin = Instant::now();
    let outcome = forwarder.stop(Signal::SIGTERM).expect_exit(0);
    // With the same wait for each, it would be longer than this.
    let messages = outcome.stderr.matches(failed).count() as u32 - 1;
    assert!(messages >= 3, "{}", outcome.stderr);
    assert!(begin.elapsed() < messages * SECOND, "{:?}", begin.elapsed());
    assert_eq!(node.ruleset(), "");

    // TERM ends the first wait.
    let mut forwarder = call.spawn(&node);
    forwarder.wait_for_line("ready");
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_for_line(failed);
    forwarder.finish().expect_exit(0);
}
