//! `nodefwd status`: what it says of instances that it does not own.

use std::collections::HashMap;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::{BACK, Busy, FRONT, forward_to};
use crate::fixture::{Family, LIMIT, Namespace, Net, Nodefwd, Process, Protocol, nodefwd};

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

fn status(node: &Namespace) -> Value {
    let call = nodefwd(["status", "--format=json"]);
    let text = call.finish(node).expect_success();
    serde_json::from_str(&text).expect("JSON")
}

/// What an instance says of each destination, by the destination's address.
fn by_destination(instance: &Value, field: &str) -> HashMap<String, u64> {
    let list = |value: &Value, field: &str| value[field].as_array().expect("a list").clone();
    let forwards = list(instance, "forwards");
    let destinations = forwards.iter().flat_map(|one| list(one, "destinations"));
    destinations
        .map(|destination| {
            let address = destination["to"]["address"].as_str().expect("an address");
            (
                address.to_owned(),
                destination[field].as_u64().expect("a number"),
            )
        })
        .collect()
}

#[test]
fn connections_are_counted_at_their_destinations() {
    let net = Net::new(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    for protocol in Protocol::BOTH {
        let _forwarder = forward_to(protocol, &net.backends).start(&net.node);
        let mut expected = HashMap::new();
        for host in &net.backends {
            for family in Family::BOTH {
                expected.insert(host.address(family).to_string(), 0);
            }
        }
        let mut flows = Vec::new();
        for family in Family::BOTH {
            for _ in 0..10 {
                let front = net.front(family, FRONT);
                let mut flow = net.client.connect(protocol, front).expect("a connection");
                for _ in 0..3 {
                    flow.ask().expect("an answer");
                }
                let server = flow.ask().expect("an answer").server;
                let index = usize::from(server == "backend-2");
                let address = net.backends[index].address(family).to_string();
                *expected.entry(address).or_default() += 1;
                flows.push(flow);
            }
        }
        let instance = &status(&net.node)["instances"][0];
        assert_eq!(by_destination(instance, "taken"), expected, "{instance:#}");
        assert_eq!(by_destination(instance, "flows"), expected, "{instance:#}");
        let denied = instance["forwards"].as_array().expect("a list");
        assert!(denied.iter().all(|one| one["denied"] == 0), "{instance:#}");
    }
}

#[test]
fn who_drains_is_not_ready() {
    let mut busy = Busy::start(Family::V4, |call| call.args(&["--drain=3600"]));
    let node = &busy.net.node;
    probe().finish(node).expect_success();

    busy.forwarder.signal(Signal::SIGTERM);
    busy.forwarder.wait_for_line("draining");
    expect_not_ready(&probe(), node, "takes no new connections");
    let instance = &status(node)["instances"][0];
    assert_eq!(instance["open"], false);
    assert_eq!(by_destination(instance, "flows").values().sum::<u64>(), 1);
}

#[test]
fn denied_sources_are_counted() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let call = forward_to(Protocol::Udp, &net.backends).args(&["--src-ranges=10.9.0.0/16"]);
    let _forwarder = call.start(&net.node);
    for family in Family::BOTH {
        net.client
            .expect_silence(Protocol::Udp, net.front(family, FRONT));
    }
    let instance = &status(&net.node)["instances"][0];
    for forward in instance["forwards"].as_array().expect("a list") {
        assert_eq!(forward["denied"], 1, "{instance:#}");
    }
    assert!(
        by_destination(instance, "taken")
            .values()
            .all(|count| *count == 0)
    );
}

#[test]
fn every_kind_of_forward_reads_back() {
    let node = Namespace::forwarding("node");
    let mut call = nodefwd([
        "--name=all",
        "--listen=10.9.0.1,fd00::1",
        "--balance=source",
    ]);
    call = call.args(&[
        "tcp/80=10.2.0.11:8080,10.2.0.12",
        "tcp/443=[fd00::11]:8443",
        "udp/8000-8100=10.2.0.11",
        "udp/9000-9010=10.2.0.11:53",
        "sctp/100-199=10.2.0.11:1100-1199,10.2.0.12:2100-2199,fd00::11",
    ]);
    let forwarder = call.start(&node);
    let forward = |protocol: &str, family: &str, ports: [u16; 2], to: &[(&str, [u16; 2])]| {
        let range = |[first, last]: [u16; 2]| json!({"first": first, "last": last});
        let destination = |(address, ports): &(&str, [u16; 2])| json!({"to": {"address": address, "ports": range(*ports)}, "taken": 0, "flows": 0});
        json!({
            "protocol": protocol,
            "family": family,
            "ports": range(ports),
            "denied": 0,
            "destinations": to.iter().map(destination).collect::<Vec<_>>(),
        })
    };
    let [one, two, six] = ["10.2.0.11", "10.2.0.12", "fd00::11"];
    let found = status(&node);
    let instance = &found["instances"][0];
    assert_eq!(
        instance["forwards"],
        json!([
            forward(
                "tcp",
                "ipv4",
                [80, 80],
                &[(one, [8080, 8080]), (two, [80, 80])]
            ),
            forward("udp", "ipv4", [8000, 8100], &[(one, [8000, 8100])]),
            forward("udp", "ipv4", [9000, 9010], &[(one, [53, 53])]),
            forward(
                "sctp",
                "ipv4",
                [100, 199],
                &[(one, [1100, 1199]), (two, [2100, 2199])]
            ),
            forward("tcp", "ipv6", [443, 443], &[(six, [8443, 8443])]),
            forward("sctp", "ipv6", [100, 199], &[(six, [100, 199])]),
        ])
    );
    assert_eq!(instance["open"], true);
    assert_eq!(instance["name"], "all");
    assert_eq!(instance["table"], "nodefwd-all");
    assert_eq!(instance["listen"], json!(["10.9.0.1", "fd00::1"]));
    assert_eq!(instance["owner"]["pid"], forwarder.id());
    assert_eq!(instance["owner"]["process"], "nodefwd");
    assert!(instance["owner"]["since"].is_u64(), "{instance:#}");
    assert_eq!(found["instances"].as_array().map(Vec::len), Some(1));
}

#[test]
fn tables_of_others_are_shown_as_far_as_they_are_understood() {
    let node = Namespace::forwarding("node");
    assert_eq!(status(&node), json!({"instances": []}));
    node.load("table inet other { chain c { counter drop; }; }");
    node.load("table ip nodefwd-four { chain c { counter drop; }; }");
    node.load("table inet nodefwd-theirs { chain c { counter drop; }; }");
    expect_not_ready(&nodefwd(["status", "--ready"]), &node, "nodefwd-*");
    let theirs = json!({
        "name": "theirs",
        "table": "nodefwd-theirs",
        "open": false,
        "listen": [],
        "owner": null,
        "forwards": [],
    });
    assert_eq!(status(&node), json!({"instances": [theirs]}));
}

#[test]
fn text_has_a_line_for_each_destination_and_a_name_chooses() {
    let node = Namespace::forwarding("node");
    let _web = nodefwd(["--name=web", "tcp/80=10.2.0.11:8080,10.2.0.12:8080"]).start(&node);
    let _dns = nodefwd(["--name=dns", "udp/53=10.2.0.13"]).start(&node);
    let all = nodefwd(["status"]).finish(&node).expect_success();
    let web = nodefwd(["status", "web"]).finish(&node).expect_success();
    assert!(
        all.starts_with("dns: table inet nodefwd-dns, owned by"),
        "{all}"
    );
    // The first line says for how long, which may have changed meanwhile.
    let (_, table) = web.split_once('\n').expect("a table");
    assert!(all.contains(table), "{all}");
    for word in ["web: ", "tcp/80 IPv4", "10.2.0.11:8080", "10.2.0.12:8080"] {
        assert!(web.contains(word), "{word} is not in: {web}");
    }
    let unknown = nodefwd(["status", "mail"]).finish(&node).expect_exit(1);
    assert!(unknown.stderr.contains("'mail'"), "{}", unknown.stderr);
    nodefwd(["status", "no name"]).finish(&node).expect_exit(2);
}

#[test]
fn prometheus_takes_the_metrics() {
    let node = Namespace::forwarding("node");
    let _web = nodefwd(["--name=web", "--src-ranges=10.0.0.0/8", "tcp/80=10.2.0.11"]).start(&node);
    let call = nodefwd(["status", "--format=prometheus"]);
    let metrics = call.finish(&node).expect_success();
    let sample = "nodefwd_connections_total{instance=\"web\",protocol=\"tcp\",ports=\"80\",family=\"ipv4\",destination=\"10.2.0.11:80\"} 0\n";
    assert!(metrics.contains(sample), "{metrics}");
    let promtool = Command::new("promtool").arg("--version").output();
    assert!(promtool.is_ok(), "no promtool: tests/run.sh brings it");
    // It has an opinion on good metrics too, and then says so.
    let outcome = node.feed(&metrics, "promtool", &["check", "metrics"]);
    assert_eq!(outcome, "");
}

#[test]
fn watching_goes_on_until_a_signal() {
    let node = Namespace::forwarding("node");
    let mut watch: Process = nodefwd(["status", "--watch"]).spawn(&node);
    let nothing = "nodefwd forwards nothing";
    let deadline = std::time::Instant::now() + LIMIT;
    while watch.stdout().matches(nothing).count() < 2 {
        assert!(std::time::Instant::now() < deadline, "{}", watch.stdout());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    watch.signal(Signal::SIGTERM);
    watch.wait();
}
