//! `nodefwd status`: what it says of the instances in a network namespace.

mod flows;
mod namespaces;
mod options;
mod output;

pub use output::expect_metrics;

use std::collections::HashMap;
use std::net::SocketAddr;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, ForwardedConnection, Namespace, Net, Nodefwd, Protocol,
    expect_parts, forward_to, has_owner_flag, nodefwd,
};

/// Fields of the JSON output.
mod json {
    /// How many connections a forward has given to a backend.
    pub const CONNECTIONS: &str = "connections";
    /// How many of them the kernel still has entries of.
    pub const ACTIVE: &str = "active";
    /// How many of those have had no reply.
    pub const UNANSWERED: &str = "unanswered";
    /// How many packets of denied sources were dropped.
    pub const DROPPED: &str = "dropped";
    /// Whether an instance forwards new connections.
    pub const ACCEPTING: &str = "accepting";
}

/// The call of a container of the service load balancer.
fn container() -> Nodefwd {
    with_environment(nodefwd([""; 0]))
}

/// The call of the readiness probe in that container.
fn probe() -> Nodefwd {
    with_environment(nodefwd(["status", "--ready"]))
}

fn with_environment(call: Nodefwd) -> Nodefwd {
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
    expect_parts(&stderr, [missing]);
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
fn status_ready_is_about_the_instance_with_the_given_name_or_forwards() {
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
fn status_needs_cap_net_admin_too() {
    let node = Namespace::new("node");
    for call in [nodefwd(["status"]), probe()] {
        let stderr = call.without_net_admin().finish(&node).expect_exit(1).stderr;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        expect_parts(&stderr, ["CAP_NET_ADMIN"]);
    }
}

fn status(node: &Namespace) -> Value {
    let call = nodefwd(["status", "--format=json"]);
    let text = call.finish(node).expect_success();
    serde_json::from_str(&text).expect("JSON")
}

/// A field of each backend, by the backend's address.
fn by_backend(instance: &Value, field: &str) -> HashMap<String, u64> {
    let list = |value: &Value, field: &str| value[field].as_array().expect("a list").clone();
    let forwards = list(instance, "forwards");
    let backends = forwards.iter().flat_map(|one| list(one, "destinations"));
    let of_backend = |backend: Value| {
        let address = backend["to"]["address"].as_str().expect("an address");
        let number = backend[field].as_u64().expect("a number");
        (address.to_owned(), number)
    };
    backends.map(of_backend).collect()
}

#[test]
fn connections_are_counted_at_their_backends() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
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
                let node_addr = net.node_addr(family, FORWARDED_PORT);
                let mut flow = net.client.live_flow(protocol, node_addr);
                for _ in 0..3 {
                    flow.expect_unchanged();
                }
                let index = usize::from(flow.reply.server == "backend-2");
                let address = net.backends[index].address(family).to_string();
                *expected.entry(address).or_default() += 1;
                flows.push(flow);
            }
        }
        let instance = &status(&net.node)["instances"][0];
        for field in [json::CONNECTIONS, json::ACTIVE] {
            assert_eq!(by_backend(instance, field), expected, "{instance:#}");
        }
        let unanswered = by_backend(instance, json::UNANSWERED);
        assert!(unanswered.values().all(|count| *count == 0), "{instance:#}");
        let forwards = instance["forwards"].as_array().expect("a list");
        let none_dropped = forwards.iter().all(|one| one[json::DROPPED] == 0);
        assert!(none_dropped, "{instance:#}");
    }
}

#[test]
fn an_instance_that_drains_is_not_ready() {
    let mut forwarded = ForwardedConnection::start(Family::V4, |call| call.args(&["--drain=3600"]));
    let node = &forwarded.net.node;
    probe().finish(node).expect_success();

    forwarded.forwarder.signal(Signal::SIGTERM);
    forwarded.forwarder.wait_until_draining(1);
    expect_not_ready(&probe(), node, "accepts no new connections");
    let instance = &status(node)["instances"][0];
    assert_eq!(instance[json::ACCEPTING], false);
    let active = by_backend(instance, json::ACTIVE);
    assert_eq!(active.values().sum::<u64>(), 1);
}

/// Single ports are counted by elements of a map, ranges by those or by rules of their own.
#[test]
fn connections_to_the_only_destination_of_a_port_or_range_are_counted() {
    let net = Net::new(1);
    let _servers = [BACKEND_PORT, 20_001].map(|port| net.backends[0].serve(port));
    let listed = |family| {
        let to = net.backends[0].address(family);
        let to = |port| SocketAddr::new(to, port).to_string();
        [
            (80, format!("80={}", to(BACKEND_PORT))),
            (
                20_001,
                format!("20000-20002={}", net.backends[0].address(family)),
            ),
            (20_101, format!("20100-20102={}", to(BACKEND_PORT))),
            (
                20_201,
                format!("20200-20202={}-{}", to(BACKEND_PORT - 1), BACKEND_PORT + 1),
            ),
        ]
    };
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let listed = listed(family);
            let name = protocol.name();
            let forwards = listed.iter().map(|(_, text)| format!("{name}/{text}"));
            let _forwarder = nodefwd(forwards).start(&net.node);
            for (times, (port, _)) in (1..).zip(&listed) {
                for _ in 0..times {
                    let reply = net.client.request(protocol, net.node_addr(family, *port));
                    assert_eq!(reply.expect("a reply").server, "backend-1", "{port}");
                }
            }
            let instance = &status(&net.node)["instances"][0];
            let forwards = instance["forwards"].as_array().expect("a list");
            let counted = forwards
                .iter()
                .map(|one| &one["destinations"][0][json::CONNECTIONS]);
            let counted: Vec<&Value> = counted.collect();
            assert_eq!(counted, [1, 2, 3, 4], "{instance:#}");
        }
    }
}

#[test]
fn packets_of_denied_sources_are_counted() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let call = forward_to(Protocol::Udp, &net.backends).args(&["--src-ranges=10.9.0.0/16"]);
    let _forwarder = call.start(&net.node);
    for family in Family::BOTH {
        net.client
            .expect_silence(Protocol::Udp, net.node_addr(family, FORWARDED_PORT));
    }
    let instance = &status(&net.node)["instances"][0];
    for forward in instance["forwards"].as_array().expect("a list") {
        assert_eq!(forward[json::DROPPED], 1, "{instance:#}");
    }
    let connections = by_backend(instance, json::CONNECTIONS);
    assert!(
        connections.values().all(|count| *count == 0),
        "{instance:#}"
    );
}

#[test]
fn every_kind_of_forward_is_read_back_from_the_rules() {
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
        let backend = |(address, ports): &(&str, [u16; 2])| {
            json!({
                "to": {"address": address, "ports": range(*ports)},
                "listed": true,
                (json::CONNECTIONS): 0,
                (json::ACTIVE): 0,
                (json::UNANSWERED): 0,
                "up": null,
            })
        };
        json!({
            "protocol": protocol,
            "family": family,
            "ports": range(ports),
            (json::DROPPED): 0,
            "destinations": to.iter().map(backend).collect::<Vec<_>>(),
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
    assert_eq!(instance[json::ACCEPTING], true);
    assert_eq!(instance["name"], "all");
    assert_eq!(instance["table"], "nodefwd-all");
    assert_eq!(instance["listen"], json!(["10.9.0.1", "fd00::1"]));
    assert_eq!(instance["owner"]["pid"], forwarder.id());
    assert_eq!(instance["owner"]["process"], "nodefwd");
    assert!(instance["owner"]["since"].is_u64(), "{instance:#}");
    assert_eq!(found["instances"].as_array().map(Vec::len), Some(1));
}

#[test]
fn another_programs_table_with_a_name_like_its_own_is_not_listed() {
    let node = Namespace::forwarding("node");
    let none = json!({"schema": 1, "instances": []});
    assert_eq!(status(&node), none);
    node.load("table inet other { chain c { counter drop; }; }");
    node.load("table ip nodefwd-four { chain c { counter drop; }; }");
    node.load("table inet nodefwd-theirs { chain c { counter drop; }; }");
    expect_not_ready(&nodefwd(["status", "--ready"]), &node, "nodefwd-*");
    assert_eq!(status(&node), none);
    let named = nodefwd(["status", "theirs"]).finish(&node).expect_exit(1);
    expect_parts(&named.stderr, ["no instance 'theirs'"]);
}

/// What `status` says of a table on this kernel.
fn ownership() -> &'static str {
    if has_owner_flag() {
        "owned by"
    } else {
        "without an owner"
    }
}

#[test]
fn the_text_has_a_line_for_each_backend_and_a_name_selects_an_instance() {
    let node = Namespace::forwarding("node");
    let _web = nodefwd(["--name=web", "tcp/80=10.2.0.11:8080,10.2.0.12:8080"]).start(&node);
    let _dns = nodefwd(["--name=dns", "udp/53=10.2.0.13"]).start(&node);
    let all = nodefwd(["status"]).finish(&node).expect_success();
    let web = nodefwd(["status", "web"]).finish(&node).expect_success();
    assert!(
        all.starts_with(&format!("dns: table inet nodefwd-dns, {}", ownership())),
        "{all}"
    );
    // The first line says since when, which may have changed meanwhile.
    let (_, table) = web.split_once('\n').expect("a table");
    assert!(all.contains(table), "{all}");
    let parts = ["web: ", "tcp/80 IPv4", "10.2.0.11:8080", "10.2.0.12:8080"];
    expect_parts(&web, parts);
    let unknown = nodefwd(["status", "mail"]).finish(&node).expect_exit(1);
    let message = "no instance 'mail' in this network namespace; list them with: nodefwd status";
    expect_parts(&unknown.stderr, [message]);
    nodefwd(["status", "no name"]).finish(&node).expect_exit(2);
}
