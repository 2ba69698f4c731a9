//! Somebody else's NAT that takes the connections first.

use nix::sys::signal::Signal;

use super::{BACK, FRONT, Report, net, shell, start};
use crate::fixture::{Family, Net, Protocol, Server};

/// Where the node itself serves.
const NODE: u16 = 1001;

fn node_server(net: &Net) -> Server {
    Server::start(&net.node, "node", &[net.front(Family::V4, NODE)])
}

fn server_of(net: &Net) -> String {
    let answer = net
        .client
        .request(Protocol::Tcp, net.front(Family::V4, FRONT));
    answer.expect("an answer").server
}

/// A chain at a hook, of this priority, with these rules.
fn chain(hook: &str, priority: &str, rules: &str) -> String {
    format!(
        "table inet theirs {{
            chain services {{ tcp dport 80 redirect to :{NODE}; }}
            chain early {{ type nat hook {hook} priority {priority}; {rules}; }}
         }}"
    )
}

#[test]
fn an_earlier_chain_takes_them_until_its_rule_is_gone() {
    let net = net(1);
    let _servers = (node_server(&net), net.backends[0].serve(BACK));
    net.node
        .load(&chain("prerouting", "dstnat - 1", "jump services"));
    let forward = "tcp/80=10.2.1.2:8080";
    let instance = start(&net, forward);
    assert_eq!(server_of(&net), "node");
    instance.stop(Signal::SIGTERM).expect_exit(0);

    let report = Report::of(&net.node, forward);
    let failure = report.only("failure", "other NAT");
    for word in ["chain services", "-101", "tcp/80 over IPv4"] {
        assert!(failure.text.contains(word), "{failure:?}");
    }
    shell(&net.node, failure.command());
    Report::of(&net.node, forward).expect_ok();
    let _instance = start(&net, forward);
    assert_eq!(server_of(&net), "backend-1");
}

/// The kernel asks the chain that was made last first.
#[test]
fn a_chain_of_the_same_priority_is_a_warning_since_the_last_one_comes_first() {
    let net = net(1);
    let _servers = (node_server(&net), net.backends[0].serve(BACK));
    let theirs = chain("prerouting", "dstnat", "jump services");
    net.node.load(&theirs);
    let forward = "tcp/80=10.2.1.2:8080";
    let warning = "at the same priority: whose table is made last comes first";
    let report = Report::of(&net.node, forward);
    assert!(
        report.only("warning", "other NAT").text.contains(warning),
        "{report:#?}"
    );

    let _instance = start(&net, forward);
    assert_eq!(server_of(&net), "backend-1");
    net.node.load("delete table inet theirs");
    net.node.load(&theirs);
    assert_eq!(server_of(&net), "node");

    // What may take some of them only is not worth a word there.
    let unclear = "ip saddr 10.1.1.2 tcp dport 80 redirect to :1001";
    net.node.load("delete table inet theirs");
    net.node.load(&chain("prerouting", "dstnat", unclear));
    Report::of(&net.node, forward).only("failure", "instances");
}

/// What is taken by these rules of an earlier chain, in the eyes of check and of the kernel.
const EARLIER: [(&str, &str, &str); 18] = [
    (
        "failure",
        "tcp/80=10.2.1.2:8080",
        "tcp dport 80 redirect to :1001",
    ),
    (
        "ok",
        "tcp/80=10.2.1.2:8080",
        "tcp dport 8080 redirect to :1001",
    ),
    (
        "ok",
        "tcp/80=10.2.1.2:8080",
        "udp dport 80 redirect to :1001",
    ),
    (
        "failure",
        "tcp/80=10.2.1.2:8080",
        "ip daddr 10.1.1.1 tcp dport 80 redirect to :1001",
    ),
    (
        "ok",
        "tcp/80=10.2.1.2:8080",
        "ip daddr 10.1.1.9 tcp dport 80 redirect to :1001",
    ),
    (
        "ok",
        "tcp/80=10.2.1.2:8080",
        "meta nfproto ipv6 tcp dport 80 redirect to :1001",
    ),
    (
        "ok",
        "tcp/80=10.2.1.2:8080",
        "iifname backend-1 tcp dport 80 redirect to :1001",
    ),
    (
        "failure",
        "tcp/80=10.2.1.2:8080",
        "fib daddr type local tcp dport { 80, 443 } redirect to :1001",
    ),
    (
        "ok",
        "tcp/80=10.2.1.2:8080",
        "fib daddr type != local tcp dport 80 redirect to :1001",
    ),
    (
        "failure",
        "tcp/80=10.2.1.2:8080",
        "ip daddr . meta l4proto . th dport vmap { 10.1.1.1 . tcp . 80 : goto services }",
    ),
    (
        "ok",
        "tcp/80=10.2.1.2:8080",
        "ip daddr . meta l4proto . th dport vmap { 10.1.1.1 . udp . 80 : goto services }",
    ),
    ("ok", "tcp/80=10.2.1.2:8080", "tcp dport 80 accept"),
    (
        "warning",
        "tcp/80=10.2.1.2:8080",
        "ip saddr 10.1.1.2 tcp dport 80 redirect to :1001",
    ),
    (
        "failure",
        "--listen=10.1.1.1 tcp/80=10.2.1.2:8080",
        "ip daddr 10.1.1.1 tcp dport 80 redirect to :1001",
    ),
    (
        "ok",
        "--listen=10.1.1.1 tcp/80=10.2.1.2:8080",
        "ip daddr 10.2.1.1 tcp dport 80 redirect to :1001",
    ),
    (
        "failure",
        "tcp/70-90=10.2.1.2:8080",
        "tcp dport 60-100 redirect to :1001",
    ),
    (
        "warning",
        "tcp/70-90=10.2.1.2:8080",
        "tcp dport 80 redirect to :1001",
    ),
    (
        "ok",
        "tcp/81-90=10.2.1.2:8080",
        "tcp dport 80 redirect to :1001",
    ),
];

#[test]
fn rules_of_an_earlier_chain() {
    let net = net(1);
    let _servers = (node_server(&net), net.backends[0].serve(BACK));
    for (level, forward, rules) in EARLIER {
        net.node.load("flush ruleset");
        net.node.load(&chain("prerouting", "-150", rules));
        Report::of(&net.node, forward).line(level, "other NAT");
        let server = match level {
            "ok" if !forward.contains("81-90") => "backend-1",
            "failure" => "node",
            _ => continue,
        };
        let _instance = start(&net, forward);
        assert_eq!(server_of(&net), server, "{rules}");
    }
}

#[test]
fn iptables_nat() {
    let net = net(1);
    let check = || Report::of(&net.node, "tcp/80=10.2.1.2:8080");
    shell(
        &net.node,
        "iptables -t nat -N DOCKER
         iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
         iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
    );
    check().expect_ok();
    for rule in [
        "DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80",
        "PREROUTING -p tcp -m multiport --dports 80,443 -j REDIRECT --to-ports 1001",
    ] {
        shell(&net.node, &format!("iptables -t nat -A {rule}"));
        let command = check().only("warning", "other NAT").command().to_owned();
        shell(&net.node, &command);
        check().expect_ok();
    }
}

#[test]
fn connections_made_on_the_host_itself_count_only_if_they_are_forwarded() {
    let net = net(1);
    net.node
        .load(&chain("output", "-150", "tcp dport 80 redirect to :1001"));
    Report::of(&net.node, "tcp/80=10.2.1.2:8080").expect_ok();
    let report = Report::of(&net.node, "--output tcp/80=10.2.1.2:8080");
    report.only("failure", "other NAT");
}

#[test]
fn later_chains_and_other_instances_take_nothing() {
    let net = net(1);
    let _servers = (node_server(&net), net.backends[0].serve(BACK));
    net.node.load(&chain("prerouting", "-99", "jump services"));
    let _other = start(&net, "--name=other udp/80=10.2.1.2:8080 tcp/81=10.2.1.2");
    let forward = "tcp/80=10.2.1.2:8080";
    Report::of(&net.node, forward).expect_ok();
    let _instance = start(&net, forward);
    assert_eq!(server_of(&net), "backend-1");
}

#[test]
fn dropping_is_taking_too() {
    let net = net(1);
    net.node.load(&chain(
        "prerouting",
        "-150",
        "policy drop; tcp dport 22 accept",
    ));
    let check = || Report::of(&net.node, "tcp/80=10.2.1.2:8080");
    let command = check().only("failure", "other NAT").command().to_owned();
    assert_eq!(command, "nft 'chain inet theirs early { policy accept; }'");
    shell(&net.node, &command);
    check().expect_ok();
    net.node
        .load(&chain("prerouting", "-150", "tcp dport 80 drop"));
    check().only("failure", "other NAT");
}
