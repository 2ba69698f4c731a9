//! Sockets of this host that listen on forwarded ports.

use super::{Finding, Level};
use crate::config::{Config, Destination, Family, Forward, Listen, Protocol, Service};
use crate::process;
use crate::sock_diag::{self, Bound, SockDiagError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The sockets of the protocols that are forwarded.
pub fn bound(config: &Config) -> Result<Vec<Bound>, SockDiagError> {
    let is_forwarded = |protocol: &Protocol| {
        let mut services = config.forwards.iter().map(|forward| forward.service);
        services.any(|service| service.protocol == *protocol)
    };
    sock_diag::bound(Protocol::ALL.into_iter().filter(is_forwarded))
}

/// Whether a socket receives what is sent to a destination on this host; `None` if that cannot be told,
/// as the kernel has not listed the sockets.
pub fn listens(sockets: Option<&[Bound]>, protocol: Protocol, to: &Destination) -> Option<bool> {
    let sockets = sockets.filter(|_| protocol != Protocol::Sctp)?;
    let receives = |socket: &Bound| {
        let Bound { address, .. } = socket;
        let here = address.ip().to_canonical() == to.address
            || is_open_to(socket, sockets, Family::of(to.address));
        socket.protocol == protocol && to.ports.contains(address.port()) && here
    };
    Some(sockets.iter().any(receives))
}

/// Whether a socket is bound to all addresses of a family. One bound to all IPv6 addresses receives IPv4
/// too, unless it is for IPv6 only or another socket is bound for IPv4.
fn is_open_to(socket: &Bound, sockets: &[Bound], family: Family) -> bool {
    let port = socket.address.port();
    let all = |ip: IpAddr| SocketAddr::new(ip, port);
    let ipv4 = all(Ipv4Addr::UNSPECIFIED.into());
    let has_ipv4 = || {
        let mut others = sockets.iter();
        others.any(|other| other.protocol == socket.protocol && other.address == ipv4)
    };
    match family {
        Family::Ipv4 if socket.address == ipv4 => true,
        Family::Ipv6 | Family::Ipv4 if socket.address != all(Ipv6Addr::UNSPECIFIED.into()) => false,
        Family::Ipv6 => true,
        Family::Ipv4 => !socket.ipv6_only && !has_ipv4(),
    }
}

/// Sockets that clients do not reach any more, since their connections are forwarded.
pub fn findings(config: &Config, sockets: &[Bound]) -> Vec<Finding> {
    const SUBJECT: &str = "sockets";
    let mut findings = Vec::new();
    for socket in sockets {
        let loses = |forward: &&Forward| loses(config, socket, sockets, forward);
        if let Some(forward) = config.forwards.iter().find(loses) {
            let Bound {
                protocol, address, ..
            } = socket;
            let letter = if *protocol == Protocol::Tcp { 't' } else { 'u' };
            let text = format!(
                "{} listens on {protocol} {address}, but what clients send there is forwarded ({}): forward another port, or stop that process (ss -ln{letter}p 'sport = :{}' shows it)",
                holder(socket),
                forward.service,
                address.port()
            );
            findings.push(Finding::new(Level::Warning, SUBJECT, text));
        }
    }
    if findings.is_empty() {
        let text = "none listens on a port that is forwarded";
        findings.push(Finding::new(Level::Ok, SUBJECT, text));
    }
    findings
}

/// Whether a forward takes away what clients send to a socket. They cannot send to a loopback address.
fn loses(config: &Config, socket: &Bound, sockets: &[Bound], forward: &Forward) -> bool {
    let address = socket.address.ip().to_canonical();
    let is_forwarded = match &config.listen {
        Listen::Local | Listen::Any => !address.is_loopback(),
        Listen::Addresses(addresses) => addresses.contains(&address),
    };
    let Service {
        family,
        protocol,
        ports,
    } = forward.service;
    let of_family = Family::of(address) == family && !address.is_unspecified();
    protocol == socket.protocol
        && ports.contains(socket.address.port())
        && config.forwards_family(family)
        && (of_family && is_forwarded || is_open_to(socket, sockets, family))
}

/// `process 812 (nginx)`, if it can be seen from here.
fn holder(socket: &Bound) -> String {
    match process::holder(&socket.inode.to_string(), None) {
        None => "a process that cannot be seen from here".into(),
        Some(pid) => match process::name(pid) {
            Some(name) => format!("process {pid} ({})", name.escape_debug()),
            None => format!("process {pid}"),
        },
    }
}
