//! Matches and targets of iptables, which iptables-nft gives the kernel as they are where nftables has
//! nothing of the kind. What they hold are the structures of linux/netfilter/xt_*.h, in host byte
//! order.

use super::Tristate;
use super::action::Action;
use super::packet::Packet;
use crate::config::Protocol;
use crate::netlink::Attributes;
use crate::uapi::{NFTA_MATCH_INFO, NFTA_MATCH_NAME, NFTA_MATCH_REV, NFTA_TARGET_NAME};

/// What a target does; `None` if the packet goes on to the next rule.
pub fn target(data: Attributes<'_>) -> Option<Action> {
    match data.text(NFTA_TARGET_NAME)? {
        "DNAT" | "REDIRECT" | "NETMAP" | "REJECT" => Some(Action::End),
        "NFQUEUE" => Some(Action::Unknown),
        _ => None,
    }
}

/// Whether a match matches this packet.
pub fn matches(data: Attributes<'_>, packet: &Packet) -> Tristate {
    let revision = data.u32(NFTA_MATCH_REV).unwrap_or(0);
    let info = Info(data.get(NFTA_MATCH_INFO).unwrap_or_default());
    let matches = match (data.text(NFTA_MATCH_NAME).unwrap_or_default(), revision) {
        ("comment", _) => Some(Tristate::Yes),
        ("tcp", 0) => tcp(info, packet),
        ("udp", 0) => udp(info, packet),
        ("multiport", 1) => multiport(info, packet),
        ("conntrack", 3) => conntrack(info, packet),
        ("addrtype", 1) => address_type(info, packet),
        _ => None,
    };
    matches.unwrap_or(Tristate::Maybe)
}

#[derive(Clone, Copy)]
struct Info<'a>(&'a [u8]);

impl Info<'_> {
    fn byte(self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    fn u16(self, offset: usize) -> Option<u16> {
        let bytes = self.0.get(offset..)?.first_chunk().copied()?;
        Some(u16::from_ne_bytes(bytes))
    }

    fn u32(self, offset: usize) -> Option<u32> {
        let bytes = self.0.get(offset..)?.first_chunk().copied()?;
        Some(u32::from_ne_bytes(bytes))
    }

    /// Whether a port lies between the two here.
    fn holds_port(self, offset: usize, port: Option<u16>) -> Option<Tristate> {
        Some(port_within(port, self.u16(offset)?, self.u16(offset + 2)?))
    }
}

fn port_within(port: Option<u16>, first: u16, last: u16) -> Tristate {
    match port {
        _ if (first, last) == (0, u16::MAX) => Tristate::Yes,
        Some(port) => (first..=last).contains(&port).into(),
        None => Tristate::Maybe,
    }
}

fn inverted(matches: Tristate, invert: bool) -> Tristate {
    if invert { matches.not() } else { matches }
}

/// `struct xt_tcp`; a match of TCP itself is not part of it.
fn tcp(info: Info<'_>, packet: &Packet) -> Option<Tristate> {
    let ports = ports(info, packet, info.byte(11)?)?;
    let (mask, wanted) = (info.byte(9)?, info.byte(10)?);
    let flags = Tristate::from(packet.tcp_flags() & mask == wanted);
    let flags = inverted(flags, info.byte(11)? & 4 != 0);
    let option = if info.byte(8)? == 0 {
        Tristate::Yes
    } else {
        Tristate::Maybe
    };
    Some(
        of_protocol(packet, Protocol::Tcp)
            .min(ports)
            .min(flags)
            .min(option),
    )
}

/// `struct xt_udp`
fn udp(info: Info<'_>, packet: &Packet) -> Option<Tristate> {
    let ports = ports(info, packet, info.byte(8)?)?;
    Some(of_protocol(packet, Protocol::Udp).min(ports))
}

fn of_protocol(packet: &Packet, protocol: Protocol) -> Tristate {
    Tristate::from(packet.protocol == protocol)
}

/// A range of source ports and one of destination ports, each inverted by a bit.
fn ports(info: Info<'_>, packet: &Packet, invert: u8) -> Option<Tristate> {
    let source = info.holds_port(0, packet.source_port)?;
    let destination = info.holds_port(4, packet.destination_port)?;
    Some(inverted(source, invert & 1 != 0).min(inverted(destination, invert & 2 != 0)))
}

/// `struct xt_multiport_v1`
fn multiport(info: Info<'_>, packet: &Packet) -> Option<Tristate> {
    const PORTS: usize = 15;
    const FIRST_OF_RANGE: usize = 32;
    const INVERT: usize = 47;
    let (source, destination) = (packet.source_port, packet.destination_port);
    let sides = match info.byte(0)? {
        0 => vec![source],
        1 => vec![destination],
        _ => vec![source, destination],
    };
    let mut found = Tristate::No;
    let mut index = 0;
    while index < PORTS.min(info.byte(1)?.into()) {
        let first = info.u16(2 + 2 * index)?;
        let mut last = first;
        if info.byte(FIRST_OF_RANGE + index)? != 0 {
            index += 1;
            last = info.u16(2 + 2 * index)?;
        }
        index += 1;
        let sides = sides.iter().map(|side| port_within(*side, first, last));
        found = sides.fold(found, Tristate::max);
    }
    Some(inverted(found, info.byte(INVERT)? != 0))
}

/// `struct xt_conntrack_mtinfo3`
fn conntrack(info: Info<'_>, packet: &Packet) -> Option<Tristate> {
    const STATE: u16 = 1 << 0;
    const PROTOCOL: u16 = 1 << 1;
    const STATUS: u16 = 1 << 6;
    const ORIGINAL_PORT: u16 = 1 << 9;
    const DIRECTION: u16 = 1 << 12;
    const STATE_ALIAS: u16 = 1 << 13;
    /// XT_CONNTRACK_STATE_DNAT
    const TRANSLATED: u16 = 1 << 7;
    let (asked, invert) = (info.u16(146)?, info.u16(148)?);
    let mut state = packet.state() as u16;
    if packet.translated {
        state |= TRANSLATED;
    }
    let port = port_within(packet.original_port, info.u16(140)?, info.u16(156)?);
    let protocol = info.u16(136)? == u16::from(packet.protocol.number());
    let parts = [
        (STATE, Tristate::from(info.u16(150)? & state != 0)),
        (PROTOCOL, protocol.into()),
        (
            STATUS,
            Tristate::from(u32::from(info.u16(152)?) & packet.status() != 0),
        ),
        (ORIGINAL_PORT, port),
        (DIRECTION, Tristate::from(!packet.reply)),
    ];
    let mut matches = Tristate::Yes;
    let mut understood = STATE_ALIAS;
    for (part, found) in parts {
        understood |= part;
        if asked & part != 0 {
            matches = matches.min(inverted(found, invert & part != 0));
        }
    }
    match asked & !understood {
        0 => Some(matches),
        _ => Some(matches.min(Tristate::Maybe)),
    }
}

/// `struct xt_addrtype_info_v1`
fn address_type(info: Info<'_>, packet: &Packet) -> Option<Tristate> {
    const INVERT_DESTINATION: u32 = 1 << 1;
    const LIMITS: u32 = 1 << 2 | 1 << 3;
    const UNICAST: u16 = 1 << 1;
    const LOCAL: u16 = 1 << 2;
    let (source, wanted, flags) = (info.u16(0)?, info.u16(2)?, info.u32(4)?);
    let kind = match packet.to_this_host {
        Some(true) => LOCAL,
        Some(false) => UNICAST,
        None => return None,
    };
    let destination = match wanted {
        0 => Tristate::Yes,
        wanted => inverted((wanted & kind != 0).into(), flags & INVERT_DESTINATION != 0),
    };
    let understood = source == 0 && flags & LIMITS == 0;
    Some(destination.min(if understood {
        Tristate::Yes
    } else {
        Tristate::Maybe
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Family;

    fn packet(protocol: Protocol, port: u16) -> Packet {
        Packet {
            destination_port: Some(port),
            ..Packet::first(Family::Ipv4, protocol)
        }
    }

    fn ranges(source: [u16; 2], destination: [u16; 2]) -> Vec<u8> {
        let ports = source.into_iter().chain(destination);
        ports.flat_map(u16::to_ne_bytes).collect()
    }

    /// iptables before 1.8.8 writes these; later ones have nftables' own.
    #[test]
    fn ports_of_tcp_and_udp() {
        const ALL: [u16; 2] = [0, u16::MAX];
        let tcp_with = |ports: [u16; 2], rest: [u8; 4], port| {
            let info = [ranges(ALL, ports), rest.to_vec()].concat();
            tcp(Info(&info), &packet(Protocol::Tcp, port))
        };
        assert_eq!(tcp_with([80, 90], [0; 4], 85), Some(Tristate::Yes));
        assert_eq!(tcp_with([80, 90], [0; 4], 91), Some(Tristate::No));
        assert_eq!(tcp_with([80, 90], [0, 0, 0, 2], 91), Some(Tristate::Yes));
        // --syn, and not.
        assert_eq!(tcp_with(ALL, [0, 0x17, 0x02, 0], 1), Some(Tristate::Yes));
        assert_eq!(tcp_with(ALL, [0, 0x17, 0x02, 4], 1), Some(Tristate::No));
        assert_eq!(tcp_with(ALL, [8, 0, 0, 0], 1), Some(Tristate::Maybe));

        let from_privileged = [ranges([1, 1023], ALL), vec![0]].concat();
        let udp_with = |info: &[u8], protocol| udp(Info(info), &packet(protocol, 53));
        assert_eq!(
            udp_with(&from_privileged, Protocol::Udp),
            Some(Tristate::Maybe)
        );
        assert_eq!(
            udp_with(&from_privileged, Protocol::Tcp),
            Some(Tristate::No)
        );
        assert_eq!(udp_with(&from_privileged[..8], Protocol::Udp), None);
    }
}
