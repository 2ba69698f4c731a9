//! Others who clear or reload their rules while traffic runs: the kernel keeps them from the instance's,
//! and nothing is interrupted.

use std::thread;

use nix::sys::signal::Signal;

use crate::fixture::{
    Answer, Connection, Count, Family, Namespace, Net, Protocol, Stop, kinds, nodefwd,
};
use crate::fixture::{BACK, FRONT};

/// How often each is done.
const TIMES: usize = 5;

/// A firewall's reload with nft(8): everything goes, and its own comes anew.
const RELOAD: &str = "flush ruleset
table inet filter {
    chain input { type filter hook input priority filter; policy accept; ct state invalid drop; }
    chain forward { type filter hook forward priority filter; policy accept; }
}
table ip nat {
    chain prerouting { type nat hook prerouting priority dstnat; tcp dport 9 dnat to 10.9.0.1; }
    chain postrouting { type nat hook postrouting priority srcnat; oifname \"none\" masquerade; }
}";

/// firewalld's: its own table is made sure of, deleted and made anew in one transaction, with its
/// chains' usual names and priorities (nftables.py of firewalld).
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

/// What iptables-restore(8) loads: each table is flushed first.
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

/// Somebody else who changes rules.
type Neighbour = fn(&Namespace);

fn iptables(node: &Namespace, back_end: &str) {
    for (family, destination) in [("iptables", "10.9.0.1"), ("ip6tables", "fd00:9::1")] {
        let restore = format!("{family}-{back_end}-restore");
        node.feed(&RESTORE.replace("DESTINATION", destination), &restore, &[]);
        let command = format!("{family}-{back_end}");
        for table in ["filter", "nat", "mangle"] {
            node.succeed(&command, &["--table", table, "--flush"]);
            node.succeed(&command, &["--table", table, "--delete-chain"]);
        }
    }
}

const NEIGHBOURS: [(&str, Neighbour); 7] = [
    ("flush", |node| {
        node.succeed("nft", &["flush", "ruleset"]);
    }),
    ("delete", |node| {
        let table = ["delete", "table", "inet", "nodefwd-web"];
        node.output("nft", &table).expect_exit(1);
    }),
    ("change", |node| {
        let chain = ["flush", "chain", "inet", "nodefwd-web", "prerouting"];
        node.output("nft", &chain).expect_exit(1);
    }),
    ("reload", |node| node.load(RELOAD)),
    ("firewalld", |node| node.load(FIREWALLD)),
    ("iptables-nft", |node| iptables(node, "nft")),
    ("iptables-legacy", |node| iptables(node, "legacy")),
];

/// Asks over a flow and over new connections, again and again; each must be answered, and the flow
/// must stay the same.
fn ask_again_and_again(net: &Net, protocol: Protocol, family: Family, count: &Count) {
    let front = net.front(family, FRONT);
    let (mut flow, answer): (Connection, Answer) = {
        let mut flow = net.client.connect(protocol, front).expect("a connection");
        let answer = flow.ask().expect("an answer");
        (flow, answer)
    };
    for number in count.numbers() {
        assert_eq!(flow.ask().expect("an answer"), answer);
        let another = net.client.request(protocol, front);
        another.unwrap_or_else(|error| panic!("{protocol:?} {family:?}: {error}"));
        count.reach(number);
    }
}

#[test]
fn nothing_that_others_do_to_rules_interrupts_it() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    let destinations = Family::BOTH.map(|family| net.backends[0].address(family).to_string());
    let forwarder = nodefwd(["--name=web"])
        .env("DEST_IPS", destinations.join(","))
        .env("DEST_PROTO", "tcp,udp")
        .env("SRC_PORT", FRONT.to_string())
        .env("DEST_PORT", BACK.to_string())
        .start(&net.node);
    let table = || {
        let list = ["-as", "list", "table", "inet", "nodefwd-web"];
        net.node.succeed("nft", &list)
    };
    let before = table();
    let counts: [Count; 4] = Default::default();
    thread::scope(|scope| {
        for ((protocol, family), count) in kinds().zip(&counts) {
            let net = &net;
            scope.spawn(move || ask_again_and_again(net, protocol, family, count));
        }
        let _stop = Stop(counts.each_ref());
        for (name, neighbour) in NEIGHBOURS {
            for _ in 0..TIMES {
                neighbour(&net.node);
                assert_eq!(table(), before, "{name}");
                counts.iter().for_each(Count::expect_progress);
            }
        }
    });
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
