//! SCTP traffic, in hand-made packets, and between sockets where the kernel has them.

use std::io::{Read, Write};
use std::net::SocketAddr;

use nix::sys::signal::Signal;

use super::invalid::invalid;
use crate::fixture::{
    Association, BACKEND_PORT, Chunk, FORWARDED_PORT, Family, Net, Nodefwd, RawSctp, nodefwd,
    sctp_socket, track_without_checksums, wait_until,
};

/// The client's port.
const CLIENT_PORT: u16 = 4001;

fn net() -> Net {
    let net = Net::new(1);
    track_without_checksums(&net.node);
    net
}

fn forward(net: &Net, options: &[&str]) -> Nodefwd {
    let [v4, v6] = Family::BOTH.map(|family| net.backends[0].address(family));
    let forward = format!("sctp/{FORWARDED_PORT}={v4}:{BACKEND_PORT},[{v6}]:{BACKEND_PORT}");
    nodefwd([forward]).args(options)
}

/// A host that knows SCTP would answer such a packet with ABORT, and one that does not, as ICMP has it.
#[test]
fn an_sctp_connection_survives_packets_that_conntrack_finds_invalid() {
    let net = net();
    for family in Family::BOTH {
        let [client, server] =
            [&net.client, &net.backends[0]].map(|host| RawSctp::open(host, family));
        for masquerade in ["--masquerade=true", "--masquerade=false"] {
            let forwarder = forward(&net, &[masquerade]).start(&net.node);
            let to = net.node_addr(family, FORWARDED_PORT);
            let association = Association::begin(&client, &server, CLIENT_PORT, to);
            association.establish();
            assert_eq!(invalid(&net.node), 0);
            association.both_send_invalid();
            let awaited = format!("both are dropped: {family:?} {masquerade}");
            wait_until(&awaited, || invalid(&net.node), |count| *count == 2);
            association.client_sends(Chunk::Sack);
            association.server_sends(Chunk::Sack);
            forwarder.stop(Signal::SIGTERM).expect_exit(0);
        }
    }
}

#[test]
fn sctp_of_a_destination_comes_back_to_it_with_hairpin_only() {
    let net = net();
    let backend = &net.backends[0];
    for family in Family::BOTH {
        let here = RawSctp::open(backend, family);
        let to = SocketAddr::new(backend.gateway(family), FORWARDED_PORT);
        let forwarder = forward(&net, &[]).start(&net.node);
        here.send(CLIENT_PORT, to, 0, Chunk::Init);
        let selection = ["--proto", "sctp", "--orig-port-src", "4001"];
        let entries = || net.node.conntrack_entries(family, &selection);
        wait_until("an entry", entries, |entries| entries.len() == 1);
        let entry = entries().pop_first().expect("an entry");
        let port = format!("sport={FORWARDED_PORT} dport={CLIENT_PORT}");
        assert!(entry.contains(&port), "{entry}");
        drop(forwarder);
        let _forwarder = forward(&net, &["--hairpin"]).start(&net.node);
        let association = Association::begin(&here, &here, CLIENT_PORT + 1, to);
        assert_eq!(association.seen.ip(), backend.gateway(family));
    }
}

#[test]
fn without_random_ports_the_port_of_an_sctp_client_is_kept() {
    let net = net();
    for family in Family::BOTH {
        let [client, server] =
            [&net.client, &net.backends[0]].map(|host| RawSctp::open(host, family));
        let to = net.node_addr(family, FORWARDED_PORT);
        let seen = |options: &[&str], from| {
            let _forwarder = forward(&net, options).start(&net.node);
            Association::begin(&client, &server, from, to).seen.port()
        };
        assert_eq!(seen(&["--fully-random=false"], CLIENT_PORT), CLIENT_PORT);
        assert_ne!(seen(&[], CLIENT_PORT + 1), CLIENT_PORT + 1);
    }
}

/// With an address each, as NAT knows one for each end only.
#[test]
#[ignore = "needs SCTP sockets"]
fn sockets_of_sctp_connect_exchange_data_and_close() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    for family in Family::BOTH {
        let address = SocketAddr::new(backend.address(family), BACKEND_PORT);
        let listener = sctp_socket(backend, address);
        listener.listen(1).expect("a listener");
        for (masquerade, source) in [
            ("--masquerade=true", backend.gateway(family)),
            ("--masquerade=false", net.client.address(family)),
        ] {
            let call = forward(&net, &[masquerade, "--drain=3600"]);
            let mut forwarder = call.start(&net.node);
            let closed = "net/netfilter/nf_conntrack_sctp_timeout_closed";
            net.node.set_sysctl(closed, "3600");
            let from = SocketAddr::new(net.client.address(family), 0);
            let mut client = sctp_socket(&net.client, from);
            let to = net.node_addr(family, FORWARDED_PORT);
            client.connect(&to.into()).expect("a connection");
            let (mut server, peer) = listener.accept().expect("a connection");
            assert_eq!(peer.as_socket().expect("an address").ip(), source);
            let mut exchange = || {
                let mut received = [0; 9];
                client.write_all(b"a request").expect("sent");
                server.read_exact(&mut received).expect("received");
                server.write_all(&received).expect("sent");
                client.read_exact(&mut received).expect("received");
                assert_eq!(&received, b"a request");
            };
            exchange();
            forwarder.signal(Signal::SIGTERM);
            forwarder.wait_until_draining(1);
            exchange();
            drop(client);
            forwarder.wait_until_drained();
            forwarder.finish().expect_exit(0);
        }
    }
}
