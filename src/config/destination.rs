//! Where a forward goes.

use super::{Answer, Host, PortRange};
use serde::Serialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What one connection is sent to: an address, and a port there. A destination of a forward is one
/// backend, or one for each port of a range.
pub type Backend = (IpAddr, u16);

/// Where a forward goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Destination {
    /// Of a host that is reached over the network: see `address.rs` for what is refused.
    pub address: IpAddr,
    /// One port, to which all of the forward's ports go, or as many ports as the forward has.
    pub ports: PortRange,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.ports),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.ports),
        }
    }
}

/// A destination as it is written, with the name of a host perhaps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WrittenDestination {
    pub host: Host,
    /// As a [`Destination`] has them.
    pub ports: PortRange,
}

impl fmt::Display for WrittenDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.ports;
        match &self.host {
            Host::Address(address) => write!(
                f,
                "{}",
                Destination {
                    address: *address,
                    ports
                }
            ),
            Host::Name(name) => write!(f, "{name}:{ports}"),
        }
    }
}

impl WrittenDestination {
    /// The destinations that it stands for; none for a name without an answer.
    pub fn resolved(&self, answers: &[Answer]) -> impl Iterator<Item = Destination> {
        let ports = self.ports;
        let (address, answer) = match &self.host {
            Host::Address(address) => (Some(*address), None),
            Host::Name(name) => (None, answers.iter().find(|answer| answer.name == *name)),
        };
        let addresses = answer.map_or(&[][..], |answer| &answer.addresses);
        let all = address.into_iter().chain(addresses.iter().copied());
        all.map(move |address| Destination { address, ports })
    }
}

impl Destination {
    /// Its address with its port; of a range the first.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.first())
    }

    /// The backend of connections to `port`, one of the `forwarded` ports.
    pub fn backend(&self, forwarded: PortRange, port: u16) -> Backend {
        let offset = if self.ports.is_single() {
            0
        } else {
            port.saturating_sub(forwarded.first())
        };
        (self.address, self.ports.first().saturating_add(offset))
    }

    /// All destinations whose [`backend`](Self::backend) for these ports is this: at most two.
    pub fn leading_to(
        (address, to): Backend,
        forwarded: PortRange,
        port: u16,
    ) -> impl Iterator<Item = Destination> {
        let first = to.checked_sub(port.saturating_sub(forwarded.first()));
        let range = first.and_then(|first| {
            let last = first.checked_add(forwarded.count() - 1)?;
            PortRange::try_from((first, last)).ok()
        });
        let range = range.filter(|range| !range.is_single());
        let single = PortRange::try_from((to, to)).ok();
        let ports = [single, range].into_iter().flatten();
        ports.map(move |ports| Destination { address, ports })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_destination_leads_to_its_backends_and_to_no_other(
            first in 1..20u16,
            more in 0..10u16,
            to in 1..40u16,
            is_range: bool,
            asked in (0..10u16, 1..60u16),
        ) {
            let range = |first, more| PortRange::try_from((first, first + more)).unwrap();
            let forwarded = range(first, more);
            let address = IpAddr::from([10, 2, 0, 11]);
            let ports = range(to, if is_range { more } else { 0 });
            let destination = Destination { address, ports };
            let (offset, backend) = asked;
            let port = first + offset % (more + 1);
            let leads = destination.backend(forwarded, port) == (address, backend);
            let mut found = Destination::leading_to((address, backend), forwarded, port);
            prop_assert_eq!(found.any(|found| found == destination), leads);
        }
    }
}
