//! Flows that the kernel remembers from before the start, or would go on with after the end.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::{
    Answer, Connection, Family, Host, LIMIT, Namespace, Net, Process, Protocol, SILENCE,
};
use crate::fixture::{BACK, FRONT, forward_to};

/// NAT rules of somebody else. With them the kernel tracks every flow, and goes on translating
/// those that it knows.
///
/// It forwards a port of its own, UDP 54, to the first backend.
const SIBLING: &str = "table inet sibling {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        udp dport 54 dnat ip to 10.2.1.2:8080
        udp dport 54 dnat ip6 to [fd00:2:1::2]:8080
    }
}";

/// The port that the sibling forwards.
const SIBLINGS: u16 = 54;

/// Hosts with a sibling's rules on the node, where no flow is forgotten for its age.
fn with_sibling(backends: u8) -> Net {
    let net = Net::new(backends);
    net.node.load(SIBLING);
    for kind in ["udp_timeout", "udp_timeout_stream"] {
        let key = format!("net/netfilter/nf_conntrack_{kind}");
        net.node.set_sysctl(&key, "3600");
    }
    net
}

/// Ends it so that it cannot end a single flow.
fn crash(net: &Net, process: Process) {
    process.stop(Signal::SIGKILL);
    let deadline = Instant::now() + LIMIT;
    while net.node.ruleset().contains("nodefwd") {
        assert!(Instant::now() < deadline, "{}", net.node.ruleset());
    }
}

/// A flow that is forwarded, and its answer. The port that the backend sees is drawn at random for
/// every flow, so the answer tells a flow from one that has taken its place.
fn live_flow(client: &Host, protocol: Protocol, front: SocketAddr) -> (Connection, Answer) {
    let mut flow = client.connect(protocol, front).expect("a connection");
    let answer = flow.ask().expect("an answer");
    (flow, answer)
}

/// The flows of a family that conntrack(8) selects: their addresses, ports and the kernel's number,
/// which alone may stand for two of very many, as it is a hash (nf_ct_get_id).
fn tracked(net: &Net, family: Family, selection: &[&str]) -> BTreeSet<String> {
    let family = match family {
        Family::V4 => "--family=ipv4",
        Family::V6 => "--family=ipv6",
    };
    let arguments = [&["--dump", "--output=id", family], selection].concat();
    let list = net.node.succeed("conntrack", &arguments);
    let lasting = |word: &&str| {
        let name = word.split_once('=').map(|(name, _)| name);
        matches!(name, Some("src" | "dst" | "sport" | "dport" | "id"))
    };
    let flow = |line: &str| {
        let words: Vec<_> = line.split_whitespace().filter(lasting).collect();
        words.join(" ")
    };
    list.lines().map(flow).collect()
}

/// Of the flows that were made to the forwarded port.
fn tracked_front(net: &Net, protocol: Protocol, family: Family) -> BTreeSet<String> {
    let front = FRONT.to_string();
    let selection = ["--proto", protocol.name(), "--orig-port-dst", &front];
    tracked(net, family, &selection)
}

/// Asks on and on from one port, as a client does that cares for nothing but an answer. Says when
/// it has been refused, which is again and again.
fn ask_until_answered(mut flow: Connection, refused: &Sender<()>) -> Option<Answer> {
    flow.set_limit(Duration::from_millis(10));
    let deadline = Instant::now() + 2 * LIMIT;
    while Instant::now() < deadline {
        match flow.ask() {
            Ok(answer) => return Some(answer),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                // Who waits for the first one need not be there for the others.
                let _ = refused.send(());
            }
            // The kernel limits how often it tells that nobody listens.
            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
        }
    }
    None
}

fn a_client_that_never_stops_sending_is_forwarded(net: &Net) {
    let _server = net.backends[0].serve(BACK);
    for family in Family::BOTH {
        let front = net.front(family, FRONT);
        let flow = net.client.connect(Protocol::Udp, front).expect("a socket");
        let (sender, refused) = channel();
        thread::scope(|scope| {
            let client = scope.spawn(move || ask_until_answered(flow, &sender));
            refused.recv_timeout(LIMIT).expect("a refusal");
            let _forwarder = forward_to(Protocol::Udp, &net.backends).start(&net.node);
            let answer = client.join().expect("no panic").expect("an answer");
            assert_eq!(answer.server, "backend-1");
        });
    }
}

#[test]
fn a_client_that_never_stops_sending_is_forwarded_once_it_is_ready() {
    a_client_that_never_stops_sending_is_forwarded(&Net::new(1));
}

#[test]
fn so_it_is_where_a_siblings_rules_have_the_kernel_remember_its_flow() {
    let net = with_sibling(1);
    a_client_that_never_stops_sending_is_forwarded(&net);
}

#[test]
fn a_flow_to_a_destination_that_is_no_longer_listed_is_moved() {
    let net = with_sibling(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    let forwarder = forward_to(Protocol::Udp, &net.backends[..1]).start(&net.node);
    let fronts = Family::BOTH.map(|family| net.front(family, FRONT));
    let flows = fronts.map(|front| live_flow(&net.client, Protocol::Udp, front));
    crash(&net, forwarder);

    let _forwarder = forward_to(Protocol::Udp, &net.backends[1..]).start(&net.node);
    for (mut flow, before) in flows {
        assert_eq!(before.server, "backend-1");
        assert_eq!(flow.ask().expect("an answer").server, "backend-2");
    }
}

/// Also where destinations were added or taken away beside the flow's own.
#[test]
fn a_healthy_flow_survives_a_crash_and_a_restart() {
    let net = with_sibling(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    for protocol in Protocol::BOTH {
        let mut forwarder = forward_to(protocol, &net.backends[..1]).start(&net.node);
        let fronts = Family::BOTH.map(|family| net.front(family, FRONT));
        let mut flows = fronts.map(|front| live_flow(&net.client, protocol, front));
        let numbers = || Family::BOTH.map(|family| tracked_front(&net, protocol, family));
        let before = numbers();
        assert!(before.iter().all(|flows| flows.len() == 1), "{before:?}");
        for hosts in [&net.backends[..1], &net.backends, &net.backends[..1]] {
            crash(&net, forwarder);
            forwarder = forward_to(protocol, hosts).start(&net.node);
            for (flow, answer) in &mut flows {
                assert_eq!(flow.ask().expect("an answer"), *answer);
            }
            assert_eq!(numbers(), before, "{protocol:?}");
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

#[test]
fn flows_of_a_source_that_may_not_connect_any_more_are_ended() {
    let net = with_sibling(1);
    let other = net.another_client(2);
    let _server = net.backends[0].serve(BACK);
    let allowed = Family::BOTH.map(|family| other.address(family).to_string());
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends);
        let forwarder = call.start(&net.node);
        let flows = |client| {
            Family::BOTH.map(|family| live_flow(client, protocol, net.front(family, FRONT)))
        };
        let (condemned, kept) = (flows(&net.client), flows(&other));
        crash(&net, forwarder);

        let call = call.env("SRC_RANGES", allowed.join(","));
        let forwarder = call.start(&net.node);
        for (mut flow, _) in condemned {
            flow.expect_silence();
        }
        for (mut flow, answer) in kept {
            assert_eq!(flow.ask().expect("an answer"), answer);
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

#[test]
fn at_the_end_its_flows_end_though_a_sibling_would_keep_them() {
    let net = with_sibling(1);
    let _server = net.backends[0].serve(BACK);
    for protocol in Protocol::BOTH {
        let ended = match protocol {
            Protocol::Tcp => ErrorKind::ConnectionReset,
            Protocol::Udp => ErrorKind::ConnectionRefused,
        };
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let forwarder = forward_to(protocol, &net.backends).start(&net.node);
            let flow = |family| live_flow(&net.client, protocol, net.front(family, FRONT)).0;
            let flows = Family::BOTH.map(flow);
            forwarder.stop(signal).expect_exit(0);
            for (mut flow, family) in flows.into_iter().zip(Family::BOTH) {
                assert_eq!(tracked_front(&net, protocol, family), BTreeSet::new());
                let error = flow.ask().expect_err("a flow that has ended");
                assert_eq!(error.kind(), ended, "{protocol:?} {family:?}");
            }
        }
    }
}

/// How many flows there are of each kind and family.
const EACH: usize = 40;

/// Flows that look much like the forwarder's, but are not: each differs in one thing.
fn foreign_flows(net: &Net) -> Vec<Connection> {
    let [destination, stranger] = &net.backends[..] else {
        unreachable!()
    };
    let mut flows = Vec::new();
    for family in Family::BOTH {
        let back = |host: &Host, port| SocketAddr::new(host.address(family), port);
        let udp: [(&Namespace, SocketAddr); 7] = [
            // another port of the node, and one that the sibling forwards to the same place
            (&net.client, net.front(family, FRONT + 1)),
            (&net.client, net.front(family, SIBLINGS)),
            // the same port of somebody else, and the destination itself
            (&net.client, back(stranger, FRONT)),
            (&net.client, back(destination, BACK)),
            // the node's own, and the destination's own
            (&net.node, net.front(family, FRONT)),
            (&net.node, back(destination, BACK)),
            (
                destination,
                SocketAddr::new(destination.gateway(family), FRONT),
            ),
        ];
        let tcp = [(&*net.client, back(stranger, FRONT))];
        for (protocol, kinds) in [(Protocol::Udp, &udp[..]), (Protocol::Tcp, &tcp)] {
            for (from, to) in kinds.iter().flat_map(|kind| [*kind; EACH]) {
                let mut flow = from.connect(protocol, to).expect("a connection");
                // Some are refused, with or without a word, but all are tracked.
                flow.set_limit(SILENCE);
                let _ = flow.ask();
                flows.push(flow);
            }
        }
    }
    flows
}

#[test]
fn flows_of_others_are_never_touched() {
    let net = with_sibling(2);
    let [destination, stranger] = &net.backends[..] else {
        unreachable!()
    };
    let _servers = [destination.serve(BACK), stranger.serve(FRONT)];
    let _flows = foreign_flows(&net);
    let all = || Family::BOTH.map(|family| tracked(&net, family, &[]));
    let before = all();
    for family in &before {
        assert!(family.len() >= 8 * EACH, "{} flows", family.len());
    }
    for protocol in Protocol::BOTH {
        let call = forward_to(protocol, &net.backends[..1]);
        let live_flows = || {
            let flow = |family| live_flow(&net.client, protocol, net.front(family, FRONT));
            Family::BOTH.map(flow)
        };
        let crashing = call.start(&net.node);
        let _stale = live_flows();
        crash(&net, crashing);
        // Denies those from before the crash, so that there is something to end at the start.
        let ranges = Family::BOTH.map(|family| format!("{}", stranger.address(family)));
        let forwarder = call
            .clone()
            .env("SRC_RANGES", ranges.join(","))
            .start(&net.node);
        assert_eq!(all(), before, "{protocol:?}: started");
        forwarder.stop(Signal::SIGTERM).expect_exit(0);

        let forwarder = call.start(&net.node);
        let _ours = live_flows();
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(all(), before, "{protocol:?}: stopped");
    }
}

/// As many flows to somebody else as a busy node has, made from two ports; gives them.
fn a_hundred_thousand_foreign_flows(net: &Net) -> BTreeSet<String> {
    const COUNT: usize = 100_000;
    let stranger = net.backends[1].address(Family::V4);
    let deadline = Instant::now() + LIMIT;
    loop {
        net.client.run(|| {
            for source in [20_001, 20_002] {
                let socket = UdpSocket::bind(("0.0.0.0", source)).expect("a socket");
                for port in 1..=(COUNT / 2) as u16 {
                    // Nobody is there to take it, which is all the same.
                    let _ = socket.send_to(b"hello", (stranger, port));
                }
            }
        });
        let flows = tracked(net, Family::V4, &[]);
        // A datagram may be lost where a queue is full.
        if flows.len() >= COUNT {
            return flows;
        }
        assert!(Instant::now() < deadline, "only {} flows", flows.len());
    }
}

#[test]
fn of_a_hundred_thousand_foreign_flows_none_is_lost() {
    let net = with_sibling(2);
    let _server = net.backends[0].serve(BACK);
    let front = net.front(Family::V4, FRONT);
    let mut stale = net.client.connect(Protocol::Udp, front).expect("a socket");
    stale.ask().expect_err("nobody forwards it yet");
    let stale_flow = tracked_front(&net, Protocol::Udp, Family::V4);
    assert_eq!(stale_flow.len(), 1);
    let all = a_hundred_thousand_foreign_flows(&net);
    let foreign: BTreeSet<String> = all.difference(&stale_flow).cloned().collect();

    let forwarder = forward_to(Protocol::Udp, &net.backends[..1]).start(&net.node);
    assert_eq!(tracked(&net, Family::V4, &[]), foreign, "started");
    stale.ask().expect("an answer");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(tracked(&net, Family::V4, &[]), foreign, "stopped");
}
