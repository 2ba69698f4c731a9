//! Forwarding that is switched off or on while an instance runs.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::faults::{Socket, sockets};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Manager, Monitor, Namespace, Net, Nodefwd, Process,
    Protocol, TempFile, expect_parts, forward_to, nodefwd, wait_until,
};

/// The switch of a family, below /proc/sys, and the command that messages give.
fn switch(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("net/ipv4/ip_forward", "sysctl -w net.ipv4.ip_forward=1"),
        Family::V6 => (
            "net/ipv6/conf/all/forwarding",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
        ),
    }
}

fn set(node: &Namespace, family: Family, value: &str) {
    node.set_sysctl(switch(family).0, value);
}

fn warnings(forwarder: &Process) -> usize {
    let stderr = forwarder.stderr();
    let warnings = stderr.lines().filter(|line| line.starts_with("warning:"));
    warnings.count()
}

/// How the line begins that says that a second family is forwarded too.
const TAKEN_IN: &str = "ready: forwarding tcp/80=10.2.1.2:8080 tcp/80=[fd00:2:1::2]:8080 in table inet nodefwd-tcp-80, now over";

/// What the probe says: `None` if it is ready.
fn probe(node: &Namespace) -> Option<String> {
    let outcome = nodefwd(["status", "--ready", "tcp-80"]).finish(node);
    assert_eq!(outcome.stdout, "");
    (!outcome.status.success()).then_some(outcome.stderr)
}

/// A family as JSON and Prometheus name it.
fn label(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Whether the JSON status says that a family is forwarded, and why not.
fn forwarding(node: &Namespace, family: Family) -> (bool, Option<String>) {
    let status = nodefwd(["status", "--format=json"]).finish(node);
    let status: Value = serde_json::from_str(&status.expect_success()).expect("JSON");
    let families = status["instances"][0]["forwarding"].as_array();
    let of_family = families.expect("a list").iter();
    let mut of_family = of_family.filter(|status| status["family"] == label(family));
    let status = of_family.next().expect("the family");
    let reason = status["reason"].as_str().map(str::to_owned);
    (status["on"].as_bool().expect("a boolean"), reason)
}

#[track_caller]
fn expect_forwarded(net: &Net, family: Family) {
    let node_addr = net.node_addr(family, FORWARDED_PORT);
    let reply = net.client.request(Protocol::Tcp, node_addr);
    assert_eq!(reply.expect("a reply").server, "backend-1");
}

fn forward(net: &Net) -> Nodefwd {
    forward_to(Protocol::Tcp, &net.backends)
}

#[test]
fn a_family_that_is_switched_off_is_said_once_and_so_is_that_it_is_on_again() {
    for family in Family::BOTH {
        let net = Net::new(1);
        let _servers = net.serve(BACKEND_PORT);
        let manager = Manager::at_path(&format!("switched-{family:?}"));
        let forwarder = manager.of(forward(&net)).start(&net.node);
        let (_, fix) = switch(family);
        let ready = manager.receive();
        assert_eq!(probe(&net.node), None);

        set(&net.node, family, "0");
        assert!(
            forwarder
                .wait_for_line("warning: not ready: ")
                .contains(fix)
        );
        let status = manager.receive();
        assert!(status.starts_with("STATUS=not ready: "), "{status}");
        expect_parts(&status, [fix]);
        let reason = probe(&net.node).expect("not ready");
        expect_parts(&reason, [fix, "not ready"]);
        let (on, reason) = forwarding(&net.node, family);
        assert!(!on);
        expect_parts(&reason.expect("a reason"), [fix]);
        let text = nodefwd(["status"]).finish(&net.node).expect_success();
        expect_parts(&text, ["not ready: ", fix]);
        let metrics = nodefwd(["status", "--format=prometheus"]).finish(&net.node);
        let labels = format!("forwarder=\"tcp-80\",family=\"{}\"", label(family));
        let sample = format!("nodefwd_instance_forwarding{{{labels}}} 0");
        expect_parts(&metrics.expect_success(), [sample]);

        set(&net.node, family, "1");
        forwarder.wait_for_line("ready again: forwarding tcp/80");
        assert_eq!(manager.receive(), ready);
        assert_eq!(probe(&net.node), None);
        assert_eq!(forwarding(&net.node, family), (true, None));
        expect_forwarded(&net, family);
        assert_eq!(warnings(&forwarder), 1, "{}", forwarder.stderr());
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// While one family is off, the other is switched off too: each has its line.
#[test]
fn what_is_off_is_not_said_again_when_more_is_switched_off() {
    let net = Net::new(1);
    let forwarder = forward(&net).start(&net.node);
    for family in Family::BOTH {
        set(&net.node, family, "0");
        let is_said = |stderr: &String| stderr.contains(switch(family).1);
        wait_until("a warning", || forwarder.stderr(), is_said);
    }
    assert_eq!(warnings(&forwarder), 2, "{}", forwarder.stderr());
}

/// Of the interfaces in use, clients' and destinations', and of no other.
#[test]
fn ipv4_forwarding_of_an_interface_in_use_is_watched_too() {
    let net = Net::new(1);
    let _other = net.another_client(2);
    net.node.ip(&format!(
        "route add default via {}",
        net.client.address(Family::V4)
    ));
    let _servers = net.serve(BACKEND_PORT);
    for interface in ["client", "backend-1"] {
        let key = format!("net/ipv4/conf/{interface}/forwarding");
        let fix = format!("sysctl -w net.ipv4.conf.{interface}.forwarding=1");
        let forwarder = forward(&net).start(&net.node);
        net.node
            .set_sysctl("net/ipv4/conf/client-2/forwarding", "0");
        net.node.set_sysctl("net/ipv6/conf/client/forwarding", "0");
        assert_eq!(probe(&net.node), None);
        net.node.set_sysctl(&key, "0");
        let warning = forwarder.wait_for_line("warning: not ready: ");
        expect_parts(&warning, [&fix]);
        expect_parts(&probe(&net.node).expect("not ready"), [&fix]);
        expect_parts(
            &forwarding(&net.node, Family::V4).1.expect("a reason"),
            [&fix],
        );
        net.node.set_sysctl(&key, "1");
        forwarder.wait_for_line("ready again: ");
        assert_eq!(probe(&net.node), None);
        assert_eq!(warnings(&forwarder), 1, "{}", forwarder.stderr());
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

#[test]
fn ipv4_forwarding_of_each_interface_that_is_listened_on_is_watched() {
    let net = Net::new(1);
    let other = net.another_client(2);
    let address = other.gateway(Family::V4);
    for listen in ["client,client-2", &format!("client,client-2,{address}")] {
        let call = forward(&net).args(&["--listen", listen]);
        let forwarder = call.start(&net.node);
        for interface in ["client", "client-2"] {
            let key = format!("net/ipv4/conf/{interface}/forwarding");
            let fix = format!("sysctl -w net.ipv4.conf.{interface}.forwarding=1");
            net.node.set_sysctl(&key, "0");
            let awaited = format!("a warning that names {interface}");
            let is_named = |stderr: &String| stderr.contains(&fix);
            wait_until(&awaited, || forwarder.stderr(), is_named);
            expect_parts(&probe(&net.node).expect("not ready"), [&fix]);
            let check = nodefwd(["check"]).finish(&net.node).expect_exit(1);
            expect_parts(&check.stdout, ["failure: forwarding: ", &fix]);
            net.node.set_sysctl(&key, "1");
            assert_eq!(probe(&net.node), None);
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

#[test]
fn a_family_that_was_off_at_the_start_is_taken_in_when_it_is_switched_on() {
    for family in Family::BOTH {
        for owner in ["true", "false"] {
            let net = Net::new(1);
            let _servers = net.serve(BACKEND_PORT);
            set(&net.node, family, "0");
            let call = forward(&net).env("NODEFWD_OWNER", owner);
            let forwarder = call.start(&net.node);
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            net.client.expect_refused(Protocol::Tcp, node_addr);
            assert_eq!(probe(&net.node), None);
            let monitor = Monitor::start(&net.node);

            set(&net.node, family, "1");
            forwarder.wait_for_line(TAKEN_IN);
            expect_forwarded(&net, family);
            // The second transaction only takes the chains out that catch packets during the first.
            let changes = monitor.changes();
            let (first, _) = changes.split_once("\n#").expect("a transaction");
            expect_parts(
                first,
                ["delete table", "ipv4 dnat ip to", "ipv6 dnat ip6 to"].map(String::from),
            );
            // Switched off again, it is as any other.
            set(&net.node, family, "0");
            expect_parts(
                &forwarder.wait_for_line("warning: not ready: "),
                [switch(family).1],
            );
            set(&net.node, family, "1");
            forwarder.wait_for_line("ready again: ");
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
            assert_eq!(net.node.ruleset(), "");
        }
    }
}

/// The service manager goes on showing what is off: nobody looks for it while all reads well.
#[test]
fn that_a_family_is_off_stays_the_status_while_the_other_is_taken_in() {
    let net = Net::new(1);
    let manager = Manager::at_path("taken-in-while-off");
    set(&net.node, Family::V6, "0");
    let forwarder = manager.of(forward(&net)).start(&net.node);
    manager.receive();
    set(&net.node, Family::V4, "0");
    let status = manager.receive();
    assert!(status.starts_with("STATUS=not ready: "), "{status}");
    set(&net.node, Family::V6, "1");
    forwarder.wait_for_line(TAKEN_IN);
    set(&net.node, Family::V4, "1");
    forwarder.wait_for_line("ready again: ");
    expect_parts(&manager.receive(), ["READY=1", "tcp/80=[fd00:2:1::2]:8080"]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    expect_parts(&manager.receive(), ["STOPPING=1"]);
}

/// A reload leaves a family out that is off, but not one that is off for an interface.
#[test]
fn that_an_interface_is_off_stays_the_status_after_a_reload() {
    let net = Net::new(1);
    let manager = Manager::at_path("reloaded-while-off");
    let file = TempFile::new("");
    let call = forward(&net).env("NODEFWD_ENV_FILE", file.path());
    let mut forwarder = manager.of(call).start(&net.node);
    manager.receive();
    set(&net.node, Family::V6, "0");
    manager.receive();
    let off = "net/ipv4/conf/backend-1/forwarding";
    net.node.set_sysctl(off, "0");
    let (both, fix) = (manager.receive(), "net.ipv4.conf.backend-1.forwarding=1");
    expect_parts(&both, [switch(Family::V6).1, fix]);
    forwarder.signal(Signal::SIGHUP);
    expect_parts(&manager.receive(), ["RELOADING=1"]);
    expect_parts(&manager.receive(), ["READY=1", "STATUS=forwarding "]);
    let of_interface = manager.receive();
    expect_parts(&of_interface, ["STATUS=not ready: ", fix]);
    net.node.set_sysctl(off, "1");
    expect_parts(&manager.receive(), ["READY=1", "STATUS=forwarding "]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Clients that sent before are forwarded too, and a port that another instance took meanwhile stays with
/// it.
#[test]
fn a_family_that_is_taken_in_has_its_stale_flows_ended_and_respects_others() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    net.node.keep_udp_entries();
    set(&net.node, Family::V6, "0");
    let forwarder = forward_to(Protocol::Udp, &net.backends).start(&net.node);
    let node_addr = net.node_addr(Family::V6, FORWARDED_PORT);
    let mut stale = net
        .client
        .connect(Protocol::Udp, node_addr)
        .expect("a socket");
    stale.expect_closed();
    set(&net.node, Family::V6, "1");
    forwarder.wait_for_line("deleted 1 stale");
    stale.request().expect("a reply");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    set(&net.node, Family::V6, "0");
    let forwarder = forward(&net).start(&net.node);
    set(&net.node, Family::V6, "1");
    forwarder.wait_for_line(TAKEN_IN);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);

    net.node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    let forwarder = forward(&net).start(&net.node);
    net.node.load(
        "table inet nodefwd-other {
            chain prerouting { type nat hook prerouting priority dstnat; }
            map forwards6 {
                type inet_service . inet_proto : ipv6_addr . inet_service
                elements = { 80 . tcp : fd00:9::1 . 80 }
            }
        }",
    );
    set(&net.node, Family::V6, "1");
    let warning = forwarder.wait_for_line("warning: IPv6 forwarding is on now");
    expect_parts(&warning, ["tcp/80", "nodefwd-other"]);
    expect_forwarded(&net, Family::V4);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn many_switches_do_not_flood_the_log_and_the_last_one_counts() {
    let net = Net::new(1);
    let mut forwarder = forward(&net).start(&net.node);
    let toggle = |times: usize| {
        let path = format!("/proc/sys/{}", switch(Family::V4).0);
        net.node.run(|| {
            for number in 0..times {
                let value = if number % 2 == 0 { "0" } else { "1" };
                fs::write(&path, value).expect("the switch");
            }
        });
    };
    toggle(2000);
    // One by one, so that each could be looked at.
    for value in ["0", "1"].repeat(100) {
        set(&net.node, Family::V4, value);
        let are_read = |sockets: &Vec<Socket>| sockets.iter().all(|socket| socket.queued == 0);
        wait_until("empty queues", || sockets(&forwarder), are_read);
    }
    toggle(1);
    forwarder.wait_for_line("warning: not ready: ");
    let is_off = |stderr: &String| {
        stderr
            .trim_end()
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("warning: not ready"))
    };
    wait_until("the last state", || forwarder.stderr(), is_off);
    assert!(
        forwarder.stderr().lines().count() < 40,
        "{}",
        forwarder.stderr()
    );
    // A signal is heeded amidst of them.
    toggle(2001);
    forwarder.signal(Signal::SIGTERM);
    forwarder.finish().expect_exit(0);
}

/// A draining instance accepts no new connections, over no family.
#[test]
fn a_family_that_is_switched_on_during_a_drain_is_not_taken_in() {
    let net = Net::new(1);
    set(&net.node, Family::V6, "0");
    let _servers = net.serve(BACKEND_PORT);
    let mut forwarder = forward(&net).args(&["--drain=3600"]).start(&net.node);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let flow = net.client.live_flow(Protocol::Tcp, node_addr);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(1);
    let rules = net.node.rules();
    set(&net.node, Family::V6, "1");
    set(&net.node, Family::V4, "0");
    set(&net.node, Family::V4, "1");
    assert_eq!(net.node.rules(), rules);
    drop(flow);
    forwarder.wait_until_drained();
    forwarder.finish().expect_exit(0);
}

/// The new process reads what is on itself.
#[test]
fn a_replacement_takes_over_what_is_on() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    set(&net.node, Family::V6, "0");
    let call = forward(&net).args(&["--replace"]);
    let first = call.start(&net.node);
    let second = call.start(&net.node);
    first.finish().expect_exit(0);
    set(&net.node, Family::V6, "1");
    second.wait_for_line(TAKEN_IN);
    let third = call.start(&net.node);
    second.finish().expect_exit(0);
    for family in Family::BOTH {
        expect_forwarded(&net, family);
    }
    assert!(!third.stderr().contains("warning"), "{}", third.stderr());
    third.stop(Signal::SIGTERM).expect_exit(0);
}
