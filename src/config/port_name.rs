//! Names of services, in the place of ports: as this host has them in /etc/services (services(5)).

use super::Protocol;
use std::collections::HashMap;
use std::{fs, sync::LazyLock};

/// The services of each name and alias, read once: a command line may name thousands.
type Services<'a> = HashMap<&'a str, Vec<(u16, Protocol)>>;

static TEXT: LazyLock<String> =
    LazyLock::new(|| fs::read_to_string("/etc/services").unwrap_or_default());
static SERVICES: LazyLock<Services<'static>> = LazyLock::new(|| services(&TEXT));

/// The port that a service has with these protocols. `None` if this host knows no such service, or if the
/// protocols have different ports.
pub fn look_up(name: &str, protocols: &[Protocol]) -> Option<u16> {
    port_in(&SERVICES, name, protocols)
}

fn port_in(services: &Services<'_>, name: &str, protocols: &[Protocol]) -> Option<u16> {
    let services = services.get(name)?.iter();
    let mut ports: Vec<u16> = services
        .filter(|(_, protocol)| protocols.contains(protocol))
        .map(|(port, _)| *port)
        .collect();
    ports.dedup();
    match ports[..] {
        [port] => Some(port),
        _ => None,
    }
}

fn services(text: &str) -> Services<'_> {
    let mut services = Services::new();
    for (names, service) in text.lines().filter_map(entry) {
        for name in names {
            services.entry(name).or_default().push(service);
        }
    }
    services
}

/// The names in a line, and what they stand for: `https 443/tcp alias # comment`.
fn entry(line: &str) -> Option<(Vec<&str>, (u16, Protocol))> {
    let (line, _) = line.split_once('#').unwrap_or((line, ""));
    let mut words = line.split_ascii_whitespace();
    let (name, service) = (words.next()?, words.next()?);
    let (port, protocol) = service.split_once('/')?;
    let names = [name].into_iter().chain(words).collect();
    Some((names, (port.parse().ok()?, protocol.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_have_the_port_of_their_protocol() {
        let text = "\
# comment
http\t\t80/tcp\t\twww\t\t# WorldWideWeb
domain\t53/tcp
domain\t53/udp
syslog\t514/udp
shell\t514/tcp cmd syslog-conn
odd 1/tcp
odd 2/udp
bad x/tcp
";
        let services = services(text);
        let port = |name, protocols: &[Protocol]| port_in(&services, name, protocols);
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        assert_eq!(port("http", &[tcp]), Some(80));
        assert_eq!(port("www", &[tcp, udp]), Some(80));
        assert_eq!(port("domain", &[tcp, udp]), Some(53));
        assert_eq!(port("syslog", &[tcp]), None);
        assert_eq!(port("odd", &[udp]), Some(2));
        assert_eq!(port("odd", &[tcp, udp]), None);
        for name in ["bad", "WorldWideWeb", "comment", ""] {
            assert_eq!(port(name, &[tcp]), None, "{name}");
        }
    }
}
