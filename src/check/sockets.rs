//! Sockets of this host that listen on forwarded ports.

use super::{Finding, Level};
use crate::config::{Config, Destination, Family, Forward, Listen, Protocol, Service};
use crate::process;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A socket that accepts connections, or datagrams from any source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    protocol: Protocol,
    address: SocketAddr,
    inode: String,
}

/// The sockets of the protocols that are forwarded (proc_pid_net(5)).
pub fn bound(config: &Config) -> Vec<Bound> {
    let mut sockets = Vec::new();
    // Listening sockets come first in the list of TCP's, which may be long.
    for (protocol, name, state, others_follow) in [
        (Protocol::Tcp, "tcp", "0A", true),
        (Protocol::Udp, "udp", "07", false),
    ] {
        if !config
            .forwards
            .iter()
            .any(|forward| forward.service.protocol == protocol)
        {
            continue;
        }
        for file in [name.to_owned(), format!("{name}6")] {
            let Ok(file) = File::open(format!("/proc/thread-self/net/{file}")) else {
                continue;
            };
            for line in BufReader::new(file).lines().map_while(Result::ok).skip(1) {
                match socket(protocol, &line, state) {
                    Some(socket) => sockets.push(socket),
                    None if others_follow => break,
                    None => {}
                }
            }
        }
    }
    sockets
}

/// `None` for a socket in another state.
fn socket(protocol: Protocol, line: &str, wanted: &str) -> Option<Bound> {
    // sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode
    let mut columns = line.split_ascii_whitespace().skip(1);
    let address = socket_address(columns.next()?)?;
    let state = columns.nth(1)?;
    (state == wanted).then_some(())?;
    Some(Bound {
        protocol,
        address,
        inode: columns.nth(5)?.to_owned(),
    })
}

/// `0100007F:0050`: words of 4 bytes in host byte order, and the port as a number.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let octet = |index: usize| u8::from_str_radix(address.get(index * 2..index * 2 + 2)?, 16).ok();
    let octets: Vec<u8> = (0..address.len() / 2).map(octet).collect::<Option<_>>()?;
    let mut bytes = Vec::new();
    for word in octets.chunks_exact(4) {
        let number = u32::from_be_bytes(*word.first_chunk()?);
        bytes.extend(number.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// Whether a socket receives what is sent to a destination on this host; `None` if that is not known.
pub fn listens(sockets: &[Bound], protocol: Protocol, to: &Destination) -> Option<bool> {
    let receives = |socket: &Bound| {
        let Bound { address, .. } = socket;
        let here = address.ip().to_canonical() == to.address
            || is_open_to(socket, sockets, Family::of(to.address));
        socket.protocol == protocol && to.ports.contains(address.port()) && here
    };
    (protocol != Protocol::Sctp).then(|| sockets.iter().any(receives))
}

/// Whether a socket is bound to all addresses of a family. One bound to all IPv6 addresses receives IPv4
/// too, unless another socket is bound for that.
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
        Family::Ipv4 => !has_ipv4(),
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
    match process::holder(&socket.inode, None) {
        None => "a process that cannot be seen from here".into(),
        Some(pid) => match process::name(pid) {
            Some(name) => format!("process {pid} ({})", name.escape_debug()),
            None => format!("process {pid}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENING: &str = "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0";
    const CONNECTED: &str = "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0000000000000000 20 4 30 10 -1";
    const DATAGRAMS: &str = "  68: 0000000000000000FFFF00000100007F:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4244 2 0000000000000000 0";

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_read_back() {
        let listening = socket(Protocol::Tcp, LISTENING, "0A").unwrap();
        assert_eq!(listening.address.to_string(), "0.0.0.0:80");
        assert_eq!(listening.inode, "4242");
        assert_eq!(socket(Protocol::Tcp, CONNECTED, "0A"), None);
        let datagrams = socket(Protocol::Udp, DATAGRAMS, "07").unwrap();
        assert_eq!(datagrams.address.to_string(), "[::ffff:127.0.0.1]:53");
        assert_eq!(
            socket_address("0100007F:1F90").unwrap().to_string(),
            "127.0.0.1:8080"
        );
        for wrong in [
            "",
            ":",
            "0100007F",
            "01007F:0050",
            "0100007F:x",
            "0é00007F:0050",
        ] {
            assert_eq!(socket_address(wrong), None, "{wrong}");
        }
    }
}
