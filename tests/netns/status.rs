//! `nodefwd status`: what it says of instances that it does not own.

use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Nodefwd, nodefwd};

/// The container that the service load balancer starts.
fn container() -> Nodefwd {
    with_its_environment(nodefwd([""; 0]))
}

/// The probe in that container.
fn probe() -> Nodefwd {
    with_its_environment(nodefwd(["status", "--ready"]))
}

fn with_its_environment(call: Nodefwd) -> Nodefwd {
    call.env("DEST_IPS", "10.2.0.11 fd00:2::11")
        .env("DEST_PROTO", "TCP")
        .env("SRC_PORT", "80")
        .env("DEST_PORT", "8080")
}

#[track_caller]
fn expect_not_ready(probe: &Nodefwd, node: &Namespace, missing: &str) {
    let outcome = probe.finish(node).expect_exit(1);
    let stderr = outcome.stderr;
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(missing), "{stderr}");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn a_container_is_ready_while_its_own_rules_are_in_the_kernel() {
    let node = Namespace::forwarding("node");
    expect_not_ready(&probe(), &node, "nodefwd-tcp-80");
    let _sibling = nodefwd(["udp/53=10.2.0.12"]).start(&node);
    expect_not_ready(&probe(), &node, "nodefwd-tcp-80");

    let mut forwarder = container().start(&node);
    let outcome = probe().finish(&node).expect_exit(0);
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("", ""));

    forwarder.signal(Signal::SIGTERM);
    forwarder.wait();
    expect_not_ready(&probe(), &node, "nodefwd-tcp-80");
}

#[test]
fn a_name_says_which_instance_is_meant() {
    let node = Namespace::forwarding("node");
    let any = nodefwd(["status", "--ready"]);
    let web = any.clone().args(&["web"]);
    let named = any.clone().env("NODEFWD_NAME", "web");
    let forwards = any.clone().env("NODEFWD_FORWARDS", "tcp/443=10.2.0.11");
    expect_not_ready(&any, &node, "nodefwd-*");
    let _other = nodefwd(["tcp/443=10.2.0.11"]).start(&node);
    for call in [&any, &forwards] {
        call.finish(&node).expect_success();
    }
    for call in [&web, &named] {
        expect_not_ready(call, &node, "nodefwd-web");
    }
    let _web = nodefwd(["--name=web", "tcp/80=10.2.0.11"]).start(&node);
    for call in [&any, &web, &named, &forwards] {
        call.finish(&node).expect_success();
    }
}

#[test]
fn reading_needs_the_capability_too() {
    let node = Namespace::new("node");
    for call in [nodefwd(["status"]), probe()] {
        let stderr = call.without_net_admin().finish(&node).expect_exit(1).stderr;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("CAP_NET_ADMIN"), "{stderr}");
    }
}
