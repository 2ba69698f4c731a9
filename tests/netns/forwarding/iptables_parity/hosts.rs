//! Who connects to what, and what becomes of it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use super::implementation::forwarded_port;
use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, Family, Host, Namespace, Net, Protocol, Reply, SILENCE_TIMEOUT,
    Server,
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend replies, and sees the node's address.
    Forwarded,
    /// The host that was connected to replies, and sees the client's address.
    Untouched,
    /// The host that was connected to replies, but sees the node's address.
    Masqueraded,
    /// The node refuses it, as nothing listens there.
    Refused,
    /// Neither a reply nor an error.
    NoReply,
}

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A client in SRC_RANGES.
    Allowed,
    /// A client outside.
    Denied,
    /// The backend itself.
    BackendItself,
    /// The node, from its address on the allowed client's link.
    Node,
}

/// What is connected to.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// The forwarded port, at the node's address on the client's own link.
    ForwardedPort,
    /// The same at the node's address on the backend's link.
    ForwardedPortOnFarLink,
    /// A port of the node that is forwarded only for the other protocol.
    OtherProtocol,
    /// The backend's port number, at the node.
    BackendPortOfNode,
    /// The forwarded port number, at another host beyond the node.
    OtherHost,
    /// The backend itself.
    Backend,
    /// Another port of the backend.
    OtherBackendPort,
}

/// A net with all clients and servers.
pub struct Hosts {
    pub net: Net,
    denied: Host,
    _servers: Vec<Server>,
}

impl Hosts {
    pub fn new() -> Self {
        let net = Net::new(2);
        let [backend, other_host] = &net.backends[..] else {
            unreachable!()
        };
        let mut servers = vec![backend.serve(BACKEND_PORT), backend.serve(BACKEND_PORT + 1)];
        servers.push(other_host.serve(BACKEND_PORT));
        servers.extend(Protocol::BOTH.map(|protocol| other_host.serve(forwarded_port(protocol))));
        Hosts {
            denied: net.another_client(2),
            _servers: servers,
            net,
        }
    }

    /// Makes a request and says what becomes of it. A reply that is expected has all the time it needs.
    pub fn measure(
        &self,
        family: Family,
        protocol: Protocol,
        (client, what): (Client, To),
        expected: Outcome,
    ) -> Outcome {
        let (namespace, source, node) = self.client(client, family);
        let from = SocketAddr::new(source, 0);
        let to = self.server(what, node, family, protocol);
        let timeout = match expected {
            Outcome::NoReply => SILENCE_TIMEOUT,
            _ => EVENT_TIMEOUT,
        };
        match namespace.request_within(timeout, protocol, Some(from), to) {
            Ok(reply) => self.outcome(&reply, source, to.ip(), family),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Outcome::Refused,
            Err(error) if error.kind() == ErrorKind::TimedOut => Outcome::NoReply,
            Err(error) => panic!("{protocol:?} from {from} to {to}: {error}"),
        }
    }

    /// Who connects, from which address, and the node's address on its link.
    fn client(&self, client: Client, family: Family) -> (&Namespace, IpAddr, IpAddr) {
        let host = match client {
            Client::Allowed => &self.net.client,
            Client::Denied => &self.denied,
            Client::BackendItself => &self.net.backends[0],
            Client::Node => {
                let address = self.net.client.gateway(family);
                return (&self.net.node, address, address);
            }
        };
        (host, host.address(family), host.gateway(family))
    }

    fn server(&self, what: To, node: IpAddr, family: Family, protocol: Protocol) -> SocketAddr {
        let [backend, other_host] = [0, 1].map(|number| &self.net.backends[number]);
        let other = match protocol {
            Protocol::Tcp => Protocol::Udp,
            Protocol::Udp => Protocol::Tcp,
        };
        let (address, port) = match what {
            To::ForwardedPort => (node, forwarded_port(protocol)),
            To::ForwardedPortOnFarLink => (backend.gateway(family), forwarded_port(protocol)),
            To::OtherProtocol => (node, forwarded_port(other)),
            To::BackendPortOfNode => (node, BACKEND_PORT),
            To::OtherHost => (other_host.address(family), forwarded_port(protocol)),
            To::Backend => (backend.address(family), BACKEND_PORT),
            To::OtherBackendPort => (backend.address(family), BACKEND_PORT + 1),
        };
        SocketAddr::new(address, port)
    }

    fn outcome(&self, reply: &Reply, source: IpAddr, to: IpAddr, family: Family) -> Outcome {
        let backends = self.net.backends.iter().zip(["backend-1", "backend-2"]);
        let replies_itself = backends
            .filter(|(host, _)| host.address(family) == to)
            .any(|(_, name)| name == reply.server);
        match (replies_itself, reply.source.ip() == source) {
            (true, true) => Outcome::Untouched,
            (true, false) => Outcome::Masqueraded,
            (false, _) => {
                let node = self.net.backends[0].gateway(family);
                let seen = (reply.server.as_str(), reply.source.ip());
                assert_eq!(seen, ("backend-1", node));
                Outcome::Forwarded
            }
        }
    }
}
