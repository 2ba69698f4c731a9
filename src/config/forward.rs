//! `NODEFWD_FORWARDS` and the positional arguments: what is forwarded where.

use super::WrittenDestination;
use super::address::AddressError;
use super::brackets::{BracketsError, split_port};
use super::options::{OptionName, Options};
use super::port::{LengthError, PortError, PortRange, fits};
use super::protocol::{Protocol, ProtocolError};
use super::setting::{Setting, shown};
use super::value::Boolean;
use super::{ConfigError, Destination, Host, HostName, MAX_MAPPED_PORTS, Service};
use crate::text::split_at;
use std::collections::HashSet;
use std::fmt;
use thiserror::Error;

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

    /// How many destinations its connections are balanced over; none if it has only one.
    pub fn balanced_destinations(&self) -> usize {
        match self.destinations.len() {
            1 => 0,
            balanced => balanced,
        }
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

/// One forward as the user wrote it: destinations of both families and names may stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSpec {
    pub protocol: Protocol,
    pub ports: PortRange,
    /// At least one; duplicates possible.
    pub destinations: Vec<WrittenDestination>,
}

/// Reads the forwards of `NODEFWD_FORWARDS` and of the positional arguments.
pub fn listed(options: &Options) -> Result<Vec<ForwardSpec>, ConfigError> {
    let mut specs = Vec::new();
    for text in &options.forwards {
        let setting = Setting::of(OptionName::FORWARDS, text)?;
        for word in setting.words_between_blanks() {
            let read = ForwardSpec::read(word, &mut specs);
            read.map_err(|error| setting.invalid(word, error))?;
        }
    }
    Ok(specs)
}

impl ForwardSpec {
    /// Leaves each destination in it once, and gives those that were listed more often.
    pub fn take_duplicates(&mut self) -> Vec<WrittenDestination> {
        if self.destinations.len() == 1 {
            return Vec::new();
        }
        let mut seen = HashSet::new();
        let all = self.destinations.drain(..);
        let (once, more) = all.partition(|destination| seen.insert(destination.clone()));
        self.destinations = once;
        more
    }

    /// The names among its destinations.
    pub fn names(&self) -> impl Iterator<Item = &HostName> {
        self.destinations.iter().filter_map(|to| to.host.name())
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
    /// An IPv6 address with a port, but without brackets.
    #[error("has {0}")]
    Brackets(#[from] BracketsError),
    /// Two destination ranges of different length.
    #[error("has '{0}', which {1}")]
    Length(String, LengthError),
    /// More combinations than anybody means.
    #[error(
        "stands for {0} destinations, counted for each protocol and port: at most {MAX_MAPPED_PORTS} are allowed"
    )]
    TooMany(usize),
}

impl ForwardSpec {
    /// Takes `PROTO[,PROTO…]/PORT[-PORT][,PORT…]=DEST[,DEST…]` where DEST is `IP`, `IP:PORT`, `[IP6]:PORT`,
    /// `NAME` or `NAME:PORT`. Adds one forward for each protocol and each of its ports or ranges.
    fn read(word: &str, specs: &mut Vec<Self>) -> Result<(), ForwardError> {
        let shape = || match word.parse() {
            Ok(Boolean(_)) => ForwardError::Boolean,
            Err(_) => ForwardError::Shape,
        };
        let (service, destinations) = split_at(word, b'=').ok_or_else(shape)?;
        let (protocols, ports) = split_at(service, b'/').ok_or(ForwardError::Shape)?;
        let protocol = |word: &str| {
            let protocol = word.parse();
            protocol.map_err(|error| ForwardError::Protocol(shown(word), error))
        };
        let protocols: Vec<Protocol> = list(protocols, protocol)?;
        let ports = list(ports, |word| port_range(word, &protocols))?;
        let backends = list(destinations, |word| Backends::read(word, &protocols))?;
        let count = protocols.len() * ports.len() * backends.len();
        if count > MAX_MAPPED_PORTS {
            return Err(ForwardError::TooMany(count));
        }
        for (index, &protocol) in protocols.iter().enumerate() {
            // Once is enough.
            for &ports in ports
                .iter()
                .filter(|_| !protocols[..index].contains(&protocol))
            {
                let destinations = backends.iter().map(|backends| backends.of(ports));
                specs.push(ForwardSpec {
                    protocol,
                    ports,
                    destinations: destinations.collect::<Result<_, _>>()?,
                });
            }
        }
        Ok(())
    }
}

/// Reads each word of a list.
fn list<T>(
    mut words: &str,
    read: impl Fn(&str) -> Result<T, ForwardError>,
) -> Result<Vec<T>, ForwardError> {
    let mut list = Vec::with_capacity(1);
    while let Some((word, more)) = split_at(words, b',') {
        list.push(read(word)?);
        words = more;
    }
    list.push(read(words)?);
    Ok(list)
}

/// A destination as it is written: without ports, it has those that are forwarded.
struct Backends(Host, Option<PortRange>);

impl Backends {
    fn read(word: &str, protocols: &[Protocol]) -> Result<Self, ForwardError> {
        if word.as_bytes().contains(&b'=') {
            return Err(ForwardError::Joined(shown(word)));
        }
        let (host, ports) = split_port(word)?;
        let host = Host::read(host).map_err(|error| ForwardError::Address(shown(host), error))?;
        let ports = ports.map(|ports| port_range(ports, protocols));
        Ok(Backends(host, ports.transpose()?))
    }

    /// Where these ports go.
    fn of(&self, forwarded: PortRange) -> Result<WrittenDestination, ForwardError> {
        let ports = self.1.unwrap_or(forwarded);
        let fitting = fits(forwarded, ports);
        Ok(WrittenDestination {
            host: self.0.clone(),
            ports: fitting.map_err(|error| ForwardError::Length(ports.to_string(), error))?,
        })
    }
}

fn port_range(word: &str, protocols: &[Protocol]) -> Result<PortRange, ForwardError> {
    PortRange::read(word, protocols).map_err(|error| ForwardError::Port(shown(word), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Family;
    use crate::config::address::unicast;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn read(word: &str) -> Result<Vec<ForwardSpec>, ForwardError> {
        let mut specs = Vec::new();
        ForwardSpec::read(word, &mut specs).map(|()| specs)
    }

    fn parsed(word: &str) -> String {
        let specs = read(word).unwrap().into_iter();
        let forwards = specs.flat_map(|spec| spec.by_family(&[]));
        let words: Vec<String> = forwards.map(|forward| forward.to_string()).collect();
        words.join(" ")
    }

    #[test]
    fn every_form_of_destination() {
        assert_eq!(parsed("tcp/80=10.0.0.5"), "tcp/80=10.0.0.5:80");
        assert_eq!(parsed("UDP/53=fd00::5"), "udp/53=[fd00::5]:53");
        assert_eq!(parsed("tcp/80=[fd00::5]:8080"), "tcp/80=[fd00::5]:8080");
        assert_eq!(parsed("tcp/80=[10.0.0.5]:8080"), "tcp/80=10.0.0.5:8080");
        assert_eq!(parsed("tcp/80=[fd00::5:80]"), "tcp/80=[fd00::5:80]:80");
        for address in [
            "fd00::80",
            "fd00::5:ab",
            "1:2:3:4:5:6:7:80",
            "::80",
            "fd00::5:0",
        ] {
            assert!(read(&format!("tcp/80={address}")).is_ok(), "{address}");
        }
        assert_eq!(parsed("tcp/80-90=10.0.0.5"), "tcp/80-90=10.0.0.5:80-90");
        assert_eq!(parsed("tcp/80-90=10.0.0.5:8"), "tcp/80-90=10.0.0.5:8");
        assert_eq!(
            parsed("tcp/80=10.0.0.5:1,fd00::5,10.0.0.6:2,10.0.0.5:1"),
            "tcp/80=10.0.0.5:1,10.0.0.6:2 tcp/80=[fd00::5]:80"
        );
    }

    #[test]
    fn every_protocol_and_port_of_a_list_is_forwarded() {
        assert_eq!(
            parsed("tcp,udp,tcp/53=10.0.0.5"),
            "tcp/53=10.0.0.5:53 udp/53=10.0.0.5:53"
        );
        assert_eq!(
            parsed("tcp/80,443,8000-8001=10.0.0.5,fd00::5"),
            "tcp/80=10.0.0.5:80 tcp/80=[fd00::5]:80 tcp/443=10.0.0.5:443 tcp/443=[fd00::5]:443 tcp/8000-8001=10.0.0.5:8000-8001 tcp/8000-8001=[fd00::5]:8000-8001"
        );
        assert_eq!(
            parsed("udp/1,2=10.0.0.5:9"),
            "udp/1=10.0.0.5:9 udp/2=10.0.0.5:9"
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
            ("tcp,/80=10.0.0.5", "has '', which is no protocol"),
            ("tcp/80,=10.0.0.5", "has '', which is no port"),
            (
                "tcp/80,90-91=10.0.0.5:1-2",
                "has '1-2', which has 2 ports, but 1 are forwarded",
            ),
            ("tcp/80=10.0.0.5:0", "has '0', which is out of range"),
            (
                "tcp/80=fd00::5:8080",
                "has 'fd00::5:8080', which can be read in two ways: write [fd00::5]:8080, or [fd00::5:8080] for",
            ),
            (
                "tcp/80=10.0.0.5,fd00::1:2:80",
                "has 'fd00::1:2:80', which can be read in two ways: write [fd00::1:2]:80, or [fd00::1:2:80] for",
            ),
            (
                "tcp/80=fd00::5:30080",
                "has 'fd00::5:30080', which has no brackets around the address: write [fd00::5]:30080",
            ),
            (
                "tcp/80-81=fd00::5:8080-8081",
                "has 'fd00::5:8080-8081', which has no brackets around the address: write [fd00::5]:8080-8081",
            ),
            (
                "tcp/80=[fe80::5]:80",
                "has 'fe80::5', which is a link-local address",
            ),
            (
                "tcp/80=fe80::5%eth0",
                "has 'fe80::5%eth0', which has a scope",
            ),
            ("tcp/80=", "has '', which is no IP address"),
            ("tcp/80=10.0.0.5,", "has '', which is no IP address"),
            ("tcp/80=[fd00::5", "has '[fd00::5', which is no IP address"),
            ("tcp/80=[a:80", "has '[a', which is no IP address"),
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
            let error = read(word).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{word}: {error}");
        }
    }

    fn any_ports() -> impl Strategy<Value = PortRange> {
        (1u16.., 1u16..).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)).parse().unwrap())
    }

    proptest! {
        #[test]
        fn no_input_panics(word in "\\PC*") {
            let _ = read(&word);
        }

        #[test]
        fn nothing_like_a_forward_panics(word in "(tcp|udp|x)?/?[0-9-]{0,7}=?[\\[\\]0-9a-f:.,%-]{0,24}") {
            let _ = read(&word);
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
            let mut specs = read(&forward.to_string()).unwrap();
            let mut spec = specs.remove(0);
            prop_assert!(specs.is_empty());
            prop_assert!(spec.by_family(&[]).eq([forward]));
            prop_assert!(spec.take_duplicates().is_empty());
        }
    }
}
