//! What is asked, who asks, and what comes of it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use super::implementation::front;
use crate::fixture::BACK;
use crate::fixture::{Answer, Family, Host, LIMIT, Namespace, Net, Protocol, SILENCE, Server};

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
        let (namespace, source, node) = self.asking(who, family);
        let from = SocketAddr::new(source, 0);
        let to = self.asked(what, node, family, protocol);
        let limit = match expected {
            Outcome::Silence => SILENCE,
            _ => LIMIT,
        };
        match namespace.request_within(limit, protocol, Some(from), to) {
            Ok(answer) => self.judge(&answer, source, to.ip(), family),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Outcome::Refused,
            Err(error) if error.kind() == ErrorKind::TimedOut => Outcome::Silence,
            Err(error) => panic!("{protocol:?} from {from} to {to}: {error}"),
        }
    }

    /// Who asks, from which address, and the node's address as it is known there.
    fn asking(&self, who: Who, family: Family) -> (&Namespace, IpAddr, IpAddr) {
        let host = match who {
            Who::Allowed => &self.net.client,
            Who::Denied => &self.denied,
            Who::Itself => &self.net.backends[0],
            Who::Node => {
                let address = self.net.client.gateway(family);
                return (&self.net.node, address, address);
            }
        };
        (host, host.address(family), host.gateway(family))
    }

    fn asked(&self, what: To, node: IpAddr, family: Family, protocol: Protocol) -> SocketAddr {
        let [destination, stranger] = [0, 1].map(|number| &self.net.backends[number]);
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
        SocketAddr::new(address, port)
    }

    fn judge(&self, answer: &Answer, source: IpAddr, asked: IpAddr, family: Family) -> Outcome {
        let backends = self.net.backends.iter().zip(["backend-1", "backend-2"]);
        let answers_itself = backends
            .filter(|(host, _)| host.address(family) == asked)
            .any(|(_, name)| name == answer.server);
        match (answers_itself, answer.source.ip() == source) {
            (true, true) => Outcome::Direct,
            (true, false) => Outcome::Masqueraded,
            (false, _) => {
                let node = self.net.backends[0].gateway(family);
                let seen = (answer.server.as_str(), answer.source.ip());
                assert_eq!(seen, ("backend-1", node));
                Outcome::Forwarded
            }
        }
    }
}
