//! `nodefwd status` beside a table that is no instance's, but named and made like one.

use crate::fixture::{Namespace, expect_parts, nodefwd};

/// How many services lead to a chain, and how many destinations that chain has: of an instance, that would
/// be as many destinations as the product.
pub const SERVICES: usize = 1000;
pub const DESTINATIONS: usize = 2000;

/// What is gone through at most.
const MOST: usize = 1 << 18;

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
            chain many {{
                {rules}
            }}
         }}
         add element inet nodefwd-evil chains4 {{ {} }}",
        services.join(", ")
    ));
    let web = nodefwd(["--name=web", "tcp/5000=10.2.0.11"]).start(&node);
    let outcome = nodefwd(["status", "--format=json"]).finish(&node);
    let outcome = outcome.expect_exit(0);
    let cut = "warning: table inet nodefwd-evil holds more than an instance forwards: the rest is not shown";
    expect_parts(&outcome.stderr, [cut]);
    let found: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let instances = found["instances"].as_array().expect("instances");
    let destinations = |name: &str| {
        let instance = instances.iter().find(|instance| instance["name"] == name);
        let forwards = instance.expect(name)["forwards"]
            .as_array()
            .expect("forwards");
        let lists = forwards
            .iter()
            .map(|forward| forward["destinations"].as_array());
        lists.map(|list| list.map_or(0, Vec::len)).sum::<usize>()
    };
    assert_eq!(destinations("web"), 1);
    assert!(destinations("evil") <= MOST, "{}", destinations("evil"));
    for call in [&["status", "web"][..], &["status", "--ready", "web"]] {
        let outcome = nodefwd(call).finish(&node).expect_exit(0);
        assert_eq!(outcome.stderr, "");
    }
    drop(web);
}
