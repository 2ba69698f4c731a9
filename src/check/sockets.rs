//! Sockets of this host that listen on forwarded ports.

use super::{Finding, Level};
use crate::config::{
    Config, Destination, Family, Forward, Listen, Protocol, Service, is_link_local,
};
use crate::netlink::gives_up;
use crate::process;
use crate::sock_diag::{self, Bound, SockDiagError};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The sockets that wait for clients, by protocol and port. Any number of them may share an address
/// (SO_REUSEPORT in socket(7)): these count as one.
pub struct Sockets(BTreeMap<(Protocol, u16), BTreeMap<Address, Group>>);

/// Where sockets wait: the address, and whether an IPv6 one takes no IPv4.
type Address = (IpAddr, bool);

/// Sockets of one address.
struct Group {
    count: usize,
    /// Of the first one.
    inode: u32,
}

/// How many addresses have a line of their own.
const MAX_LINES: usize = 16;

impl Sockets {
    /// Those of the protocols that are forwarded.
    pub fn read(config: &Config) -> Result<Self, SockDiagError> {
        let is_forwarded = |protocol: &Protocol| {
            let mut services = config.forwards.iter().map(|forward| forward.service);
            services.any(|service| service.protocol == *protocol)
        };
        let bound = sock_diag::bound(Protocol::ALL.into_iter().filter(is_forwarded))?;
        Ok(bound.into_iter().collect())
    }

    /// Whether a socket receives what is sent to a destination on this host.
    fn receives(&self, protocol: Protocol, to: &Destination) -> bool {
        let ports = (protocol, to.ports.first())..=(protocol, to.ports.last());
        self.0.range(ports).any(|(_, port)| {
            let here = |(ip, _): &Address| ip.to_canonical() == to.address;
            port.keys().any(here) || is_open_to(port, Family::of(to.address))
        })
    }
}

impl FromIterator<Bound> for Sockets {
    fn from_iter<I: IntoIterator<Item = Bound>>(sockets: I) -> Self {
        let mut all = Sockets(BTreeMap::new());
        for socket in sockets {
            let port = (socket.protocol, socket.address.port());
            let groups = all.0.entry(port).or_default();
            let inode = socket.inode;
            let address = (socket.address.ip(), socket.ipv6_only);
            let group = groups.entry(address).or_insert(Group { count: 0, inode });
            group.count += 1;
        }
        all
    }
}

/// Whether a socket receives what is sent to a destination on this host; `None` if that cannot be told,
/// as the kernel has not listed the sockets.
pub fn listens(sockets: Option<&Sockets>, protocol: Protocol, to: &Destination) -> Option<bool> {
    let sockets = sockets.filter(|_| protocol != Protocol::Sctp)?;
    Some(sockets.receives(protocol, to))
}

/// Whether one of these sockets of a port is bound to all addresses of a family.
fn is_open_to(port: &BTreeMap<Address, Group>, family: Family) -> bool {
    port.keys().any(|address| opens(port, *address, family))
}

/// Whether the sockets of this address are bound to all addresses of a family. One bound to all IPv6
/// addresses receives IPv4 too, unless it is for IPv6 only or another socket is bound for IPv4.
fn opens(port: &BTreeMap<Address, Group>, (ip, ipv6_only): Address, family: Family) -> bool {
    const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match family {
        Family::Ipv4 if ip == IPV4 => true,
        Family::Ipv6 | Family::Ipv4 if ip != IPV6 => false,
        Family::Ipv6 => true,
        Family::Ipv4 => !ipv6_only && !port.contains_key(&(IPV4, false)),
    }
}

/// Sockets of one address that lose clients.
struct Losing<'a> {
    protocol: Protocol,
    address: SocketAddr,
    group: &'a Group,
    /// What takes their clients.
    service: Service,
    /// Whether they keep those of other addresses.
    partly: bool,
}

/// Sockets that clients do not reach any more, since their connections are forwarded.
pub fn findings(config: &Config, sockets: &Sockets) -> Vec<Finding> {
    let mut losing = Vec::new();
    for ((protocol, number), port) in &sockets.0 {
        for (address, group) in port {
            let losses = Family::ALL.into_iter().filter_map(|family| {
                let service = |forward: &Forward| forward.service;
                let kind = (family, *protocol, *number);
                let index = Service::position(&config.forwards, service, kind)?;
                Some(Losing {
                    protocol: *protocol,
                    address: SocketAddr::new(address.0, *number),
                    group,
                    service: config.forwards.get(index)?.service,
                    partly: loses_some(config, port, *address, family)?,
                })
            });
            losing.extend(losses.min_by_key(|losing| losing.partly));
        }
    }
    losing.sort_by_key(|losing| losing.partly);
    describe(&losing)
}

/// Whether sockets lose only a part of their clients of a family; `None` if they lose none. Clients cannot
/// send to a loopback address.
fn loses_some(
    config: &Config,
    port: &BTreeMap<Address, Group>,
    address: Address,
    family: Family,
) -> Option<bool> {
    if !config.forwards_family(family) {
        return None;
    }
    let ip = address.0.to_canonical();
    let open = opens(port, address, family);
    let of_family = Family::of(ip) == family && !ip.is_unspecified();
    match &config.listen {
        Listen::Local | Listen::Any => (open || of_family && !left_to_host(ip)).then_some(false),
        Listen::Only { .. } if open => Some(true),
        Listen::Only {
            addresses,
            interfaces,
        } => {
            let listed = of_family && addresses.contains(&ip);
            let may_be_reached = of_family && !interfaces.is_empty() && !left_to_host(ip);
            listed.then_some(false).or(may_be_reached.then_some(true))
        }
    }
}

/// Whether clients' packets to this address are not forwarded.
fn left_to_host(ip: IpAddr) -> bool {
    ip.is_loopback() || is_link_local(ip)
}

fn describe(losing: &[Losing<'_>]) -> Vec<Finding> {
    const SUBJECT: &str = "sockets";
    if losing.is_empty() {
        let text = "none listens on a port that is forwarded";
        return vec![Finding::new(Level::Ok, SUBJECT, text)];
    }
    let (shown, others) = losing.split_at(losing.len().min(MAX_LINES));
    let inodes = shown.iter().map(|losing| losing.group.inode).collect();
    let holders = process::holders(&inodes, &|| !gives_up());
    let mut findings: Vec<Finding> = shown.iter().map(|losing| one(losing, &holders)).collect();
    if !others.is_empty() {
        let count: usize = others.iter().map(|losing| losing.group.count).sum();
        let text =
            format!("{count} more on other addresses listen on forwarded ports: see ss -lntu");
        findings.push(Finding::new(Level::Warning, SUBJECT, text));
    }
    findings
}

fn one(losing: &Losing<'_>, holders: &HashMap<u32, u32>) -> Finding {
    let Losing {
        protocol,
        address,
        group,
        service,
        partly,
    } = losing;
    let holder = holder(holders.get(&group.inode).copied());
    let sockets = match group.count {
        1 => String::new(),
        count => format!(" ({count} sockets)"),
    };
    let at = format!("{address}{sockets}");
    let (level, text) = if *partly {
        let rest = "only what clients send to the addresses that are listened on is forwarded";
        (
            Level::Ok,
            format!("{holder} listens on {protocol} {at}: {rest} ({service})"),
        )
    } else {
        let letter = if *protocol == Protocol::Tcp { 't' } else { 'u' };
        let fix = format!(
            "forward another port, or stop that process (ss -ln{letter}p 'sport = :{}' shows it)",
            address.port()
        );
        let text = format!(
            "{holder} listens on {protocol} {at}, but what clients send there is forwarded ({service}): {fix}"
        );
        (Level::Warning, text)
    };
    Finding::new(level, "sockets", text)
}

/// `process 812 (nginx)`, if it can be seen from here.
fn holder(process: Option<u32>) -> String {
    match process {
        None => "a process that cannot be seen from here".into(),
        Some(pid) => match process::name(pid) {
            Some(name) => format!("process {pid} ({name})"),
            None => format!("process {pid}"),
        },
    }
}
