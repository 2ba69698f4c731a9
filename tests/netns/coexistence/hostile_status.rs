//! `nodefwd status` beside a table that is no instance's, but named and made like one.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::fixture::{Namespace, expect_parts, nodefwd};
use crate::status::expect_metrics;

/// How many services lead to a chain, and how many destinations that chain has: of an instance, that would
/// be as many destinations as the product.
pub const SERVICES: usize = 1000;
pub const DESTINATIONS: usize = 2000;

/// How many tables have an instance's name only; how many are made like one, and how many forwards each has.
pub const NAMES: usize = 6000;
pub const TABLES: usize = 100;
pub const FORWARDS: usize = 2000;

const KEY: &str = "type inet_service . inet_proto : ipv4_addr . inet_service;";
const HOOK: &str = "type nat hook prerouting priority dstnat;";

/// How many rows of all instances are shown.
const MOST: usize = 1 << 16;

/// The destinations that are shown of each instance, by its name, and what is said on standard error.
fn shown(node: &Namespace) -> (BTreeMap<String, usize>, String) {
    let outcome = nodefwd(["status", "--format=json"]).finish(node);
    let outcome = outcome.expect_exit(0);
    let found: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let destinations = |instance: &serde_json::Value| {
        let forwards = list(&instance["forwards"]);
        let truncated = instance["truncated"] == true;
        assert_eq!(truncated, forwards.is_empty(), "{instance}");
        let lists = forwards.iter().map(|one| list(&one["destinations"]).len());
        (
            instance["name"].as_str().expect("a name").to_owned(),
            lists.sum(),
        )
    };
    let instances = list(&found["instances"]);
    (instances.iter().map(destinations).collect(), outcome.stderr)
}

#[test]
fn what_status_keeps_of_a_table_is_bounded() {
    let node = Namespace::forwarding("node");
    let rules: String = (0..DESTINATIONS)
        .map(|number| {
            format!(
                "counter dnat ip to 10.9.{}.{}\n",
                number / 250,
                number % 250
            )
        })
        .collect();
    let services: Vec<String> = (1..=SERVICES)
        .map(|port| format!("{port} . tcp : goto many"))
        .collect();
    node.load(&format!(
        "table inet nodefwd-evil {{
            map chains4 {{ type inet_service . inet_proto : verdict; }}
            chain prerouting {{ {HOOK} }}
            chain many {{
                {rules}
            }}
         }}
         add element inet nodefwd-evil chains4 {{ {} }}",
        services.join(", ")
    ));
    let web = nodefwd(["--name=web", "tcp/5000=10.2.0.11"]).start(&node);
    let (instances, stderr) = shown(&node);
    let cut = "warning: the forwards of table inet nodefwd-evil are left out, as they are too many";
    expect_parts(&stderr, [cut]);
    // None of them, as a part would look like all.
    assert_eq!(instances, [("evil".into(), 0), ("web".into(), 1)].into());
    let text = nodefwd(["status"]).finish(&node).expect_success();
    expect_parts(
        &text,
        ["  its forwards are left out, as they are too many\n"],
    );
    let prometheus = nodefwd(["status", "--format=prometheus"]).finish(&node);
    assert!(!prometheus.expect_success().contains("10.9."));
    for call in [&["status", "web"][..], &["status", "--ready", "web"]] {
        let outcome = nodefwd(call).finish(&node).expect_exit(0);
        assert_eq!(outcome.stderr, "");
    }
    drop(web);
}

/// No reader of the metrics takes two samples with the same labels.
#[test]
fn a_service_that_a_table_has_twice_is_one_sample() {
    let node = Namespace::forwarding("node");
    let map = |name: &str| {
        format!("map {name} {{ {KEY} counter; elements = {{ 80 . tcp : 10.9.9.9 . 80 }}\n }}\n")
    };
    let maps = ["forwards4", "port-map4"].map(map).concat();
    node.load(&format!(
        "table inet nodefwd-evil {{ chain prerouting {{ {HOOK} }}\n{maps} }}"
    ));
    let metrics = nodefwd(["status", "--format=prometheus"]).finish(&node);
    let metrics = metrics.expect_success();
    let connections = metrics.matches("nodefwd_connections_total{").count();
    assert_eq!(connections, 1, "{metrics}");
    expect_metrics(&node, &metrics);
}

#[test]
fn what_status_shows_of_all_tables_is_bounded() {
    let node = Namespace::forwarding("node");
    let elements: Vec<String> = (1..=FORWARDS)
        .map(|port| format!("{port} . tcp : 10.9.9.9 . 80"))
        .collect();
    let elements = elements.join(", ");
    let table = |number: usize| {
        format!(
            "table inet nodefwd-like-{number} {{ chain prerouting {{ {HOOK} }}; map forwards4 {{ {KEY} counter; elements = {{ {elements} }}
             }}; }}\n"
        )
    };
    node.load(&(0..TABLES).map(table).collect::<String>());
    let web = nodefwd(["--name=web", "tcp/5000=10.2.0.11"]).start(&node);
    let (instances, stderr) = shown(&node);
    assert_eq!(instances.len(), TABLES + 1);
    assert_eq!(instances["web"], 1);
    let all = instances.values().sum::<usize>();
    assert!(all > FORWARDS && all <= MOST / 2, "{all}");
    let without = instances.values().filter(|shown| **shown == 0).count();
    assert_eq!(stderr.matches("are left out").count(), without);
    let named = nodefwd(["status", "like-99", "--format=json"]).finish(&node);
    let named = named.expect_success();
    assert_eq!(named.matches("10.9.9.9").count(), FORWARDS);
    drop(web);
}

/// How many elements a table of one family has: each part of a long list takes the kernel longer than the one
/// before.
pub const ELEMENTS: usize = 3 * 65_535;

/// More datagrams than the kernel makes of the elements that are shown at most of one of two tables, of some 200 each,
/// and of all else. All of them would be almost 1,000.
const DATAGRAMS: usize = 400;

#[test]
fn what_status_reads_of_a_table_is_bounded() {
    let node = Namespace::forwarding("node");
    // The other table would be in its way.
    let _web = nodefwd(["--name=web", "tcp/5000=10.2.0.11"]).start(&node);
    let elements = (0..ELEMENTS).map(|number| {
        let protocol = ["tcp", "udp", "sctp"][number / 65_535];
        format!("{} . {protocol} : 10.9.9.9 . 80", number % 65_535 + 1)
    });
    let elements = elements.collect::<Vec<_>>().join(",\n");
    node.load(&format!(
        "table inet nodefwd-like {{
            chain prerouting {{ {HOOK} }}
            map forwards4 {{ {KEY} counter; size {ELEMENTS}; elements = {{ {elements} }}
            }}
         }}"
    ));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bounded-status");
    let output = format!("--output={}", file.display());
    let call = nodefwd(["status"]).traced(&["--trace=recvmsg", &output]);
    let text = call.finish(&node).expect_success();
    expect_parts(
        &text,
        ["  its forwards are left out, as they are too many\n"],
    );
    let trace = fs::read_to_string(file).expect("a trace");
    let datagrams = trace.matches("recvmsg(").count();
    assert!(datagrams < DATAGRAMS, "{datagrams}");
}

/// One more than are read of a table.
const SOURCES: usize = (1 << 18) + 1;

/// A table like an instance's that has a forward and as many elements in a set.
fn load_with(node: &Namespace, set: &str, count: usize) {
    let addresses = (0..count).map(|number| Ipv4Addr::from(10 << 24 | number as u32).to_string());
    let addresses = addresses.collect::<Vec<_>>().join(", ");
    node.load(&format!(
        "table inet nodefwd-like {{
            chain prerouting {{ {HOOK} }}
            map forwards4 {{ {KEY} counter; elements = {{ 80 . tcp : 10.9.9.9 . 80 }}
            }}
            set {set} {{
                type ipv4_addr; size {count}; elements = {{ {addresses} }}
            }}
         }}"
    ));
}

#[test]
fn what_status_reads_of_the_sources_is_bounded() {
    let node = Namespace::forwarding("node");
    let cut = "  its forwards are left out, as its sources are too many\n";
    for (count, is_cut) in [(1000, false), (SOURCES, true)] {
        load_with(&node, "allowed4", count);
        let text = nodefwd(["status"]).finish(&node).expect_success();
        assert_eq!(text.contains(cut), is_cut, "{text}");
        assert_eq!(text.contains("src-ranges 10.0.0.0/32"), !is_cut, "{text}");
        let checked = nodefwd(["check"]).finish(&node).stdout;
        let unread = "not looked at: table inet nodefwd-like, as its sources are too many";
        assert_eq!(checked.contains(unread), is_cut, "{checked}");
        node.succeed("nft", &["delete", "table", "inet", "nodefwd-like"]);
    }
}

#[test]
fn what_is_compared_with_a_start_is_bounded() {
    let node = Namespace::forwarding("node");
    load_with(&node, "listen4", SOURCES);
    let unread = "not looked at: what table inet nodefwd-like forwards";
    let web = nodefwd(["--name=web", "tcp/80=10.2.0.11"]).start(&node);
    expect_parts(&web.wait_for_line("ready"), ["ready"]);
    expect_parts(&web.stderr(), [unread]);
    let forward = "tcp/81=10.2.0.11";
    let checked = nodefwd(["check", "--name=other", forward]).finish(&node);
    expect_parts(&checked.stdout, [unread]);
    let text = nodefwd(["status"]).finish(&node).expect_success();
    let cut = "  its forwards are left out, as its addresses are too many\n";
    expect_parts(&text, [cut]);
    drop(web);
}

#[test]
fn tables_that_only_have_an_instances_name_are_not_looked_at() {
    let node = Namespace::forwarding("node");
    let tables =
        (0..NAMES).map(|number| format!("table inet nodefwd-like-{number} {{ chain prerouting {{ }}; map forwards4 {{ {KEY} }}; }}\n"));
    node.load(&tables.collect::<String>());
    let web = nodefwd(["--name=web", "tcp/5000=10.2.0.11"]).start(&node);
    let (instances, stderr) = shown(&node);
    assert_eq!(
        (instances, stderr.as_str()),
        ([("web".into(), 1)].into(), "")
    );
    let checked = nodefwd(["check"]).finish(&node).stdout;
    expect_parts(&checked, ["ok: instances: web runs here"]);
    assert_eq!(checked.matches("like-").count(), 0, "{checked}");
    drop(web);
}
