//! Flows that run while the instance is replaced again and again, and what becomes of those that the
//! new one would not forward.

use std::io::{Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{COUNTED, forward_both, replacing, rules};
use crate::fixture::{
    Answer, Connection, Count, Family, Host, LIMIT, Monitor, Net, Protocol, Stop,
};
use crate::fixture::{BACK, FRONT};

/// How often it is replaced while the flows run.
const TIMES: u32 = 20;

/// Writes numbers one behind the other, without waiting for answers; the other side must read just
/// those.
fn count_over_tcp(client: &Host, server: &Host, front: SocketAddr, family: Family, count: &Count) {
    let address = SocketAddr::new(server.address(family), COUNTED);
    let listener = server
        .run(|| TcpListener::bind(address))
        .expect("a listener");
    let mut writer = client
        .run(|| TcpStream::connect(front))
        .expect("a connection");
    let (mut reader, _) = listener.accept().expect("a connection");
    reader.set_read_timeout(Some(LIMIT)).expect("a time limit");
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in count.numbers() {
                writer.write_all(&number.to_be_bytes()).expect("written");
                // As much as the machine could do would only slow down other tests.
                thread::sleep(Duration::from_micros(100));
            }
        });
        let mut expected = 0u64;
        let mut bytes = [0; 8];
        while reader.read_exact(&mut bytes).is_ok() {
            assert_eq!(u64::from_be_bytes(bytes), expected);
            expected += 1;
            count.reach(expected);
        }
        assert!(count.is_stopped(), "ended at {expected}");
    });
}

/// Sends numbers, each when the one before has come back: none must be lost, and all must come from
/// the same port.
fn count_over_udp(client: &Host, server: &Host, front: SocketAddr, family: Family, count: &Count) {
    let address = SocketAddr::new(server.address(family), COUNTED);
    let server = server.run(|| UdpSocket::bind(address)).expect("a socket");
    let any = SocketAddr::new(client.address(family), 0);
    let client = client.run(|| UdpSocket::bind(any)).expect("a socket");
    client.connect(front).expect("connected");
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
    }
    let mut seen = None;
    for number in count.numbers() {
        client.send(&number.to_be_bytes()).expect("sent");
        let mut bytes = [0; 8];
        let (_, source) = server.recv_from(&mut bytes).expect("a packet");
        assert_eq!(u64::from_be_bytes(bytes), number);
        assert_eq!(*seen.get_or_insert(source), source);
        server.send_to(&bytes, source).expect("sent");
        client.recv(&mut bytes).expect("an answer");
        assert_eq!(u64::from_be_bytes(bytes), number);
        count.reach(number);
    }
}

/// Opens one connection after the other; each must be answered.
fn connect_again_and_again(net: &Net, count: &Count) {
    for number in count.numbers() {
        for protocol in Protocol::BOTH {
            for family in Family::BOTH {
                let answer = net.client.request(protocol, net.front(family, FRONT));
                answer.unwrap_or_else(|error| panic!("{protocol:?} {family:?}: {error}"));
            }
        }
        count.reach(number);
    }
}

fn nothing_is_lost_across_replacements(owner: &str) {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACK);
    let call = forward_both(backend).args(&[owner]);
    let mut forwarder = call.start(&net.node);
    let plain = rules(&net.node);

    let counts: [Count; 5] = Default::default();
    thread::scope(|scope| {
        for (family, counts) in Family::BOTH.into_iter().zip(counts.chunks(2)) {
            let front = net.front(family, COUNTED);
            let client = &net.client;
            scope.spawn(move || count_over_tcp(client, backend, front, family, &counts[0]));
            scope.spawn(move || count_over_udp(client, backend, front, family, &counts[1]));
        }
        scope.spawn(|| connect_again_and_again(&net, &counts[4]));
        let _stop = Stop(counts.each_ref());
        for _ in 0..TIMES {
            counts.iter().for_each(Count::expect_progress);
            let successor = replacing(&call).start(&net.node);
            mem::replace(&mut forwarder, successor)
                .finish()
                .expect_exit(0);
        }
        counts.iter().for_each(Count::expect_progress);
    });
    assert_eq!(rules(&net.node), plain);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn nothing_is_lost() {
    nothing_is_lost_across_replacements("--owner=true");
}

#[test]
fn nothing_is_lost_without_an_owner() {
    nothing_is_lost_across_replacements("--owner=false");
}

/// The kernel asks the newest of chains with the same priority first. So that no packet falls between
/// the new chains and the old ones, the new ones are there a second time behind them, for a moment.
#[test]
fn each_chain_is_there_twice_for_a_moment() {
    let net = Net::new(1);
    let call = forward_both(&net.backends[0]);
    let first = call.start(&net.node);
    let monitor = Monitor::start(&net.node);
    let _second = replacing(&call).start(&net.node);
    first.finish().expect_exit(0);
    let changes = monitor.changes();
    let place = |change: &str| {
        let mut lines = changes.lines();
        lines
            .position(|line| line.starts_with(change))
            .unwrap_or_else(|| panic!("no '{change}' in:\n{changes}"))
    };
    for (chain, hook) in [("prerouting", "dstnat"), ("postrouting", "srcnat")] {
        let (table, behind) = ("inet nodefwd-web", format!("{chain}-overlap"));
        let hook = format!("{{ type nat hook {chain} priority {hook}");
        let old_is_removed = place(&format!("delete chain {table} {chain}"));
        let new_is_added = place(&format!("add chain {table} {behind} {hook} + 1;"));
        let rule_is_added = place(&format!("add rule {table} {behind} "));
        let overlap_ends = place(&format!("delete chain {table} {behind}"));
        assert!(new_is_added < rule_is_added, "{changes}");
        assert!(old_is_removed < overlap_ends, "{changes}");
        assert!(rule_is_added < overlap_ends, "{changes}");
    }
}

fn live_flow(net: &Net, protocol: Protocol, family: Family, port: u16) -> (Connection, Answer) {
    let front = net.front(family, port);
    let mut flow = net.client.connect(protocol, front).expect("a connection");
    let answer = flow.ask().expect("an answer");
    (flow, answer)
}

/// TCP connections go on where they are; a UDP flow, which may never end, moves.
#[test]
fn new_destinations_are_for_new_connections() {
    let net = Net::new(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    let first = forward_both(&net.backends[0]).start(&net.node);
    let flows = |protocol| Family::BOTH.map(|family| live_flow(&net, protocol, family, FRONT));
    let [tcp, udp] = Protocol::BOTH.map(flows);
    let _second = replacing(&forward_both(&net.backends[1])).start(&net.node);
    first.finish().expect_exit(0);
    for (mut flow, before) in tcp {
        assert_eq!(before.server, "backend-1");
        assert_eq!(flow.ask().expect("an answer"), before);
    }
    for (mut flow, before) in udp {
        assert_eq!(before.server, "backend-1");
        assert_eq!(flow.ask().expect("an answer").server, "backend-2");
    }
    for protocol in Protocol::BOTH {
        for (_, answer) in flows(protocol) {
            assert_eq!(answer.server, "backend-2");
        }
    }
}

/// Of what the old one forwarded, whatever no instance forwards now is ended, though somebody else's
/// rules would have the kernel go on with it. An instance on another port to the same place keeps its
/// flows.
#[test]
fn connections_to_ports_that_are_not_forwarded_any_more_end() {
    let net = Net::new(1);
    net.node.load(
        "table ip other { chain c { type nat hook prerouting priority 0; tcp dport 1 dnat to :2; }; }",
    );
    let backend = &net.backends[0];
    let _servers = [backend.serve(BACK), backend.serve(COUNTED)];
    let first = forward_both(backend).start(&net.node);
    let sibling = forward_both(backend)
        .env("SRC_PORT", "70,71")
        .env("NODEFWD_NAME", "sibling");
    let _sibling = sibling.start(&net.node);
    let flows = |port| {
        let flow = |protocol| Family::BOTH.map(|family| live_flow(&net, protocol, family, port));
        Protocol::BOTH
            .map(flow)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let (gone, kept, siblings) = (flows(FRONT), flows(COUNTED), flows(70));
    let narrower = replacing(&forward_both(backend))
        .env("SRC_PORT", COUNTED.to_string())
        .env("DEST_PORT", COUNTED.to_string());
    let _second = narrower.start(&net.node);
    let stderr = first.finish().expect_exit(0).stderr;
    assert!(stderr.contains("4 running connections"), "{stderr}");
    for (mut flow, _) in gone {
        flow.ask().expect_err("a flow that has ended");
    }
    for (mut flow, answer) in kept.into_iter().chain(siblings) {
        assert_eq!(flow.ask().expect("an answer"), answer);
    }
}
