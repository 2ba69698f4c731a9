//! Names with addresses of both families on a host that forwards one of them.

use nix::sys::signal::Signal;

use super::{HOME, Names};
use crate::fixture::{BACKEND_PORT, Manager, Namespace, expect_parts};

fn forward() -> String {
    format!("tcp/80={HOME}:{BACKEND_PORT}")
}

const WITHOUT_IPV6: &str = "going on without IPv6";

fn switch_ipv6(node: &Namespace, value: &str) {
    node.set_sysctl("net/ipv6/conf/all/forwarding", value);
}

#[test]
fn a_family_that_is_off_is_said_once_and_not_with_each_answer() {
    let names = Names::new(2);
    let node = &names.net.node;
    switch_ipv6(node, "0");
    names.set(HOME, &[1]);
    let forwarder = names.call(&[&forward()]).start(node);
    names.set(HOME, &[2]);
    forwarder.wait_for_line("home.example.org now leads to 10.2.2.2, fd00:2:2::2");
    let stderr = forwarder.stderr();
    assert_eq!(stderr.matches(WITHOUT_IPV6).count(), 1, "{stderr}");
    // It is taken in with the addresses of the last answer.
    switch_ipv6(node, "1");
    forwarder.wait_for_line("ready: forwarding tcp/80=10.2.2.2:8080 tcp/80=[fd00:2:2::2]:8080");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// The service manager too knows what is forwarded then.
#[test]
fn with_another_answer_a_family_that_was_switched_off_is_left_out_and_the_rest_is_ready_again() {
    let names = Names::new(2);
    let node = &names.net.node;
    names.set(HOME, &[1]);
    let manager = Manager::at_path("names-and-families");
    let forwarder = manager.of(names.call(&[&forward()])).start(node);
    expect_parts(&manager.receive(), ["READY=1"]);
    switch_ipv6(node, "0");
    forwarder.wait_for_line("warning: not ready: IPv6 forwarding is off");
    expect_parts(&manager.receive(), ["IPv6 forwarding is off"]);
    names.set(HOME, &[2]);
    let said = forwarder.wait_for_line("ready again: ");
    let expected = "forwarding tcp/80=10.2.2.2:8080 in table inet nodefwd-tcp-80";
    assert_eq!(said, format!("ready again: {expected}"));
    expect_parts(&forwarder.stderr(), [WITHOUT_IPV6]);
    expect_parts(&manager.receive(), [format!("STATUS={expected}")]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
