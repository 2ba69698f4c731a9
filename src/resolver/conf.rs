//! /etc/resolv.conf (resolv.conf(5)): which servers are asked, how long, and for which names.

use crate::config::{HostName, InterfaceName};
use crate::rtnetlink::Routes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// Where it is.
pub const PATH: &str = "/etc/resolv.conf";

/// As many servers as the C library asks (MAXNS in resolv.h), and more domains than anybody searches.
const MAX_SERVERS: usize = 3;
const MAX_DOMAINS: usize = 32;

/// The highest values of options (RES_MAXNDOTS and others in resolv.h).
const MAX_DOTS: usize = 15;
const MAX_TIMEOUT: u64 = 30;
const MAX_ATTEMPTS: usize = 5;

const PORT: u16 = 53;

/// As long as a name and its labels may be (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub struct Conf {
    /// At least one.
    pub servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with fewer dots is looked up in the domains first.
    dots: usize,
    /// How long a server has for an answer.
    pub timeout: Duration,
    /// How often the servers are asked.
    pub attempts: usize,
}

impl Conf {
    /// Reads the file's text. What it does not know it ignores, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut conf = Conf {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            // A comment begins the line.
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                Some("domain" | "search") => {
                    let domains = words.map(|domain| domain.trim_matches('.'));
                    let domains = domains.filter(|domain| !domain.is_empty());
                    conf.search = domains.take(MAX_DOMAINS).map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|option| conf.set(option)),
                _ => {}
            }
        }
        conf.servers.truncate(MAX_SERVERS);
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        conf
    }

    fn set(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u32>() else {
            return;
        };
        match name {
            "ndots" => self.dots = MAX_DOTS.min(value as usize),
            "timeout" => self.timeout = Duration::from_secs(u64::from(value).clamp(1, MAX_TIMEOUT)),
            "attempts" => self.attempts = (value as usize).clamp(1, MAX_ATTEMPTS),
            _ => {}
        }
    }

    /// The names that are asked for in turn until one has an address: of those that the domains make, only such as
    /// can be asked for.
    pub fn candidates(&self, name: &HostName) -> Vec<String> {
        let word = name.as_str();
        if name.is_absolute() {
            return vec![word.to_owned()];
        }
        let in_domain = |domain: &String| format!("{word}.{domain}");
        let searched = self.search.iter().map(in_domain);
        let mut candidates: Vec<String> = searched.filter(|name| fits(name)).collect();
        let is_long = word.matches('.').count() >= self.dots;
        let place = if is_long { 0 } else { candidates.len() };
        candidates.insert(place, word.to_owned());
        candidates
    }
}

/// Whether DNS has room for a name and its labels.
fn fits(name: &str) -> bool {
    let has_room = |label: &str| (1..=MAX_LABEL).contains(&label.len());
    name.len() <= MAX_NAME && name.split('.').all(has_room)
}

/// `10.0.0.1`, `fd00::1`, `fe80::1%eth0`
fn server(word: &str) -> Option<SocketAddr> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some((address, PORT).into());
    }
    let (address, scope) = word.split_once('%')?;
    let scope = scope.parse().ok().or_else(|| index_of(scope))?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

/// The index of an interface.
fn index_of(name: &str) -> Option<u32> {
    let name: InterfaceName = name.parse().ok()?;
    Routes::open().ok()?.index_of(&name).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn candidates(conf: &Conf, word: &str) -> Vec<String> {
        match Host::read(word) {
            Ok(Host::Name(name)) => conf.candidates(&name),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn servers_and_options_as_the_c_library_reads_them() {
        let conf = Conf::parse(
            "# comment\n; too\nnameserver 10.9.0.53 # inside\nnameserver nonsense\nnameserver fd00::53\n\
             nameserver fe80::1%lo\nnameserver 10.9.0.54\noptions timeout:2 rotate attempts:99 ndots:x\noptions timeout:0\n",
        );
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.9.0.53:53", "[fd00::53]:53", "[fe80::1%1]:53"]);
        assert_eq!(conf.timeout, Duration::from_secs(1));
        assert_eq!((conf.attempts, conf.dots), (5, 1));
        let none = Conf::parse("nameserver x\n");
        assert_eq!(none.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!((none.attempts, none.timeout), (2, Duration::from_secs(5)));
    }

    #[test]
    fn names_with_few_dots_are_searched_first() {
        let conf =
            Conf::parse("domain old.example\nsearch a.example b.example.\noptions ndots:2\n");
        assert_eq!(
            candidates(&conf, "db.web"),
            ["db.web.a.example", "db.web.b.example", "db.web"]
        );
        assert_eq!(
            candidates(&conf, "a.b.c"),
            ["a.b.c", "a.b.c.a.example", "a.b.c.b.example"]
        );
        assert_eq!(candidates(&conf, "db."), ["db"]);
        // A wrong domain, and one that makes the name too long.
        let [label, domain] = [63, 64].map(|length| "a".repeat(length));
        let long = [label.as_str(); 4].join(".");
        let conf = Conf::parse(&format!(
            "search a..b {domain} {} {} a.example\n",
            &long[..251],
            &long[..250]
        ));
        let longest = format!("db.{}", &long[..250]);
        assert_eq!(candidates(&conf, "db"), [&longest, "db.a.example", "db"]);
        assert_eq!(candidates(&Conf::parse(""), "db"), ["db"]);
    }
}
