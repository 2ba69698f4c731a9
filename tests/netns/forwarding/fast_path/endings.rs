//! What ends: flows, by themselves or with the instance, and the instance with flows that run.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::SockRef;

use super::{COUNTER, Fast, INTERFACES, entry, expect_bypass, forward_both, forwarded};
use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, LiveFlow, Net, OTHER_NAT,
    PROTOCOLS_AND_FAMILIES, Protocol, wait_until,
};

/// So long that no test reaches its end, and longer than any state of a closed connection lasts.
const LONG: &str = "--drain=3600";

/// Ends a TCP connection by a reset.
fn reset(flow: LiveFlow) {
    let set = SockRef::from(flow.socket()).set_linger(Some(Duration::ZERO));
    set.expect("SO_LINGER");
}

/// In the flowtable the ends of connections are seen later, or never.
#[test]
#[ignore = "needs flowtables"]
fn a_drain_ends_with_the_last_connection_whether_it_is_closed_or_reset() {
    for family in Family::BOTH {
        for end in [drop, reset] {
            let fast = Fast::start(&[INTERFACES, LONG]);
            let [mut first, mut second] = [(); 2].map(|()| fast.flow(Protocol::Tcp, family));
            let Fast {
                net,
                mut forwarder,
                _servers,
            } = fast;
            net.node.load(COUNTER);
            forwarder.signal(Signal::SIGTERM);
            forwarder.wait_until_draining(2);
            let rules = net.node.ruleset();
            assert!(!rules.contains("flowtable"), "{rules}");
            // They are back on the usual path.
            let before = forwarded(&net.node);
            second.expect_unchanged();
            assert!(forwarded(&net.node) > before);
            // The kernel knows the sequence numbers of a flow again only after a packet: a reset counts by them.
            first.expect_unchanged();
            end(first);
            second.expect_unchanged();
            end(second);
            forwarder.wait_until_drained();
            forwarder.finish().expect_exit(0);
        }
    }
}

/// What they sent in the flowtable, conntrack has not seen: so it has to take a RST with any sequence number.
#[test]
#[ignore = "needs flowtables"]
fn a_drain_ends_with_connections_that_idle_until_they_are_closed_or_reset() {
    for family in Family::BOTH {
        for end in [drop, reset] {
            let fast = Fast::start(&[INTERFACES, LONG]);
            let mut flow = fast.flow(Protocol::Tcp, family);
            (0..10).for_each(|_| flow.expect_unchanged());
            let Fast {
                net: _net,
                mut forwarder,
                _servers,
            } = fast;
            forwarder.signal(Signal::SIGTERM);
            forwarder.wait_until_draining(1);
            end(flow);
            forwarder.wait_until_drained();
            forwarder.finish().expect_exit(0);
        }
    }
}

/// A closed connection leaves the flowtable, and a new one between the same ports is as good as any.
#[test]
#[ignore = "needs flowtables"]
fn closed_and_reset_connections_make_room_for_new_ones() {
    let fast = Fast::start(&["--fast-path=auto", "--fully-random=false"]);
    for family in Family::BOTH {
        for end in [drop, reset] {
            let flow = fast.flow(Protocol::Tcp, family);
            let source = flow.source();
            end(flow);
            // The node may have the old entry still.
            let connect = || {
                let to = fast.net.node_addr(family, FORWARDED_PORT);
                let made = fast.net.client.connect_from(Protocol::Tcp, source, to);
                made.and_then(|mut connection| connection.request())
            };
            let reply = wait_until("a connection", connect, |reply| reply.is_ok());
            reply.expect("a reply");
        }
    }
}

/// A TCP connection through the flowtable, the client's end first.
fn connection(net: &Net, family: Family) -> [TcpStream; 2] {
    let address = SocketAddr::new(net.backends[0].address(family), BACKEND_PORT);
    let listener = net.backends[0].run(|| TcpListener::bind(address));
    let to = net.node_addr(family, FORWARDED_PORT);
    let client = net
        .client
        .run(|| TcpStream::connect(to))
        .expect("connected");
    let (server, _) = listener.and_then(|it| it.accept()).expect("a connection");
    let port = client.local_addr().expect("a port").port();
    let ends = [client, server];
    for end in &ends {
        let set = end.set_read_timeout(Some(EVENT_TIMEOUT));
        set.expect("a read timeout");
    }
    let ask = || {
        pass(&ends[0], &ends[1]);
        pass(&ends[1], &ends[0]);
        entry(&net.node, Protocol::Tcp, family, port)
    };
    wait_until("a flow in the flowtable", ask, |entry| {
        entry.contains("[OFFLOAD]")
    });
    ends
}

/// Sends a byte from one end to the other.
#[track_caller]
fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"?").expect("sent");
    to.read_exact(&mut [0]).expect("a byte");
}

/// Whichever side ends its half, the other one goes on for longer than an idle flow stays in the flowtable, or a
/// half-closed one in conntrack.
#[test]
#[ignore = "needs flowtables"]
fn half_closed_connections_go_on() {
    let net = Net::new(1);
    let _forwarder = forward_both(&net.backends)
        .args(&[INTERFACES])
        .start(&net.node);
    for (name, seconds) in [
        ("nf_flowtable_tcp_timeout", "3"),
        ("nf_conntrack_tcp_timeout_fin_wait", "5"),
        ("nf_conntrack_tcp_timeout_close_wait", "5"),
        ("nf_conntrack_tcp_timeout_last_ack", "5"),
    ] {
        net.node
            .set_sysctl(&format!("net/netfilter/{name}"), seconds);
    }
    let mut halves = Vec::new();
    for family in Family::BOTH {
        let [client, server] = connection(&net, family);
        halves.push((client, server));
        let [client, server] = connection(&net, family);
        halves.push((server, client));
    }
    for (ending, going_on) in &mut halves {
        ending.shutdown(Shutdown::Write).expect("half closed");
        let size = going_on.read(&mut [0]).expect("an end");
        assert_eq!(size, 0);
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(15) {
        for (ending, going_on) in &halves {
            pass(going_on, ending);
        }
        thread::sleep(Duration::from_millis(200));
    }
    for (mut ending, going_on) in halves {
        drop(going_on);
        let size = ending.read(&mut [0]).expect("an end");
        assert_eq!(size, 0);
    }
}

#[test]
#[ignore = "needs flowtables"]
fn flows_end_with_the_instance_when_it_is_stopped() {
    for owner in ["--owner=true", "--owner=false"] {
        let fast = Fast::start(&[INTERFACES, owner]);
        fast.net.node.load(OTHER_NAT);
        let flows = PROTOCOLS_AND_FAMILIES.map(|(protocol, family)| {
            let flow = fast.flow(protocol, family);
            (protocol, family, flow)
        });
        let Fast { net, forwarder, .. } = fast;
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        let rules = net.node.ruleset();
        assert!(!rules.contains("nodefwd"), "{rules}");
        for (protocol, family, mut flow) in flows {
            let port = flow.source().port();
            let found = entry(&net.node, protocol, family, port);
            assert!(!found.contains("dport=80 "), "{found}");
            flow.expect_closed();
        }
    }
}

/// As without a fast path: while another program has NAT rules, what was translated goes on.
#[test]
#[ignore = "needs flowtables"]
fn flows_go_on_when_the_instance_is_killed_and_leave_the_fast_path() {
    let fast = Fast::start(&[INTERFACES]);
    fast.net.node.load(OTHER_NAT);
    fast.net.node.load(COUNTER);
    let mut flows = PROTOCOLS_AND_FAMILIES.map(|(protocol, family)| fast.flow(protocol, family));
    flows
        .iter_mut()
        .for_each(|flow| expect_bypass(&fast.net.node, flow));
    let Fast {
        net,
        mut forwarder,
        _servers,
    } = fast;
    forwarder.signal(Signal::SIGKILL);
    forwarder.wait();
    let gone = |rules: &String| !rules.contains("nodefwd");
    wait_until("no table", || net.node.ruleset(), gone);
    for flow in &mut flows {
        let before = forwarded(&net.node);
        flow.expect_unchanged();
        assert!(forwarded(&net.node) > before);
    }
}

/// Before Linux 5.12 the table stays, and the next start replaces it.
#[test]
#[ignore = "needs flowtables"]
fn what_a_killed_instance_without_an_owner_has_left_is_replaced() {
    let mut fast = Fast::start(&[INTERFACES, "--owner=false"]);
    let mut flow = fast.flow(Protocol::Tcp, Family::V4);
    fast.forwarder.signal(Signal::SIGKILL);
    fast.forwarder.wait();
    flow.expect_unchanged();
    let call = forward_both(&fast.net.backends).args(&["--owner=false"]);
    let forwarder = call.start(&fast.net.node);
    let rules = fast.net.node.ruleset();
    assert!(!rules.contains("flowtable"), "{rules}");
    flow.expect_unchanged();
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(fast.net.node.ruleset(), "");
}
