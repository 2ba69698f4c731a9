//! The forward that most tests use, called as the service load balancer calls it.

use std::io;
use std::net::IpAddr;

use crate::fixture::{
    Answer, Connection, Family, Host, Net, Nodefwd, Process, Protocol, Server, nodefwd,
};

/// The port that is forwarded.
pub const FRONT: u16 = 80;

/// The port that it is forwarded to.
pub const BACK: u16 = 8080;

/// Forwards to these addresses.
pub fn forward(protocol: Protocol, destinations: &[IpAddr]) -> Nodefwd {
    let destinations: Vec<_> = destinations.iter().map(IpAddr::to_string).collect();
    nodefwd([""; 0])
        .env("DEST_IPS", destinations.join(","))
        .env("DEST_PROTO", protocol.name().to_uppercase())
        .env("SRC_PORT", FRONT.to_string())
        .env("DEST_PORT", BACK.to_string())
}

/// Forwards both families to these hosts.
pub fn forward_to(protocol: Protocol, hosts: &[Host]) -> Nodefwd {
    let addresses = |host: &Host| Family::BOTH.map(|family| host.address(family));
    let addresses: Vec<_> = hosts.iter().flat_map(addresses).collect();
    forward(protocol, &addresses)
}

/// A forwarder with a TCP connection that runs through it.
pub struct Busy {
    pub flow: Connection,
    pub forwarder: Process,
    pub server: Server,
    pub net: Net,
}

impl Busy {
    /// Forwards to one backend, called as `adapt` says, and has the client connect.
    pub fn start(family: Family, adapt: impl FnOnce(Nodefwd) -> Nodefwd) -> Self {
        let net = Net::new(1);
        let server = net.backends[0].serve(BACK);
        let forwarder = adapt(forward_to(Protocol::Tcp, &net.backends)).start(&net.node);
        let front = net.front(family, FRONT);
        let flow = net.client.connect(Protocol::Tcp, front);
        let mut flow = flow.expect("a connection");
        flow.ask().expect("an answer");
        Busy {
            flow,
            forwarder,
            server,
            net,
        }
    }
}

/// Fails the test unless this server has answered and has seen this source address.
#[track_caller]
pub fn expect_answer(answer: io::Result<Answer>, server: &str, source: IpAddr) {
    let answer = answer.expect("an answer");
    let seen = (answer.server.as_str(), answer.source.ip());
    assert_eq!(seen, (server, source));
}
