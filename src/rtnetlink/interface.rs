//! Network interfaces, and what they are a part of.

use crate::config::Family;
use crate::netlink::{Attributes, Message};
use crate::uapi::*;
use nix::libc;

/// Length in bytes of `struct ifinfomsg` (linux/rtnetlink.h).
pub const IFINFOMSG: usize = 16;
const IFI_TYPE: usize = 2;
/// Where it has the interface's index.
pub const IFI_INDEX: usize = 4;

/// The link types of tunnels (linux/if_arp.h): WireGuard and tun have none.
const TUNNELS: [u16; 7] = [
    libc::ARPHRD_NONE,
    libc::ARPHRD_PPP,
    libc::ARPHRD_TUNNEL,
    libc::ARPHRD_TUNNEL6,
    libc::ARPHRD_SIT,
    libc::ARPHRD_IPGRE,
    ARPHRD_IP6GRE,
];

/// A network interface, as it was when it was looked up: it can be renamed or deleted since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// Whether IPv4 packets that come in on it are forwarded.
    pub forwards_ipv4: bool,
    /// Whether what it sends goes through a tunnel, or over a point-to-point link.
    pub is_tunnel: bool,
    /// Whether it is there to have addresses, and no packet comes in on it.
    pub holds_addresses_only: bool,
    pub mtu: u32,
    /// Whether it is a bridge; if so, for which families netfilter sees its frames, whatever the sysctls of
    /// all bridges say.
    pub bridge: Option<Vec<Family>>,
    pub is_vrf: bool,
    /// What it is a part of.
    pub part_of: Option<PartOf>,
    /// What is under it.
    pub lower: Lower,
}

/// The interfaces under another one, which its packets pass too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lower {
    None,
    /// Those that are a part of it, as of a bridge or a bond.
    Parts,
    /// The one with this index, as of a VLAN.
    One(u32),
}

impl Lower {
    fn of(kind: &str, link: Option<u32>) -> Self {
        match (kind, link) {
            ("bridge" | "bond" | "team", _) => Lower::Parts,
            ("vlan" | "macvlan" | "ipvlan", Some(link)) => Lower::One(link),
            _ => Lower::None,
        }
    }
}

/// What an interface is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartOf {
    /// The index of that interface.
    pub index: u32,
    pub kind: Whole,
}

/// What an interface can be a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// A VRF, which has routes of its own.
    Vrf,
    Bridge {
        /// Whether the bridge sends frames out of the port that they come in on.
        hairpin: bool,
    },
    /// A bond, for example.
    Other,
}

impl Interface {
    /// The VRF that it is in.
    pub fn vrf(&self) -> Option<u32> {
        let part_of = self.part_of.filter(|whole| whole.kind == Whole::Vrf);
        part_of.map(|vrf| vrf.index)
    }

    /// Whether a bridge that it is a port of sends frames out of it that come in on it.
    pub fn sends_back(&self) -> bool {
        let whole = self.part_of.map(|part_of| part_of.kind);
        whole == Some(Whole::Bridge { hairpin: true })
    }

    /// Reads an RTM_NEWLINK.
    pub fn read(message: &Message<'_>) -> Option<Self> {
        let attributes = Attributes(message.payload.get(IFINFOMSG..)?);
        let of_ipv4 = attributes.nested(IFLA_AF_SPEC).nested(libc::AF_INET as u16);
        // 32-bit numbers in host byte order (inet_fill_link_af in net/ipv4/devinet.c).
        let settings = of_ipv4.get(IFLA_INET_CONF).unwrap_or_default();
        let forwarding = settings.chunks_exact(4).nth(IPV4_DEVCONF_FORWARDING - 1);
        let link_type = u16::from_ne_bytes(*message.payload[IFI_TYPE..].first_chunk()?);
        let kind = attributes.nested(IFLA_LINKINFO);
        let name = kind.text(IFLA_INFO_KIND).unwrap_or_default();
        Some(Interface {
            index: u32::from_ne_bytes(*message.payload[IFI_INDEX..].first_chunk()?),
            name: attributes.name(libc::IFLA_IFNAME)?,
            forwards_ipv4: forwarding != Some(&[0; 4]),
            is_tunnel: TUNNELS.contains(&link_type),
            holds_addresses_only: link_type == libc::ARPHRD_LOOPBACK || name == "dummy",
            mtu: number(attributes, IFLA_MTU).unwrap_or(u32::MAX),
            is_vrf: name == "vrf",
            bridge: (name == "bridge").then(|| filtered(kind.nested(IFLA_INFO_DATA))),
            lower: Lower::of(name, number(attributes, IFLA_LINK)),
            part_of: number(attributes, IFLA_MASTER).map(|index| PartOf {
                index,
                kind: whole(kind),
            }),
        })
    }
}

/// The families whose frames netfilter sees on a bridge with these settings.
fn filtered(settings: Attributes<'_>) -> Vec<Family> {
    let of_family = |family: &Family| {
        let attribute = match family {
            Family::Ipv4 => IFLA_BR_NF_CALL_IPTABLES,
            Family::Ipv6 => IFLA_BR_NF_CALL_IP6TABLES,
        };
        settings.get(attribute) == Some(&[1])
    };
    Family::ALL.into_iter().filter(of_family).collect()
}

fn whole(kind: Attributes<'_>) -> Whole {
    match kind.text(IFLA_INFO_SLAVE_KIND) {
        Some("vrf") => Whole::Vrf,
        Some("bridge") => Whole::Bridge {
            hairpin: kind.nested(IFLA_INFO_SLAVE_DATA).get(IFLA_BRPORT_MODE) == Some(&[1]),
        },
        _ => Whole::Other,
    }
}

/// A 32-bit number in host byte order, as rtnetlink has them.
pub fn number(attributes: Attributes<'_>, kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(*attributes.get(kind)?.first_chunk()?))
}
