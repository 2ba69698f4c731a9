//! Other programs' NAT rules that match the connections first.

use nix::sys::signal::Signal;

use super::firewall::is_forwarded;
use super::{BACKEND_PORT, FORWARDED_PORT, Report, net, shell, start};
use crate::fixture::{Family, Net, Protocol, Server, expect_parts};

/// The port at which the node itself serves.
const NODE_PORT: u16 = 1001;

fn node_server(net: &Net) -> Server {
    Server::start(&net.node, "node", &[net.node_addr(Family::V4, NODE_PORT)])
}

fn server_of(net: &Net) -> String {
    let reply = net
        .client
        .request(Protocol::Tcp, net.node_addr(Family::V4, FORWARDED_PORT));
    reply.expect("a reply").server
}

/// A chain at a hook, of this priority, with these rules.
fn chain(hook: &str, priority: &str, rules: &str) -> String {
    format!(
        "table inet theirs {{
            chain services {{ tcp dport 80 redirect to :{NODE_PORT}; }}
            chain early {{ type nat hook {hook} priority {priority}; {rules}; }}
         }}"
    )
}

#[test]
fn a_rule_of_an_earlier_chain_is_a_failure_until_it_is_removed() {
    let net = net(1);
    let _servers = (node_server(&net), net.backends[0].serve(BACKEND_PORT));
    net.node
        .load(&chain("prerouting", "dstnat - 1", "jump services"));
    let forward = "tcp/80=10.2.1.2:8080";
    let instance = start(&net, forward);
    assert_eq!(server_of(&net), "node");
    instance.stop(Signal::SIGTERM).expect_exit(0);

    let report = Report::of(&net.node, forward);
    let failure = report.only("failure", "other NAT");
    expect_parts(
        &failure.text,
        [
            "chain services",
            "drops or translates tcp/80 over IPv4 earlier, at priority -101",
        ],
    );
    shell(&net.node, failure.command());
    Report::of(&net.node, forward).expect_ok();
    let _instance = start(&net, forward);
    assert_eq!(server_of(&net), "backend-1");
}

/// The kernel runs the newest of the chains with the same priority first.
#[test]
fn a_rule_of_a_chain_with_the_same_priority_is_a_warning() {
    let net = net(1);
    let _servers = (node_server(&net), net.backends[0].serve(BACKEND_PORT));
    let theirs = chain("prerouting", "dstnat", "jump services");
    net.node.load(&theirs);
    let forward = "tcp/80=10.2.1.2:8080";
    let warning = "at the same priority, where the newest table comes first";
    let report = Report::of(&net.node, forward);
    expect_parts(&report.only("warning", "other NAT").text, [warning]);

    let _instance = start(&net, forward);
    assert_eq!(server_of(&net), "backend-1");
    net.node.load("delete table inet theirs");
    net.node.load(&theirs);
    assert_eq!(server_of(&net), "node");

    // A rule that matches some connections only is not reported there.
    let unclear = "ip saddr 10.1.1.2 tcp dport 80 redirect to :1001";
    net.node.load("delete table inet theirs");
    net.node.load(&chain("prerouting", "dstnat", unclear));
    Report::of(&net.node, forward).expect_ok();
}

/// What check says of rules of an earlier chain. The kernel must agree.
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
fn check_agrees_with_the_kernel_on_rules_of_an_earlier_chain() {
    let net = net(1);
    let _servers = (node_server(&net), net.backends[0].serve(BACKEND_PORT));
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
fn rules_of_iptables_that_may_match_are_a_warning_until_they_are_removed() {
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
fn rules_at_the_output_hook_matter_only_with_output() {
    let net = net(1);
    net.node
        .load(&chain("output", "-150", "tcp dport 80 redirect to :1001"));
    Report::of(&net.node, "tcp/80=10.2.1.2:8080").expect_ok();
    let report = Report::of(&net.node, "--output tcp/80=10.2.1.2:8080");
    report.only("failure", "other NAT");
}

#[test]
fn later_chains_and_other_instances_are_no_problem() {
    let net = net(1);
    let _servers = (node_server(&net), net.backends[0].serve(BACKEND_PORT));
    net.node.load(&chain("prerouting", "-99", "jump services"));
    let _other = start(&net, "--name=other udp/80=10.2.1.2:8080 tcp/81=10.2.1.2");
    let forward = "tcp/80=10.2.1.2:8080";
    Report::of(&net.node, forward).expect_ok();
    let _instance = start(&net, forward);
    assert_eq!(server_of(&net), "backend-1");
}

#[test]
fn an_earlier_nat_chain_that_drops_is_a_failure() {
    let net = net(1);
    net.node.load(&chain(
        "prerouting",
        "-150",
        "policy drop; tcp dport 22 accept",
    ));
    let check = || Report::of(&net.node, "tcp/80=10.2.1.2:8080");
    let failure = check().only("failure", "other NAT").to_owned();
    let expected = "the policy of chain early in table inet theirs drops tcp/80 over IPv4 earlier, at priority -150; use another port, or set the policy to accept with: nft 'chain inet theirs early { policy accept; }'";
    assert_eq!(failure.text, expected);
    shell(&net.node, failure.command());
    check().expect_ok();
    net.node
        .load(&chain("prerouting", "-150", "tcp dport 80 drop"));
    let failure = check().only("failure", "other NAT").to_owned();
    expect_parts(
        &failure.text,
        [" of chain early in table inet theirs drops or translates tcp/80 over IPv4 earlier"],
    );
    shell(&net.node, failure.command());
    check().expect_ok();
}

/// Such chains see the first packet of a connection on its way out, or to this host itself.
#[test]
fn a_later_nat_chain_that_drops_is_a_failure_until_its_command_has_run() {
    let net = net(1);
    let own = net.node_addr(Family::V4, BACKEND_PORT);
    let _servers = (
        Server::start(&net.node, "node", &[own]),
        net.backends[0].serve(BACKEND_PORT),
    );
    let forwarded = || is_forwarded(&net, Protocol::Tcp, Family::V4);
    let elsewhere = "tcp/80=10.2.1.2:8080";
    let here = &format!("tcp/80={own}");
    let unmasqueraded = &format!("--masquerade=false {elsewhere}");
    for (level, forward, hook, priority, rules) in [
        (
            "failure",
            elsewhere,
            "postrouting",
            "50",
            "tcp dport 8080 drop",
        ),
        ("failure", elsewhere, "postrouting", "50", "policy drop"),
        ("failure", here, "input", "100", "tcp dport 8080 drop"),
        (
            "failure",
            unmasqueraded,
            "postrouting",
            "150",
            "tcp dport 8080 drop",
        ),
        // The newer one comes first.
        (
            "warning",
            elsewhere,
            "postrouting",
            "srcnat",
            "tcp dport 8080 drop",
        ),
        // What an instance has masqueraded comes to no later chain.
        ("ok", elsewhere, "postrouting", "150", "tcp dport 8080 drop"),
        ("ok", elsewhere, "postrouting", "50", "tcp dport 80 drop"),
        ("ok", elsewhere, "postrouting", "50", "masquerade; drop"),
        (
            "ok",
            elsewhere,
            "postrouting",
            "50",
            "snat ip to 10.2.1.1; drop",
        ),
        ("ok", here, "input", "100", "tcp dport 80 drop"),
    ] {
        let _instance = start(&net, forward);
        net.node.load(&chain(hook, priority, rules));
        assert_eq!(forwarded(), level == "ok", "{hook} {priority} {rules}");
        let report = Report::of(&net.node, "");
        let line = report.line(level, "firewall");
        if level != "ok" {
            shell(&net.node, line.command());
            assert!(forwarded(), "{line:?}");
            Report::of(&net.node, "").line("ok", "firewall");
        }
        net.node.load("delete table inet theirs");
    }
    shell(&net.node, "iptables -t nat -A POSTROUTING -j MASQUERADE");
    Report::of(&net.node, elsewhere).expect_ok();
}
