//! `--drain` with SCTP, in hand-made packets.

use nix::sys::signal::Signal;

use crate::fixture::{
    Association, BACKEND_PORT, Chunk, FORWARDED_PORT, Family, Net, RawSctp, expect_parts, nodefwd,
    track_without_checksums,
};

/// The kernel keeps the entry of a connection that is over for a while, here for an hour; a drain must
/// not wait for that. The entry of one whose INIT has no reply yet is in the same state, but that
/// connection is not over.
#[test]
fn a_drain_waits_for_running_sctp_connections_and_not_for_closed_ones() {
    let net = Net::new(1);
    let backend = net.backends[0].address(Family::V4);
    let forward = format!("sctp/{FORWARDED_PORT}={backend}:{BACKEND_PORT}");
    let mut forwarder = nodefwd([&forward, "--drain=3600"]).start(&net.node);
    track_without_checksums(&net.node);
    net.node
        .set_sysctl("net/netfilter/nf_conntrack_sctp_timeout_closed", "3600");
    let [client, server] =
        [&net.client, &net.backends[0]].map(|host| RawSctp::open(host, Family::V4));
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let [closed, running, starting] =
        [4001, 4002, 4003].map(|from| Association::begin(&client, &server, from, node_addr));
    for association in [&closed, &running] {
        association.establish();
    }
    let close = |association: &Association| {
        association.client_sends(Chunk::Shutdown);
        association.server_sends(Chunk::ShutdownAck);
        association.client_sends(Chunk::ShutdownComplete);
    };
    close(&closed);

    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(2);
    close(&running);
    starting.server_sends(Chunk::InitAck);
    starting.server_sends(Chunk::Abort);
    forwarder.wait_until_drained();
    let stderr = forwarder.finish().expect_exit(0).stderr;
    expect_parts(&stderr, [" 0 running connections"]);
}
