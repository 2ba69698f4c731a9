//! Names of services, in the place of ports: as this host has them in /etc/services (services(5)).

use super::Protocol;
use std::{fs, sync::LazyLock};

static SERVICES: LazyLock<String> =
    LazyLock::new(|| fs::read_to_string("/etc/services").unwrap_or_default());

/// The port that a service has with these protocols. `None` if this host knows no such service, or if the
/// protocols have different ports.
pub fn look_up(name: &str, protocols: &[Protocol]) -> Option<u16> {
    port_in(&SERVICES, name, protocols)
}

fn port_in(services: &str, name: &str, protocols: &[Protocol]) -> Option<u16> {
    let mut ports: Vec<u16> = services
        .lines()
        .filter_map(|line| entry(line, name))
        .filter(|(_, protocol)| protocols.contains(protocol))
        .map(|(port, _)| port)
        .collect();
    ports.dedup();
    match ports[..] {
        [port] => Some(port),
        _ => None,
    }
}

/// Port and protocol in a line that has this name: `https 443/tcp alias # comment`.
fn entry(line: &str, name: &str) -> Option<(u16, Protocol)> {
    let (line, _) = line.split_once('#').unwrap_or((line, ""));
    let mut words = line.split_ascii_whitespace();
    let (first, service) = (words.next()?, words.next()?);
    let (port, protocol) = service.split_once('/')?;
    let is_named = first == name || words.any(|alias| alias == name);
    let found = (port.parse().ok()?, protocol.parse().ok()?);
    is_named.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_have_the_port_of_their_protocol() {
        let services = "\
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
        let port = |name, protocols: &[Protocol]| port_in(services, name, protocols);
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
