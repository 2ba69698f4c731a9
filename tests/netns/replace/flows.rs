//! Flows that run while the instance is replaced again and again, and those that the successor would
//! not forward.

use std::io::{Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use nix::sys::signal::Signal;

use super::{SECOND_PORT, forward_both, replacing};
use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, Host, LiveFlow, Monitor, Net, OTHER_NAT,
    PROTOCOLS_AND_FAMILIES, Progress, Protocol, StopOnDrop, expect_parts,
};

/// How often it is replaced while the flows run.
pub const REPLACEMENTS: u32 = 20;

/// Writes numbers without waiting for replies; the server must read all of them, in order.
fn count_over_tcp(net: &Net, server: &Host, family: Family, progress: &Progress) {
    let node_addr = net.node_addr(family, SECOND_PORT);
    let address = SocketAddr::new(server.address(family), SECOND_PORT);
    let listener = server
        .run(|| TcpListener::bind(address))
        .expect("a listener");
    let mut writer = net
        .client
        .run(|| TcpStream::connect(node_addr))
        .expect("a connection");
    let (mut reader, _) = listener.accept().expect("a connection");
    let set = reader.set_read_timeout(Some(EVENT_TIMEOUT));
    set.expect("a read timeout");
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in progress.numbers() {
                writer.write_all(&number.to_be_bytes()).expect("written");
            }
        });
        let mut expected = 0u64;
        let mut bytes = [0; 8];
        while reader.read_exact(&mut bytes).is_ok() {
            assert_eq!(u64::from_be_bytes(bytes), expected);
            expected += 1;
            progress.reach(expected);
        }
        assert!(
            progress.is_stopped(),
            "the connection has ended at {expected}"
        );
    });
}

/// Sends each number when the one before has come back: none must be lost, and the server must see the
/// same port for all.
fn count_over_udp(net: &Net, server: &Host, family: Family, progress: &Progress) {
    let node_addr = net.node_addr(family, SECOND_PORT);
    let address = SocketAddr::new(server.address(family), SECOND_PORT);
    let server = server.run(|| UdpSocket::bind(address)).expect("a socket");
    let any_port = SocketAddr::new(net.client.address(family), 0);
    let client = net.client.run(|| UdpSocket::bind(any_port));
    let client = client.expect("a socket");
    client.connect(node_addr).expect("connected");
    for socket in [&server, &client] {
        let set = socket.set_read_timeout(Some(EVENT_TIMEOUT));
        set.expect("a read timeout");
    }
    let mut seen = None;
    for number in progress.numbers() {
        client.send(&number.to_be_bytes()).expect("sent");
        let mut bytes = [0; 8];
        let (_, source) = server.recv_from(&mut bytes).expect("a packet");
        assert_eq!(u64::from_be_bytes(bytes), number);
        assert_eq!(*seen.get_or_insert(source), source);
        server.send_to(&bytes, source).expect("sent");
        client.recv(&mut bytes).expect("a reply");
        assert_eq!(u64::from_be_bytes(bytes), number);
        progress.reach(number);
    }
}

/// Opens one connection after the other; each must get a reply.
fn open_connections(net: &Net, progress: &Progress) {
    for number in progress.numbers() {
        for (protocol, family) in PROTOCOLS_AND_FAMILIES {
            let node_addr = net.node_addr(family, FORWARDED_PORT);
            let reply = net.client.request(protocol, node_addr);
            reply.unwrap_or_else(|error| panic!("{protocol:?} {family:?}: {error}"));
        }
        progress.reach(number);
    }
}

/// Runs flows of every kind while `change` is called again and again; none may be lost.
pub fn expect_nothing_lost(net: &Net, mut change: impl FnMut()) {
    let backend = &net.backends[0];
    let progress: [Progress; 5] = Default::default();
    thread::scope(|scope| {
        for (family, progress) in Family::BOTH.into_iter().zip(progress.chunks(2)) {
            scope.spawn(move || count_over_tcp(net, backend, family, &progress[0]));
            scope.spawn(move || count_over_udp(net, backend, family, &progress[1]));
        }
        scope.spawn(|| open_connections(net, &progress[4]));
        let _stop = StopOnDrop(progress.each_ref());
        for _ in 0..REPLACEMENTS {
            progress.iter().for_each(Progress::wait_for_progress);
            change();
        }
        progress.iter().for_each(Progress::wait_for_progress);
    });
}

fn expect_nothing_lost_across_replacements(owner: &str) {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    let call = forward_both(backend).args(&[owner]);
    let mut forwarder = call.start(&net.node);
    let before = net.node.rules();
    expect_nothing_lost(&net, || {
        let successor = replacing(&call).start(&net.node);
        mem::replace(&mut forwarder, successor)
            .finish()
            .expect_exit(0);
    });
    assert_eq!(net.node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn no_packet_flow_or_new_connection_is_lost_across_replacements() {
    expect_nothing_lost_across_replacements("--owner=true");
}

#[test]
fn without_the_owner_flag_nothing_is_lost_across_replacements() {
    expect_nothing_lost_across_replacements("--owner=false");
}

/// The kernel runs the newest of the chains with the same priority first. So a packet that met a new
/// chain before the commit could meet an old one after it, and match in neither; so the new chains are
/// added a second time, one priority later, until the old ones are gone.
#[test]
fn while_it_is_replaced_each_chain_is_there_twice() {
    let net = Net::new(1);
    let call = forward_both(&net.backends[0]);
    let first = call.start(&net.node);
    let monitor = Monitor::start(&net.node);
    let _second = replacing(&call).start(&net.node);
    first.finish().expect_exit(0);
    let changes = monitor.changes();
    let line_of = |change: &str| {
        let mut lines = changes.lines();
        let index = lines.position(|line| line.starts_with(change));
        index.unwrap_or_else(|| panic!("no '{change}' in:\n{changes}"))
    };
    for (chain, hook) in [("prerouting", "dstnat"), ("postrouting", "srcnat")] {
        let (table, overlap) = ("inet nodefwd-web", format!("{chain}-overlap"));
        let hook = format!("{{ type nat hook {chain} priority {hook}");
        let old_is_deleted = line_of(&format!("delete chain {table} {chain}"));
        let overlap_is_added = line_of(&format!("add chain {table} {overlap} {hook} + 1;"));
        let rule_is_added = line_of(&format!("add rule {table} {overlap} "));
        let overlap_is_deleted = line_of(&format!("delete chain {table} {overlap}"));
        assert!(overlap_is_added < rule_is_added, "{changes}");
        assert!(old_is_deleted < overlap_is_deleted, "{changes}");
        assert!(rule_is_added < overlap_is_deleted, "{changes}");
    }
}

/// Flows of both families to a port of the node.
pub fn live_flows(net: &Net, protocol: Protocol, port: u16) -> [LiveFlow; 2] {
    let node_addrs = Family::BOTH.map(|family| net.node_addr(family, port));
    node_addrs.map(|node_addr| net.client.live_flow(protocol, node_addr))
}

/// A UDP flow may never end, so it moves.
#[test]
fn tcp_connections_stay_with_the_old_backend_and_udp_flows_move_to_the_new_one() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let first = forward_both(&net.backends[0]).start(&net.node);
    let flows = |protocol| live_flows(&net, protocol, FORWARDED_PORT);
    let [tcp, udp] = Protocol::BOTH.map(flows);
    let _second = replacing(&forward_both(&net.backends[1])).start(&net.node);
    first.finish().expect_exit(0);
    for mut flow in tcp {
        assert_eq!(flow.reply.server, "backend-1");
        flow.expect_unchanged();
    }
    for mut flow in udp {
        assert_eq!(flow.reply.server, "backend-1");
        assert_eq!(flow.request().expect("a reply").server, "backend-2");
    }
    for flow in Protocol::BOTH.map(flows).as_flattened() {
        assert_eq!(flow.reply.server, "backend-2");
    }
}

/// Though the other NAT rules would have the kernel go on with them. The flows of an instance that
/// forwards another port to the same backend go on.
#[test]
fn flows_to_ports_that_no_instance_forwards_any_more_are_ended() {
    let net = Net::new(1);
    net.node.load(OTHER_NAT);
    let backend = &net.backends[0];
    let _servers = [backend.serve(BACKEND_PORT), backend.serve(SECOND_PORT)];
    let first = forward_both(backend).start(&net.node);
    let sibling = forward_both(backend)
        .env("SRC_PORT", "70,71")
        .env("NODEFWD_NAME", "sibling");
    let _sibling = sibling.start(&net.node);
    let flows = |port| Protocol::BOTH.map(|protocol| live_flows(&net, protocol, port));
    let (mut ended, mut kept, mut siblings) =
        (flows(FORWARDED_PORT), flows(SECOND_PORT), flows(70));
    let narrower = replacing(&forward_both(backend))
        .env("SRC_PORT", SECOND_PORT.to_string())
        .env("DEST_PORT", SECOND_PORT.to_string());
    let _second = narrower.start(&net.node);
    let stderr = first.finish().expect_exit(0).stderr;
    expect_parts(&stderr, ["4 running connections"]);
    for flow in ended.as_flattened_mut() {
        flow.expect_closed();
    }
    for flows in [&mut kept, &mut siblings] {
        let flows = flows.as_flattened_mut();
        flows.iter_mut().for_each(LiveFlow::expect_unchanged);
    }
}
