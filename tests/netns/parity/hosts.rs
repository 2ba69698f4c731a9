//! What is asked, who asks, and what comes of it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use super::contender::front;
use crate::fixture::{Family, Host, LIMIT, Namespace, Net, Protocol, SILENCE, Server};
use crate::forward::BACK;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The destination answers, and sees the node's address.
    Forwarded,
    /// Who was asked answers, and sees the address that the request was sent from.
    Direct,
    /// Who was asked answers, but sees the node's address.
    Masqueraded,
    /// The node says that nobody listens.
    Refused,
    /// No answer of any kind.
    Silence,
}

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A client in SRC_RANGES.
    Allowed,
    /// A client outside.
    Denied,
    /// The destination itself.
    Itself,
    /// The node, from its address on the allowed client's link.
    Node,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// The forwarded port, at the node's address on the asking host's own link.
    Front,
    /// The same, at its address on the destination's link.
    FarFront,
    /// A port of the node that is forwarded for the other protocol only.
    OtherProtocol,
    /// The destination's port, at the node.
    BackAtTheNode,
    /// The forwarded port of somebody else, behind the node.
    Stranger,
    /// The destination, straight.
    Back,
    /// Another port of the destination.
    BesideBack,
}

/// A net with all that is asked and all who ask.
pub struct Hosts {
    pub net: Net,
    denied: Host,
    _servers: Vec<Server>,
}

impl Hosts {
    pub fn new() -> Self {
        let net = Net::new(2);
        let [destination, stranger] = &net.backends[..] else {
            unreachable!()
        };
        let mut servers = vec![destination.serve(BACK), destination.serve(BACK + 1)];
        servers.push(stranger.serve(BACK));
        servers.extend(Protocol::BOTH.map(|protocol| stranger.serve(front(protocol))));
        Hosts {
            denied: net.another_client(2),
            _servers: servers,
            net,
        }
    }

    /// What becomes of a request. Where an answer is expected, it has all the time it needs.
    pub fn measure(
        &self,
        family: Family,
        protocol: Protocol,
        (who, what): (Who, To),
        expected: Outcome,
    ) -> Outcome {
        let net = &self.net;
        let [destination, stranger] = &net.backends[..] else {
            unreachable!()
        };
        let (namespace, source, node): (&Namespace, _, _) = match who {
            Who::Allowed => of_host(&net.client, family),
            Who::Denied => of_host(&self.denied, family),
            Who::Itself => of_host(destination, family),
            Who::Node => (
                &net.node,
                net.client.gateway(family),
                net.client.gateway(family),
            ),
        };
        let other = match protocol {
            Protocol::Tcp => Protocol::Udp,
            Protocol::Udp => Protocol::Tcp,
        };
        let (address, port) = match what {
            To::Front => (node, front(protocol)),
            To::FarFront => (destination.gateway(family), front(protocol)),
            To::OtherProtocol => (node, front(other)),
            To::BackAtTheNode => (node, BACK),
            To::Stranger => (stranger.address(family), front(protocol)),
            To::Back => (destination.address(family), BACK),
            To::BesideBack => (destination.address(family), BACK + 1),
        };
        let limit = if expected == Outcome::Silence {
            SILENCE
        } else {
            LIMIT
        };
        let (from, to) = (SocketAddr::new(source, 0), SocketAddr::new(address, port));
        let answer = match namespace.request_within(limit, protocol, Some(from), to) {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Outcome::Refused,
            Err(error) if error.kind() == ErrorKind::TimedOut => return Outcome::Silence,
            Err(error) => panic!("{protocol:?} from {from} to {to}: {error}"),
        };
        let asked = match to {
            to if to.ip() == destination.address(family) => "backend-1",
            to if to.ip() == stranger.address(family) => "backend-2",
            _ => "the node",
        };
        match (answer.server == asked, answer.source.ip() == source) {
            (true, true) => Outcome::Direct,
            (true, false) => Outcome::Masqueraded,
            (false, _) => {
                let seen = (answer.server.as_str(), answer.source.ip());
                assert_eq!(seen, ("backend-1", destination.gateway(family)));
                Outcome::Forwarded
            }
        }
    }
}

/// A host's namespace and address, and the node's address on its link.
fn of_host(host: &Host, family: Family) -> (&Namespace, IpAddr, IpAddr) {
    (host, host.address(family), host.gateway(family))
}
