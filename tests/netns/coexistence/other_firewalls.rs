//! Other programs that clear or reload their rules while traffic runs: the kernel does not let them
//! change the instance's, and no connection is interrupted.

use std::thread;

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Namespace, Net, PROTOCOLS_AND_FAMILIES, Progress,
    Protocol, StopOnDrop, addresses, expect_parts, nodefwd,
};

/// How often each change is made.
const TIMES: usize = 5;

/// The reload of a firewall that uses nft(8): it deletes every rule and loads its own again.
const RELOAD: &str = "flush ruleset
table inet filter {
    chain input { type filter hook input priority filter; policy accept; ct state invalid drop; }
    chain forward { type filter hook forward priority filter; policy accept; }
}
table ip nat {
    chain prerouting { type nat hook prerouting priority dstnat; tcp dport 9 dnat to 10.9.0.1; }
    chain postrouting { type nat hook postrouting priority srcnat; oifname \"none\" masquerade; }
}";

/// The reload of firewalld: it deletes its table and makes it again in one transaction, with these
/// names of chains and priorities (nftables.py of firewalld).
const FIREWALLD: &str = "add table inet firewalld
delete table inet firewalld
table inet firewalld {
    chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }
    chain nat_PREROUTING {
        type nat hook prerouting priority dstnat + 10; policy accept;
        jump nat_PREROUTING_ZONES
    }
    chain nat_PREROUTING_ZONES { tcp dport 9 dnat ip to 10.9.0.1; }
    chain nat_POSTROUTING {
        type nat hook postrouting priority srcnat + 10; policy accept;
        oifname \"none\" masquerade
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state established,related accept
        ct status dnat accept
        reject with icmpx admin-prohibited
    }
}";

/// Input of iptables-restore(8), which flushes each table first.
const RESTORE: &str = "*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp --dport 9 -j DNAT --to-destination DESTINATION
-A POSTROUTING -o none -j MASQUERADE
COMMIT
";

/// A change that another program makes.
type Change = fn(&Namespace);

const CHANGES: [(&str, Change); 7] = [
    ("flush ruleset", |node| {
        node.succeed("nft", &["flush", "ruleset"]);
    }),
    ("delete its table", |node| {
        let table = ["delete", "table", "inet", "nodefwd-web"];
        node.output("nft", &table).expect_exit(1);
    }),
    ("flush its chain", |node| {
        let chain = ["flush", "chain", "inet", "nodefwd-web", "prerouting"];
        node.output("nft", &chain).expect_exit(1);
    }),
    ("reload", |node| node.load(RELOAD)),
    ("firewalld", |node| node.load(FIREWALLD)),
    ("iptables-nft", |node| iptables(node, "nft")),
    ("iptables-legacy", |node| iptables(node, "legacy")),
];

fn iptables(node: &Namespace, kind: &str) {
    for (family, destination) in [("iptables", "10.9.0.1"), ("ip6tables", "fd00:9::1")] {
        let restore = format!("{family}-{kind}-restore");
        node.feed(&RESTORE.replace("DESTINATION", destination), &restore, &[]);
        let command = format!("{family}-{kind}");
        for table in ["filter", "nat", "mangle"] {
            node.succeed(&command, &["--table", table, "--flush"]);
            node.succeed(&command, &["--table", table, "--delete-chain"]);
        }
    }
}

/// Makes requests over one flow and over new connections, again and again: each must get a reply, and
/// the flow must stay the same.
fn make_requests(net: &Net, protocol: Protocol, family: Family, progress: &Progress) {
    let node_addr = net.node_addr(family, FORWARDED_PORT);
    let mut flow = net.client.live_flow(protocol, node_addr);
    for number in progress.numbers() {
        flow.expect_unchanged();
        let reply = net.client.request(protocol, node_addr);
        reply.unwrap_or_else(|error| panic!("{protocol:?} {family:?}: {error}"));
        progress.reach(number);
    }
}

#[test]
fn no_change_that_another_program_makes_interrupts_a_connection() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    let forwarder = nodefwd(["--name=web"])
        .env("DEST_IPS", addresses(&net.backends[0]))
        .env("DEST_PROTO", "tcp,udp")
        .env("SRC_PORT", FORWARDED_PORT.to_string())
        .env("DEST_PORT", BACKEND_PORT.to_string())
        .start(&net.node);
    let table = || {
        let list = ["-as", "list", "table", "inet", "nodefwd-web"];
        net.node.succeed("nft", &list)
    };
    let before = table();
    let progress: [Progress; 4] = Default::default();
    thread::scope(|scope| {
        for ((protocol, family), progress) in PROTOCOLS_AND_FAMILIES.into_iter().zip(&progress) {
            let net = &net;
            scope.spawn(move || make_requests(net, protocol, family, progress));
        }
        let _stop = StopOnDrop(progress.each_ref());
        for (name, change) in CHANGES {
            for _ in 0..TIMES {
                change(&net.node);
                assert_eq!(table(), before, "{name}");
                progress.iter().for_each(Progress::wait_for_progress);
            }
        }
    });
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn a_table_of_its_name_that_no_instance_made_is_left_alone() {
    let node = Namespace::forwarding("node");
    node.load("table inet nodefwd-tcp-80 { chain theirs { counter accept; }; }");
    let before = node.ruleset();
    let stderr = nodefwd(["tcp/80=10.2.0.11"])
        .finish(&node)
        .expect_exit(1)
        .stderr;
    expect_parts(&stderr, ["nodefwd-tcp-80"]);
    assert_eq!(node.ruleset(), before);
}
