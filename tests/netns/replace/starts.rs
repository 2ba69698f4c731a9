//! What a start with `--replace` may find: no instance, a dead one's rules, one that drains, or others
//! that start with it.

use nix::sys::signal::Signal;

use super::{forward_both, replacing};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Namespace, Net, Process, Protocol, expect_parts,
    has_owner_flag, nodefwd, wait_until,
};

#[test]
fn without_a_running_instance_it_is_an_ordinary_start() {
    let net = Net::new(2);
    for owner in ["--owner=true", "--owner=false"] {
        let call = forward_both(&net.backends[0]).args(&[owner]);
        let plain = call.start(&net.node);
        let expected = net.node.rules();
        plain.stop(Signal::SIGTERM).expect_exit(0);

        let expect_ordinary_start = || {
            let forwarder = replacing(&call).start(&net.node);
            assert_eq!(net.node.rules(), expected);
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
            assert_eq!(net.node.ruleset(), "");
        };
        expect_ordinary_start();
        // Without an owner, the rules of a dead instance are still there.
        let other = forward_both(&net.backends[1]).args(&[owner]);
        other.start(&net.node).stop(Signal::SIGKILL);
        expect_ordinary_start();
    }
}

/// It has the same open files, it is named by its own process id, and it ends in the same ways.
#[test]
fn a_successor_is_an_instance_like_any_other() {
    let node = Namespace::forwarding("node");
    for owner in ["--owner=true", "--owner=false"] {
        let call = nodefwd([owner, "--name=web", "tcp/80=10.2.0.11"]);
        let mut forwarder = call.start(&node);
        let files = open_files_after_start(&forwarder);
        for _ in 0..3 {
            let successor = replacing(&call).start(&node);
            forwarder.finish().expect_exit(0);
            forwarder = successor;
        }
        assert_eq!(open_files_after_start(&forwarder), files);
        let stderr = call.finish(&node).expect_exit(1).stderr;
        let named = format!("already as process {}:", forwarder.id());
        expect_parts(&stderr, [named]);
        if owner == "--owner=true" && has_owner_flag() {
            let status = nodefwd(["status", "web"]).finish(&node).expect_success();
            let named = format!("owned by process {} ", forwarder.id());
            expect_parts(&status, [named]);
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }

    let call = nodefwd(["--name=web", "tcp/80=10.2.0.11"]);
    let first = call.start(&node);
    let second = replacing(&call).start(&node);
    first.finish().expect_exit(0);
    second.stop(Signal::SIGKILL);
    node.wait_for_removal("nodefwd-web");
    call.start(&node);
}

/// How many files it has open once its start is complete.
fn open_files_after_start(forwarder: &Process) -> usize {
    forwarder.wait_until_unprivileged();
    forwarder.open_files().len()
}

#[test]
fn of_several_that_replace_one_another_the_last_runs_and_the_others_end_with_status_0() {
    let node = Namespace::forwarding("node");
    let call = nodefwd(["--name=web", "tcp/80=10.2.0.11"]);
    let mut forwarders: Vec<Process> = (0..8).map(|_| replacing(&call).spawn(&node)).collect();
    for forwarder in &forwarders {
        assert!(forwarder.has_said("ready"), "{}", forwarder.stderr());
        // When it asked, the kernel did not know yet which of them it would replace.
        let stderr = forwarder.stderr();
        let mut lines = stderr.lines();
        let replaced = lines.find(|line| line.contains("replaced the instance"));
        let names_process = replaced.is_some_and(|line| line.contains("process"));
        assert!(!names_process, "{stderr}");
    }
    let running = || {
        let running = |forwarder: &mut Process| forwarder.is_running();
        forwarders.iter_mut().map(running).collect::<Vec<bool>>()
    };
    let one_is_left = |running: &Vec<bool>| running.iter().filter(|runs| **runs).count() <= 1;
    let running = wait_until("one that is left", running, one_is_left);
    assert!(running.contains(&true), "all have ended");
    for (forwarder, runs) in forwarders.into_iter().zip(running) {
        if runs {
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        } else {
            forwarder.finish().expect_exit(0);
        }
    }
    assert_eq!(node.ruleset(), "");
}

/// The predecessor refuses new connections, the successor forwards them. Running ones go on, and the
/// successor notices their end, though they began before it did.
#[test]
fn an_instance_that_drains_is_replaced_and_its_successor_drains_its_connections() {
    for owner in ["--owner=true", "--owner=false"] {
        let net = Net::new(1);
        let _servers = net.serve(BACKEND_PORT);
        let call = forward_both(&net.backends[0]).args(&[owner, "--drain=3600"]);
        let mut first = call.start(&net.node);
        let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
        let mut flow = net.client.live_flow(Protocol::Tcp, node_addr);
        first.signal(Signal::SIGTERM);
        first.wait_until_draining(1);
        net.client.expect_refused(Protocol::Tcp, node_addr);

        let mut second = replacing(&call).start(&net.node);
        first.finish().expect_exit(0);
        flow.expect_unchanged();
        let another = net.client.live_flow(Protocol::Tcp, node_addr);

        second.signal(Signal::SIGTERM);
        second.wait_until_draining(2);
        drop(another);
        flow.expect_unchanged();
        drop(flow);
        second.wait_until_drained();
        second.finish().expect_exit(0);
        assert_eq!(net.node.ruleset(), "");
    }
}
