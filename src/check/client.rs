//! `check --from`: a client that is followed.

use crate::config::{Family, InterfaceError, InterfaceName};
use std::net::IpAddr;
use std::str::FromStr;
use thiserror::Error;

/// A client, and the interface that its packets come in on, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    pub interface: Option<InterfaceName>,
}

/// Why a text names no client.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ClientError {
    #[error(
        "no IP address: give the client's, such as 192.168.1.7, or with the interface that it comes in on, 192.168.1.7%eth0"
    )]
    Address,
    #[error("no address that a client can have")]
    Unicast,
    #[error("after '%' goes the interface that the client comes in on")]
    Interface(#[source] InterfaceError),
}

impl Client {
    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl FromStr for Client {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let (address, interface) = match text.split_once('%') {
            Some((address, interface)) => (address, Some(interface)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ClientError::Address)?;
        // What a socket for both families shows of an IPv4 client.
        let address = address.to_canonical();
        let is_broadcast = matches!(address, IpAddr::V4(ip) if ip.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || is_broadcast {
            return Err(ClientError::Unicast);
        }
        let interface = interface.map(str::parse).transpose();
        let interface = interface.map_err(ClientError::Interface)?;
        Ok(Client { address, interface })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_read_back() {
        let client = |text: &str| text.parse::<Client>();
        let on =
            |text: &str| client(text).map(|client| client.interface.map(|name| name.to_string()));
        assert_eq!(on("10.1.0.2"), Ok(None));
        assert_eq!(on("fe80::1%eth0.7"), Ok(Some("eth0.7".into())));
        let mapped = client("::ffff:10.1.0.2").map(|client| client.address);
        assert_eq!(mapped, Ok(IpAddr::from([10, 1, 0, 2])));
        for text in ["", "10.1.0", "web", "10.1.0.0/24", "[fd00::1]", "%eth0"] {
            assert_eq!(client(text), Err(ClientError::Address), "{text}");
        }
        for text in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert_eq!(client(text), Err(ClientError::Unicast), "{text}");
        }
        for text in ["10.1.0.2%", "10.1.0.2%a b", "10.1.0.2%abcdefghijklmnop"] {
            assert!(
                matches!(client(text), Err(ClientError::Interface(_))),
                "{text}"
            );
        }
    }
}
