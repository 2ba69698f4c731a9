//! Matches and targets of iptables, which iptables-nft gives the kernel as they are where nftables has
//! nothing of the kind. What they hold are the structures of linux/netfilter/xt_*.h, in host byte
//! order; the constants in the functions below say where these have their fields.

use super::Tristate;
use super::action::Action;
use super::packet::Packet;
use crate::config::Protocol;
use crate::netlink::Attributes;
use crate::uapi::*;

/// What a target does; `None` if the packet goes on to the next rule.
pub fn target(data: Attributes<'_>) -> Option<Action> {
    match data.text(NFTA_TARGET_NAME)? {
        "DNAT" | "REDIRECT" | "NETMAP" | "SNAT" | "MASQUERADE" => Some(Action::Translate),
        "REJECT" => Some(Action::End),
        "NFQUEUE" => Some(Action::Unknown),
        "NOTRACK" => Some(Action::End),
        // Flags and zone come first in all revisions of struct xt_ct_target_info.
        "CT" => {
            let info = Info(data.get(NFTA_TARGET_INFO).unwrap_or_default());
            let (flags, zone) = (info.u16(0)?, info.u16(2)?);
            if flags & XT_CT_NOTRACK != 0 {
                return Some(Action::End);
            }
            // Conntrack knows no connections of other zones there.
            (zone != 0 || flags & XT_CT_ZONE_MARK != 0).then_some(Action::NotFollowed)
        }
        name if HARMLESS.contains(&name) => None,
        _ => Some(Action::NotFollowed),
    }
}

/// Targets that mark, count or log a packet, or change what decides nothing here.
const HARMLESS: [&str; 22] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "DSCP",
    "ECN",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "RATEEST",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TRACE",
    "ULOG",
];

/// Whether a match matches this packet.
pub fn matches(data: Attributes<'_>, packet: &Packet) -> Tristate {
    let revision = data.u32(NFTA_MATCH_REV).unwrap_or(0);
    let info = Info(data.get(NFTA_MATCH_INFO).unwrap_or_default());
    let matches = match (data.text(NFTA_MATCH_NAME).unwrap_or_default(), revision) {
        ("comment", _) => Some(Tristate::Yes),
        ("tcp", 0) => tcp(info, packet),
        ("udp", 0) => udp(info, packet),
        ("multiport", 1) => multiport(info, packet),
        ("conntrack", 3) if packet.tracked => conntrack(info, packet),
        ("addrtype", 1) => address_type(info, packet),
        // Headers that the packet does not have: without them they do not match, inverted or not.
        ("ah" | "dst" | "esp" | "frag" | "hbh" | "mh" | "rt", _) => Some(Tristate::No),
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
    const OPTION: usize = 8;
    const FLG_MASK: usize = 9;
    const FLG_CMP: usize = 10;
    const INVFLAGS: usize = 11;
    let invert = info.byte(INVFLAGS)?;
    let ports = ports(info, packet, invert)?;
    let (mask, wanted) = (info.byte(FLG_MASK)?, info.byte(FLG_CMP)?);
    let flags = Tristate::from(packet.tcp_flags() & mask == wanted);
    let flags = inverted(flags, invert & XT_TCP_INV_FLAGS != 0);
    let option = if info.byte(OPTION)? == 0 {
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
    const INVFLAGS: usize = 8;
    let ports = ports(info, packet, info.byte(INVFLAGS)?)?;
    Some(of_protocol(packet, Protocol::Udp).min(ports))
}

fn of_protocol(packet: &Packet, protocol: Protocol) -> Tristate {
    Tristate::from(packet.protocol == protocol)
}

/// A range of source ports and one of destination ports, each inverted by a bit: `struct xt_tcp` and
/// `struct xt_udp` begin with the same fields, and have the same bits for these.
fn ports(info: Info<'_>, packet: &Packet, invert: u8) -> Option<Tristate> {
    const SPTS: usize = 0;
    const DPTS: usize = 4;
    let source = info.holds_port(SPTS, packet.source_port)?;
    let source = inverted(source, invert & XT_TCP_INV_SRCPT != 0);
    let destination = info.holds_port(DPTS, packet.destination_port)?;
    Some(source.min(inverted(destination, invert & XT_TCP_INV_DSTPT != 0)))
}

/// `struct xt_multiport_v1`
fn multiport(info: Info<'_>, packet: &Packet) -> Option<Tristate> {
    const FLAGS: usize = 0;
    const COUNT: usize = 1;
    const PORTS: usize = 2;
    /// Not 0 for the first port of a range.
    const PFLAGS: usize = 32;
    const INVERT: usize = 47;
    let (source, destination) = (packet.source_port, packet.destination_port);
    let sides = match info.byte(FLAGS)? {
        XT_MULTIPORT_SOURCE => vec![source],
        XT_MULTIPORT_DESTINATION => vec![destination],
        _ => vec![source, destination],
    };
    let port = |index: usize| info.u16(PORTS + 2 * index);
    let mut found = Tristate::No;
    let mut index = 0;
    while index < XT_MULTI_PORTS.min(info.byte(COUNT)?.into()) {
        let first = port(index)?;
        let mut last = first;
        if info.byte(PFLAGS + index)? != 0 {
            index += 1;
            last = port(index)?;
        }
        index += 1;
        let sides = sides.iter().map(|side| port_within(*side, first, last));
        found = sides.fold(found, Tristate::max);
    }
    Some(inverted(found, info.byte(INVERT)? != 0))
}

/// `struct xt_conntrack_mtinfo3`
fn conntrack(info: Info<'_>, packet: &Packet) -> Option<Tristate> {
    const L4PROTO: usize = 136;
    const ORIGDST_PORT: usize = 140;
    const MATCH_FLAGS: usize = 146;
    const INVERT_FLAGS: usize = 148;
    const STATE_MASK: usize = 150;
    const STATUS_MASK: usize = 152;
    const ORIGDST_PORT_HIGH: usize = 156;
    let (asked, invert) = (info.u16(MATCH_FLAGS)?, info.u16(INVERT_FLAGS)?);
    let mut state = packet.state() as u16;
    if packet.translated {
        state |= XT_CONNTRACK_STATE_DNAT;
    }
    let state = info.u16(STATE_MASK)? & state != 0;
    let status = u32::from(info.u16(STATUS_MASK)?) & packet.status() != 0;
    let (first, last) = (info.u16(ORIGDST_PORT)?, info.u16(ORIGDST_PORT_HIGH)?);
    let port = port_within(packet.original_port, first, last);
    let protocol = info.u16(L4PROTO)? == u16::from(packet.protocol.number());
    let parts = [
        (XT_CONNTRACK_STATE, state.into()),
        (XT_CONNTRACK_PROTO, protocol.into()),
        (XT_CONNTRACK_STATUS, status.into()),
        (XT_CONNTRACK_ORIGDST_PORT, port),
        (XT_CONNTRACK_DIRECTION, (!packet.reply).into()),
    ];
    let mut matches = Tristate::Yes;
    let mut understood = XT_CONNTRACK_STATE_ALIAS;
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
    const SOURCE: usize = 0;
    const DEST: usize = 2;
    const FLAGS: usize = 4;
    const LIMITS: u32 = XT_ADDRTYPE_LIMIT_IFACE_IN | XT_ADDRTYPE_LIMIT_IFACE_OUT;
    let (source, wanted, flags) = (info.u16(SOURCE)?, info.u16(DEST)?, info.u32(FLAGS)?);
    let kind = match packet.to_this_host {
        Some(true) => XT_ADDRTYPE_LOCAL,
        Some(false) => XT_ADDRTYPE_UNICAST,
        None => return None,
    };
    let invert = flags & XT_ADDRTYPE_INVERT_DEST != 0;
    let destination = match wanted {
        0 => Tristate::Yes,
        wanted => inverted((wanted & kind != 0).into(), invert),
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
