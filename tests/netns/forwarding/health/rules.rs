//! The rules when a destination fails: how little changes, and what a reload and a successor make of it.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::super::balance::add_addresses;
use super::{reached, tried, tried_every, up, wait_until_up};
use crate::fixture::{
    BACKEND_PORT, Family, Manager, Monitor, Namespace, Net, Process, Protocol, Server, TempFile,
    expect_parts, nodefwd, wait_until,
};

/// A forwarder of which one forward has a destination that fails, and its file.
fn one_of_several_fails(net: &Net) -> (Process, TempFile) {
    let [one, other] = net.two_backends().map(|host| host.address(Family::V4));
    let file = TempFile::new(format!(
        "NODEFWD_NAME=web\nNODEFWD_HEALTH=1\nNODEFWD_FORWARDS=tcp/80={one}:8080,{other}:8080 tcp/81={one}:8080,{one}:8081 tcp/82={one}:8080\n"
    ));
    let call = nodefwd([""; 0]).env("NODEFWD_ENV_FILE", file.path());
    (call.start(&net.node), file)
}

#[test]
fn a_change_is_one_transaction_that_touches_one_forward() {
    let net = Net::new(2);
    let _servers = [8080, 8081].map(|port| net.backends[0].serve(port));
    // It fails once there is somebody to see it, however slow the machine is.
    let healthy = net.backends[1].serve(8080);
    let (forwarder, _file) = one_of_several_fails(&net);
    let monitor = Monitor::start(&net.node);
    drop(healthy);
    wait_until_up(&net.node, &net.backends[1], false);
    let changes = monitor.changes();
    let (transactions, changes): (Vec<&str>, Vec<&str>) =
        changes.lines().partition(|line| line.starts_with('#'));
    assert_eq!(transactions.len(), 1, "{changes:?}");
    assert!(!changes.is_empty());
    for change in changes {
        expect_parts(change, [" inet nodefwd-web tcp-80-ipv4"]);
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn a_reload_keeps_what_is_known() {
    let net = Net::new(2);
    let _servers = [8080, 8081].map(|port| net.backends[0].serve(port));
    let (mut forwarder, file) = one_of_several_fails(&net);
    wait_until_up(&net.node, &net.backends[1], false);
    let parts = || {
        let mut parts: Vec<String> = net.node.rules().split("\n\n").map(str::to_owned).collect();
        parts
            .iter_mut()
            .for_each(|part| part.truncate(part.trim_end_matches(['\n', '}']).len()));
        parts.sort();
        parts
    };
    let before = parts();
    forwarder.signal(Signal::SIGHUP);
    forwarder.wait_for_line("reloaded: ");
    assert_eq!(parts(), before);
    // Also when the rules are marked, and when nothing is tried any more.
    file.write("nonsense");
    forwarder.signal(Signal::SIGHUP);
    forwarder.wait_for_line("warning: not reloaded");
    let _back = net.backends[1].serve(8080);
    wait_until_up(&net.node, &net.backends[1], true);
    expect_parts(&net.node.rules(), ["chain reload-failed"]);
    let one = net.backends[0].address(Family::V4);
    let other = net.backends[1].address(Family::V4);
    file.write(format!(
        "NODEFWD_NAME=web\nNODEFWD_FORWARDS=tcp/80={one}:8080,{other}:8080\n"
    ));
    forwarder.signal(Signal::SIGHUP);
    wait_until(
        "no more attempts",
        || up(&net.node, &net.backends[1]),
        |up| *up == [None],
    );
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Each change comes before an attempt has lasted long enough.
#[test]
fn a_silent_destination_is_left_out_though_the_rules_change_all_the_time() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    net.backends[1].load(
        "table inet silent {\n chain input {\n type filter hook input priority 0\n tcp dport 8080 drop\n }\n }",
    );
    let [one, other] = net.two_backends().map(|host| host.address(Family::V4));
    let file = TempFile::new("");
    let mut number = 0;
    let mut change = || {
        number += 1;
        file.write(format!(
            "NODEFWD_NAME=web\nNODEFWD_HEALTH=4\nNODEFWD_FORWARDS=tcp/80={one}:8080,{other}:8080 tcp/{}=10.9.9.9\n",
            1000 + number
        ));
    };
    change();
    let call = nodefwd([""; 0]).env("NODEFWD_ENV_FILE", file.path());
    let mut forwarder = call.start(&net.node);
    let up = || {
        change();
        forwarder.signal(Signal::SIGHUP);
        sleep(Duration::from_secs(1));
        up(&net.node, &net.backends[1])
    };
    wait_until("a failure", up, |up| *up == [Some(false)]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Whoever takes its place would have to learn it again.
#[test]
fn a_successor_knows_what_fails() {
    let net = Net::new(2);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let forwarder = tried(&net.backends).start(&net.node);
    wait_until_up(&net.node, &net.backends[1], false);
    // It does not try soon.
    let call = tried_every(3600, &net.backends).args(&["--replace"]);
    let successor = call.start(&net.node);
    assert!(
        up(&net.node, &net.backends[1])
            .iter()
            .all(|up| *up == Some(false))
    );
    assert_eq!(reached(&net), HashSet::from(["backend-1".to_owned()]));
    forwarder.finish().expect_exit(0);
    successor.stop(Signal::SIGTERM).expect_exit(0);
}

/// That packets are not forwarded is what its operator must know first.
#[test]
fn a_destination_that_fails_hides_no_forwarding_that_is_off() {
    let net = Net::new(2);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let healthy = net.backends[1].serve(BACKEND_PORT);
    let manager = Manager::at_path("failure-not-forwarded");
    let forwarder = manager.of(tried(&net.backends)).start(&net.node);
    expect_parts(&manager.receive(), ["READY=1"]);
    let switch = |value| net.node.set_sysctl("net/ipv4/ip_forward", value);
    switch("0");
    expect_parts(&manager.receive(), ["IPv4 forwarding is off"]);
    drop(healthy);
    wait_until_up(&net.node, &net.backends[1], false);
    manager.expect_no_more();
    switch("1");
    let said = forwarder.wait_for_line("ready again: forwarding ");
    expect_parts(&said, ["; destinations that fail: "]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// How many connections each destination of the only forward has got.
fn connections(node: &Namespace) -> BTreeMap<String, u64> {
    let json = nodefwd(["status", "--format=json"]).finish(node);
    let json: Value = serde_json::from_str(&json.expect_success()).expect("JSON");
    let destinations = &json["instances"][0]["forwards"][0]["destinations"];
    let destinations = destinations.as_array().expect("destinations").iter();
    let count = |destination: &Value| {
        let count = destination["connections"].as_u64().expect("a number");
        (destination["to"].to_string(), count)
    };
    destinations.map(count).collect()
}

/// Those of a failing destination's clients too, which others have got meanwhile by chains that go when it is back.
fn expect_counts_go_on(balance: &str, destinations: u16) {
    let net = Net::new(2);
    let [one, other] = net.two_backends().map(|host| host.address(Family::V4));
    let ports = BACKEND_PORT..BACKEND_PORT + destinations - 1;
    let others: Vec<SocketAddr> = ports.map(|port| SocketAddr::new(one, port)).collect();
    let _server = Server::start(&net.backends[0], "backend-1", &others);
    let healthy = net.backends[1].serve(BACKEND_PORT);
    let list: Vec<String> = others.iter().map(SocketAddr::to_string).collect();
    let forward = format!("tcp/80={},{other}:{BACKEND_PORT}", list.join(","));
    let balance = format!("--balance={balance}");
    let forwarder = nodefwd(["--health=1", &balance, &forward]).start(&net.node);
    let sources = add_addresses(&net, Family::V4);
    let connect = || {
        let to = net.node_addr(Family::V4, 80);
        for source in &sources {
            let from = SocketAddr::new(*source, 0);
            let reply = net.client.request_from(Protocol::Tcp, from, to);
            reply.expect("a reply");
        }
        connections(&net.node)
    };
    let all = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    let mut before = connect();
    assert!(all(&before) >= 100 && before.len() == usize::from(destinations));
    drop(healthy);
    wait_until_up(&net.node, &net.backends[1], false);
    assert_eq!(connections(&net.node), before);
    let while_down = connect();
    assert!(all(&while_down) >= all(&before) + 100, "{while_down:?}");
    before = while_down;
    let _back = net.backends[1].serve(BACKEND_PORT);
    wait_until_up(&net.node, &net.backends[1], true);
    assert_eq!(connections(&net.node), before);
    assert!(all(&connect()) >= all(&before) + 100);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn counts_of_connections_go_on_when_a_destination_fails_and_when_it_is_back() {
    for balance in ["random", "round-robin", "source"] {
        expect_counts_go_on(balance, 2);
        expect_counts_go_on(balance, 40);
    }
}
