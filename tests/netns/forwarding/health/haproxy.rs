//! `--health` beside HAProxy, with the same interval: how many new connections each loses.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Net, Process, Protocol, Server, TempFile, forward,
    wait_until,
};

/// Where HAProxy listens.
const HAPROXY_PORT: u16 = 81;

/// How long there is between two connections, and how long each waits for its reply.
const PAUSE: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long a scenario takes, in connections.
const CONNECTIONS: u32 = 240;

/// Both, with the same two backends, tried every second.
struct Both {
    net: Net,
    servers: [Option<Server>; 2],
    _nodefwd: Process,
    _haproxy: Process,
    _configuration: TempFile,
}

impl Both {
    /// HAProxy with this line in its configuration.
    fn start(line: &str) -> Self {
        let net = Net::new(2);
        let [one, other] = net.two_backends().map(|host| host.address(Family::V4));
        let listen = net.node_addr(Family::V4, HAPROXY_PORT);
        let configuration = TempFile::new(format!(
            "defaults\n mode tcp\n timeout connect 1s\n timeout client 9s\n timeout server 9s\n\
             {line}\n listen web\n bind {listen}\n default-server check inter 1s fall 3 rise 2\n\
             server one {one}:{BACKEND_PORT}\n server other {other}:{BACKEND_PORT}\n"
        ));
        let servers = net
            .two_backends()
            .map(|host| Some(host.serve(BACKEND_PORT)));
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(configuration.path());
        let haproxy = net.node.spawn(haproxy);
        let forwarder =
            forward(Protocol::Tcp, &[one, other]).args(&["--health=1", "--balance=round-robin"]);
        let both = Both {
            _nodefwd: forwarder.start(&net.node),
            _haproxy: haproxy,
            _configuration: configuration,
            servers,
            net,
        };
        let replies = || [FORWARDED_PORT, HAPROXY_PORT].map(|port| both.replies(port));
        wait_until("replies", replies, |replies| *replies == [true; 2]);
        both
    }

    fn address(&self, port: u16) -> SocketAddr {
        self.net.node_addr(Family::V4, port)
    }

    fn replies(&self, port: u16) -> bool {
        let to = self.address(port);
        let reply = self
            .net
            .client
            .request_within(TIMEOUT, Protocol::Tcp, None, to);
        reply.is_ok()
    }

    /// Opens connections to both at the same moments, while `change` makes the scenario's changes: it is called
    /// before each. Gives how many had no reply from nodefwd, and from HAProxy.
    fn lost(&mut self, change: impl Fn(&Net, &mut [Option<Server>; 2], u32)) -> [usize; 2] {
        let lost = [FORWARDED_PORT, HAPROXY_PORT].map(|port| (port, AtomicUsize::new(0)));
        let (net, servers) = (&self.net, &mut self.servers);
        let start = Instant::now();
        thread::scope(|scope| {
            for number in 0..CONNECTIONS {
                let at = start + number * PAUSE;
                thread::sleep(at.saturating_duration_since(Instant::now()));
                change(net, servers, number);
                for (port, lost) in &lost {
                    let to = net.node_addr(Family::V4, *port);
                    scope.spawn(move || {
                        let client = &net.client;
                        let reply = client.request_within(TIMEOUT, Protocol::Tcp, None, to);
                        lost.fetch_add(reply.is_err().into(), Ordering::Relaxed);
                    });
                }
            }
        });
        lost.map(|(_, lost)| lost.into_inner())
    }
}

/// How often a scenario is played: on a busy machine chance decides one when either notices.
const ROUNDS: u32 = 3;

/// Plays a scenario until nodefwd has lost, in all rounds, no more than HAProxy with this line in its configuration.
#[track_caller]
fn expect_no_more_lost(
    scenario: &str,
    line: &str,
    change: impl Fn(&Net, &mut [Option<Server>; 2], u32),
) {
    let mut lost = [0, 0];
    for round in 1..=ROUNDS {
        for (sum, lost) in lost.iter_mut().zip(Both::start(line).lost(&change)) {
            *sum += lost;
        }
        let [nodefwd, haproxy] = lost;
        let of = round * CONNECTIONS;
        println!("{scenario}: nodefwd lost {nodefwd} of {of} connections, HAProxy {haproxy}");
        if nodefwd <= haproxy {
            return;
        }
    }
    panic!("{scenario}: nodefwd has lost more: {lost:?}");
}

#[test]
fn a_process_that_is_killed() {
    expect_no_more_lost("killed", "", |_, servers, number| {
        if number == 20 {
            servers[1] = None;
        }
    });
}

#[test]
fn a_link_that_is_cut() {
    expect_no_more_lost("link cut", "", |net, _, number| {
        if number == 20 {
            net.backends[1].ip("link set eth0 down");
        }
    });
}

#[test]
fn all_dead_and_back() {
    expect_no_more_lost("all dead", "", |net, servers, number| match number {
        20 => *servers = [None, None],
        140 => {
            *servers = net
                .two_backends()
                .map(|host| Some(host.serve(BACKEND_PORT)))
        }
        _ => {}
    });
}

/// By default HAProxy keeps a client waiting, and tries the same server again for three seconds: by then this one is
/// back. No client waits for what is done in the kernel.
#[test]
fn one_that_flaps() {
    // Down for long enough that both notice, and up for long enough that both take it in again.
    expect_no_more_lost("flapping", "retries 0", |net, servers, number| {
        match number % 120 {
            10 => servers[1] = None,
            75 => servers[1] = Some(net.backends[1].serve(BACKEND_PORT)),
            _ => {}
        }
    });
}
