//! What a start with `--replace` finds: nobody, a dead instance's rules, one that drains, several at
//! once.

use std::fs;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::{forward_both, replacing, rules};
use crate::fixture::{BACK, FRONT};
use crate::fixture::{Family, LIMIT, Namespace, Net, Process, Protocol, nodefwd};

#[test]
fn without_a_live_instance_it_is_an_ordinary_start() {
    let net = Net::new(2);
    for owner in ["--owner=true", "--owner=false"] {
        let call = forward_both(&net.backends[0]).args(&[owner]);
        let plain = call.start(&net.node);
        let expected = rules(&net.node);
        plain.stop(Signal::SIGTERM).expect_exit(0);

        let replaced = replacing(&call).start(&net.node);
        assert_eq!(rules(&net.node), expected);
        replaced.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(net.node.ruleset(), "");

        // Also over what a dead one has left, if it has left anything.
        let other = forward_both(&net.backends[1]).args(&[owner]);
        other.start(&net.node).stop(Signal::SIGKILL);
        let replaced = replacing(&call).start(&net.node);
        assert_eq!(rules(&net.node), expected);
        replaced.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(net.node.ruleset(), "");
    }
}

/// Like any instance: by its process's number, with its end, and by force.
#[test]
fn the_new_one_is_an_instance_like_any_other() {
    let node = Namespace::forwarding("node");
    for owner in ["--owner=true", "--owner=false"] {
        let call = nodefwd([owner, "--name=web", "tcp/80=10.2.0.11"]);
        let mut forwarder = call.start(&node);
        let files = open_files(&forwarder);
        for _ in 0..3 {
            let successor = replacing(&call).start(&node);
            forwarder.finish().expect_exit(0);
            forwarder = successor;
        }
        assert_eq!(open_files(&forwarder), files);
        let stderr = call.finish(&node).expect_exit(1).stderr;
        let named = format!("already as process {}:", forwarder.id());
        assert!(stderr.contains(&named), "{stderr}");
        if owner == "--owner=true" {
            let status = nodefwd(["status", "web"]).finish(&node).expect_success();
            let named = format!("owned by process {} ", forwarder.id());
            assert!(status.contains(&named), "{status}");
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }

    let call = nodefwd(["--name=web", "tcp/80=10.2.0.11"]);
    let first = call.start(&node);
    let second = replacing(&call).start(&node);
    first.finish().expect_exit(0);
    second.stop(Signal::SIGKILL);
    let deadline = Instant::now() + LIMIT;
    while !node.ruleset().is_empty() {
        assert!(Instant::now() < deadline, "{}", node.ruleset());
    }
    call.start(&node);
}

/// Once it has done all that it does at its start: the last thing is to give up privileges.
fn open_files(process: &Process) -> usize {
    let status = format!("/proc/{}/status", process.id());
    let deadline = Instant::now() + LIMIT;
    while !fs::read_to_string(&status).is_ok_and(|status| status.contains("NoNewPrivs:\t1")) {
        assert!(Instant::now() < deadline, "it keeps its privileges");
    }
    let files = fs::read_dir(format!("/proc/{}/fd", process.id()));
    files.expect("its files").count()
}

/// Whichever comes last stays; the others leave in peace.
#[test]
fn several_at_once_replace_one_another() {
    let node = Namespace::forwarding("node");
    let call = nodefwd(["--name=web", "tcp/80=10.2.0.11"]);
    let mut forwarders: Vec<Process> = (0..8).map(|_| replacing(&call).spawn(&node)).collect();
    for forwarder in &forwarders {
        assert!(forwarder.has_said("ready"), "{}", forwarder.stderr());
        // When it asked, the kernel did not know yet which of them would give way to it.
        let stderr = forwarder.stderr();
        let mut lines = stderr.lines();
        let line = lines.find(|line| line.contains("replaced the instance"));
        assert!(
            !line.is_some_and(|line| line.contains("process")),
            "{stderr}"
        );
    }
    let deadline = Instant::now() + LIMIT;
    while forwarders.len() > 1 {
        assert!(Instant::now() < deadline, "{} still run", forwarders.len());
        forwarders.retain_mut(Process::is_running);
    }
    for forwarder in forwarders {
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
    assert_eq!(node.ruleset(), "");
}

/// It takes no new connections, but the new one does; what runs goes on, and the new one knows when it
/// ends, though it began before.
#[test]
fn one_that_drains_is_replaced_and_its_connections_are_drained_by_the_next() {
    for owner in ["--owner=true", "--owner=false"] {
        let net = Net::new(1);
        let _server = net.backends[0].serve(BACK);
        let call = forward_both(&net.backends[0]).args(&[owner, "--drain=3600"]);
        let mut first = call.start(&net.node);
        let front = net.front(Family::V4, FRONT);
        let mut flow = net.client.connect(Protocol::Tcp, front).expect("a flow");
        let answer = flow.ask().expect("an answer");
        first.signal(Signal::SIGTERM);
        first.wait_for_line("draining: 1 connections");
        net.client.expect_refused(Protocol::Tcp, front);

        let mut second = replacing(&call).start(&net.node);
        first.finish().expect_exit(0);
        assert_eq!(flow.ask().expect("an answer"), answer);
        let mut another = net.client.connect(Protocol::Tcp, front).expect("a flow");
        another.ask().expect("an answer");

        second.signal(Signal::SIGTERM);
        second.wait_for_line("draining: 2 connections");
        drop(another);
        assert_eq!(flow.ask().expect("an answer"), answer);
        drop(flow);
        second.wait_for_line("drained");
        second.finish().expect_exit(0);
        assert_eq!(net.node.ruleset(), "");
    }
}
