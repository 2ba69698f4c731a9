//! `NODEFWD_FORWARDS` and the positional arguments: what is forwarded where.

use super::address::{AddressError, unicast};
use super::options::{OptionName, Options, Setting, shown};
use super::port::{PortError, PortRange};
use super::protocol::{Family, Protocol, ProtocolError};
use super::value::Boolean;
use super::{ConfigError, Service};
use serde::Serialize;
use std::{fmt, net::IpAddr, str::FromStr};
use thiserror::Error;

/// What one connection is sent to: an address, and a port there. A destination of a forward is one
/// backend, or one for each port of a range.
pub type Backend = (IpAddr, u16);

/// Where a forward goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
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

impl Destination {
    /// The backend of connections to `port`, one of the `forwarded` ports.
    pub fn backend(&self, forwarded: PortRange, port: u16) -> Backend {
        let offset = if self.ports.is_single() {
            0
        } else {
            port.saturating_sub(forwarded.first())
        };
        (self.address, self.ports.first().saturating_add(offset))
    }
}

/// A service, and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub service: Service,
    /// At least one, all of them different and of the service's family.
    pub destinations: Vec<Destination>,
}

impl Forward {
    /// Whether a destination has other ports for the ports of the range.
    pub fn maps_ports(&self, to: &Destination) -> bool {
        !to.ports.is_single() && to.ports != self.service.ports
    }

    /// How many ports are mapped to other ports, counted for each destination.
    pub fn mapped_ports(&self) -> usize {
        let mapped = self.destinations.iter().filter(|to| self.maps_ports(to));
        mapped.count() * usize::from(self.service.ports.count())
    }

    /// Whether it sends connections to `port`, one of its ports, to this backend.
    pub fn leads_to(&self, port: u16, backend: Backend) -> bool {
        let mut destinations = self.destinations.iter();
        destinations.any(|to| to.backend(self.service.ports, port) == backend)
    }
}

impl fmt::Display for Forward {
    /// Writes the command line's form, `tcp/80=10.0.0.5:8080,10.0.0.6:8080`, which parses back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.service.without_family())?;
        for (index, destination) in self.destinations.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{destination}")?;
        }
        Ok(())
    }
}

/// How many forwards, and destinations of each, a message names.
const SHOWN: usize = 4;

/// The first forwards, each with its first destinations, and how many more there are.
pub fn summary(forwards: &[Forward]) -> String {
    let first = forwards.iter().take(SHOWN).map(|forward| {
        let shown = Forward {
            destinations: forward.destinations.iter().take(SHOWN).copied().collect(),
            ..*forward
        };
        format!(" {shown}{}", more(forward.destinations.len()))
    });
    let first: String = first.collect();
    format!("forwarding{first}{}", more(forwards.len()))
}

/// The first of a list, and how many more there are.
pub fn first_few(all: impl ExactSizeIterator<Item = impl ToString>) -> String {
    let more = more(all.len());
    let first: Vec<String> = all.take(SHOWN).map(|one| one.to_string()).collect();
    first.join(", ") + &more
}

fn more(all: usize) -> String {
    match all.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

/// One forward as the user wrote it: destinations of both families may stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSpec {
    pub protocol: Protocol,
    pub ports: PortRange,
    /// At least one; duplicates possible.
    pub destinations: Vec<Destination>,
}

/// Reads the forwards of `NODEFWD_FORWARDS` and of the positional arguments.
pub fn listed(options: &Options) -> Result<Vec<ForwardSpec>, ConfigError> {
    let mut specs = Vec::new();
    for text in &options.forwards {
        let setting = Setting::of(OptionName::FORWARDS, text)?;
        for word in setting.text.split_whitespace() {
            let spec = word.parse();
            specs.push(spec.map_err(|error: ForwardError| setting.invalid(word, error))?);
        }
    }
    Ok(specs)
}

impl ForwardSpec {
    /// One forward for each family among the destinations, and the destinations that are listed more
    /// than once.
    pub fn by_family(self) -> (Vec<Forward>, Vec<Destination>) {
        let mut forwards: Vec<Forward> = Vec::new();
        let mut duplicates = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for destination in self.destinations {
            if !seen.insert(destination) {
                duplicates.push(destination);
                continue;
            }
            let family = Family::of(destination.address);
            let service = Service {
                family,
                protocol: self.protocol,
                ports: self.ports,
            };
            match forwards
                .iter_mut()
                .find(|forward| forward.service == service)
            {
                Some(forward) => forward.destinations.push(destination),
                None => forwards.push(Forward {
                    service,
                    destinations: vec![destination],
                }),
            }
        }
        (forwards, duplicates)
    }
}

/// Why a word is no forward. Each names the part that is wrong, as it can be shown.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ForwardError {
    /// No `=`, or no `/` before it.
    #[error("is no forward: use PROTO/PORT=DEST, such as tcp/80=10.0.0.5:8080")]
    Shape,
    /// true or false by itself: what was meant for an option has become an argument.
    #[error("is no forward: an option's value goes after '=', as in --strict=true")]
    Boolean,
    /// Before the slash.
    #[error("has '{0}', which {1}")]
    Protocol(String, ProtocolError),
    /// A port or range, of the forward or of a destination.
    #[error("has '{0}', which {1}")]
    Port(String, PortError),
    /// A whole forward in the place of a destination.
    #[error(
        "has '{0}', which is no destination: forwards are separated by white space, destinations by commas"
    )]
    Joined(String),
    /// The address of a destination.
    #[error("has '{0}', which {1}")]
    Address(String, AddressError),
    /// Two destination ranges of different length.
    #[error("has '{0}', which {1}")]
    Length(String, LengthError),
}

/// A range that cannot be forwarded to another.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "has {destination} ports, but {source_ports} are forwarded: use one port, or a range of the same length"
)]
pub struct LengthError {
    pub source_ports: u16,
    pub destination: u16,
}

/// Gives `to` if `ports` can be forwarded there: to one port, or port by port.
pub fn fits(ports: PortRange, to: PortRange) -> Result<PortRange, LengthError> {
    if to.is_single() || to.count() == ports.count() {
        return Ok(to);
    }
    Err(LengthError {
        source_ports: ports.count(),
        destination: to.count(),
    })
}

impl FromStr for ForwardSpec {
    type Err = ForwardError;

    /// Takes `PROTO/PORT[-PORT]=DEST[,DEST…]` where DEST is `IP`, `IP:PORT` or `[IP6]:PORT`.
    fn from_str(word: &str) -> Result<Self, ForwardError> {
        let shape = || match word.parse() {
            Ok(Boolean(_)) => ForwardError::Boolean,
            Err(_) => ForwardError::Shape,
        };
        let (service, destinations) = word.split_once('=').ok_or_else(shape)?;
        let (protocol, ports) = service.split_once('/').ok_or(ForwardError::Shape)?;
        let protocol = protocol
            .parse()
            .map_err(|error| ForwardError::Protocol(shown(protocol), error))?;
        let ports = port_range(ports)?;
        let destinations = destinations
            .split(',')
            .map(|word| destination(word, ports))
            .collect::<Result<_, _>>()?;
        Ok(ForwardSpec {
            protocol,
            ports,
            destinations,
        })
    }
}

fn destination(word: &str, forwarded: PortRange) -> Result<Destination, ForwardError> {
    if word.contains('=') {
        return Err(ForwardError::Joined(shown(word)));
    }
    let (address, ports) = split_port(word);
    let address = unicast(address).map_err(|error| ForwardError::Address(shown(address), error))?;
    let ports = match ports {
        None => forwarded,
        Some(ports) => fits(forwarded, port_range(ports)?)
            .map_err(|error| ForwardError::Length(shown(ports), error))?,
    };
    Ok(Destination { address, ports })
}

/// Splits `IP:PORT` and `[IP6]:PORT` (RFC 3986, section 3.2.2); a bare IPv6 address has no port.
fn split_port(word: &str) -> (&str, Option<&str>) {
    if let Some((address, rest)) = word.strip_prefix('[').and_then(|word| word.split_once(']')) {
        match rest.strip_prefix(':') {
            Some(ports) => return (address, Some(ports)),
            None if rest.is_empty() => return (address, None),
            None => return (word, None),
        }
    }
    match word.split_once(':') {
        Some((address, ports)) if !ports.contains(':') => (address, Some(ports)),
        _ => (word, None),
    }
}

fn port_range(word: &str) -> Result<PortRange, ForwardError> {
    word.parse()
        .map_err(|error| ForwardError::Port(shown(word), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(word: &str) -> String {
        let (forwards, _) = word.parse::<ForwardSpec>().unwrap().by_family();
        let words: Vec<String> = forwards.iter().map(Forward::to_string).collect();
        words.join(" ")
    }

    #[test]
    fn every_form_of_destination() {
        assert_eq!(parsed("tcp/80=10.0.0.5"), "tcp/80=10.0.0.5:80");
        assert_eq!(parsed("UDP/53=fd00::5"), "udp/53=[fd00::5]:53");
        assert_eq!(parsed("tcp/80=[fd00::5]:8080"), "tcp/80=[fd00::5]:8080");
        assert_eq!(parsed("tcp/80-90=10.0.0.5"), "tcp/80-90=10.0.0.5:80-90");
        assert_eq!(parsed("tcp/80-90=10.0.0.5:8"), "tcp/80-90=10.0.0.5:8");
        assert_eq!(
            parsed("tcp/80=10.0.0.5:1,fd00::5,10.0.0.6:2,10.0.0.5:1"),
            "tcp/80=10.0.0.5:1,10.0.0.6:2 tcp/80=[fd00::5]:80"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            ("tcp/80", "is no forward"),
            ("80=10.0.0.5", "is no forward"),
            ("1", "is no forward: an option's value goes after '='"),
            (
                "tcp/80=10.0.0.5,tcp/81=10.0.0.6",
                "has 'tcp/81=10.0.0.6', which is no destination: forwards are separated by white space",
            ),
            ("icmp/80=10.0.0.5", "has 'icmp', which is no protocol"),
            ("tcp/x=10.0.0.5", "has 'x', which is no port"),
            ("tcp/80=10.0.0.5:0", "has '0', which is out of range"),
            ("tcp/80=", "has '', which is no IP address"),
            ("tcp/80=10.0.0.5,", "has '', which is no IP address"),
            ("tcp/80=[fd00::5", "has '[fd00::5', which is no IP address"),
            (
                "tcp/80=[fd00::5]8080",
                "has '[fd00::5]8080', which is no IP address",
            ),
            (
                "tcp/80-82=10.0.0.5:1-2",
                "has '1-2', which has 2 ports, but 3 are forwarded",
            ),
            (
                "tcp/80=10.0.0.5:1-2",
                "has '1-2', which has 2 ports, but 1 are forwarded",
            ),
        ];
        for (word, reason) in table {
            let error = word.parse::<ForwardSpec>().unwrap_err().to_string();
            assert!(error.starts_with(reason), "{word}: {error}");
        }
    }

    fn any_ports() -> impl Strategy<Value = PortRange> {
        (1u16.., 1u16..).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)).parse().unwrap())
    }

    proptest! {
        #[test]
        fn no_input_panics(word in "\\PC*") {
            let _ = word.parse::<ForwardSpec>();
        }

        #[test]
        fn nothing_like_a_forward_panics(word in "(tcp|udp|x)?/?[0-9-]{0,7}=?[\\[\\]0-9a-f:.,%-]{0,24}") {
            let _ = word.parse::<ForwardSpec>();
        }

        #[test]
        fn what_is_printed_parses_back(
            ports in any_ports(),
            address in prop_oneof![
                any::<[u8; 4]>().prop_map(IpAddr::from),
                any::<[u8; 16]>().prop_map(IpAddr::from),
            ].prop_filter("unicast", |address| unicast(&address.to_string()).is_ok()),
        ) {
            let forward = Forward {
                service: Service {
                    family: Family::of(address),
                    protocol: Protocol::Sctp,
                    ports,
                },
                destinations: vec![Destination { address, ports }],
            };
            let (back, duplicates) = forward.to_string().parse::<ForwardSpec>().unwrap().by_family();
            prop_assert_eq!(back, vec![forward]);
            prop_assert!(duplicates.is_empty());
        }
    }
}
