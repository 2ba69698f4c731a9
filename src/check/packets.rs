//! The packets of a forward at each hook: its first one and the reply, before and after their addresses are
//! translated.

use super::blocker::over_ports;
use super::surroundings::CLIENT_PORT;
use crate::config::{Config, Destination, Forward, Listen};
use crate::firewall::{Firewall, Outcome, Packet};
use crate::nftables::NftablesError;
use crate::nftables::list::{BaseChain, Hook};
use crate::rtnetlink::Interface;
use nix::libc;
use std::net::IpAddr;

/// The path of a forward's packets through this host.
pub struct Path<'a> {
    pub forward: &'a Forward,
    pub to: &'a Destination,
    pub input: Option<&'a Interface>,
    /// Whether the route back to clients leads out of that.
    pub has_way_back: Option<bool>,
    /// `None` if the destination is this host itself.
    pub output: Option<&'a Interface>,
    /// The client, if only one is followed.
    pub client: Option<IpAddr>,
    pub config: &'a Config,
}

/// The worse of what becomes of the first packet and of its reply, and whether that is the reply's.
pub fn worse(there: Outcome, back: Outcome) -> (Outcome, bool) {
    match (there, back) {
        (there @ Outcome::Ends(_), _) => (there, false),
        (_, back @ Outcome::Ends(_)) | (Outcome::Passes, back) => (back, true),
        (there, _) => (there, false),
    }
}

impl Path<'_> {
    /// What becomes of the forward's packets to this address, or to any.
    pub fn outcome(
        &self,
        firewall: &mut Firewall<'_>,
        chain: &BaseChain,
        to: Option<IpAddr>,
    ) -> Result<(Outcome, bool), NftablesError> {
        let mut of = |reply| {
            over_ports(self.forward.service.ports, |port| {
                self.of(firewall, chain, &self.packet(port, reply, to))
            })
        };
        Ok(worse(of(false)?, of(true)?))
    }

    /// What becomes of a packet in a chain, which it may not come to.
    pub fn of(
        &self,
        firewall: &mut Firewall<'_>,
        chain: &BaseChain,
        packet: &Packet,
    ) -> Result<Outcome, NftablesError> {
        let Some(packet) = self.at_hook(chain, packet) else {
            return Ok(Outcome::Passes);
        };
        let on = if chain.hook == Hook::Egress {
            &packet.output
        } else {
            &packet.input
        };
        // It is not known whether it passes one of the chain's interfaces, or comes to an instance's chain first.
        let unsure = on.is_none() && !chain.devices.is_empty() || self.is_beside_own_nat(chain);
        Ok(match firewall.outcome(chain, &packet)? {
            Outcome::Ends(location) if unsure => Outcome::MayEnd(location),
            outcome => outcome,
        })
    }

    /// A packet as a chain sees it; `None` if it does not come to its hook. What goes to this host itself
    /// leaves the way of forwarded packets after prerouting, and replies begin at the output hook.
    fn at_hook(&self, chain: &BaseChain, packet: &Packet) -> Option<Packet> {
        let packet = packet.clone();
        let to_host = self.output.is_none();
        let on = |interface: &Option<Interface>| {
            let name = interface.as_ref().map(|interface| &interface.name);
            name.is_none_or(|name| chain.has_device(name))
        };
        let began_here = to_host && packet.reply;
        let ends_here = to_host && !packet.reply;
        // Of a connection, chains of type nat see the first packet, until one has translated it.
        let is_seen = !packet.reply && !self.is_after_own_nat(chain);
        match chain.hook {
            _ if chain.is_nat && !is_seen => None,
            Hook::Ingress | Hook::Prerouting if began_here => None,
            Hook::Egress | Hook::Postrouting if ends_here => None,
            Hook::Ingress if on(&packet.input) => Some(self.before_nat(packet, false)),
            Hook::Egress if on(&packet.output) => Some(self.after_nat(packet)),
            Hook::Ingress | Hook::Egress => None,
            Hook::Prerouting if chain.priority < libc::NF_IP_PRI_NAT_DST => {
                let tracked = chain.priority > libc::NF_IP_PRI_CONNTRACK;
                Some(self.before_nat(packet, tracked))
            }
            Hook::Prerouting => Some(Packet {
                output: None,
                ..packet
            }),
            Hook::Input => ends_here.then_some(packet),
            Hook::Forward => (!to_host).then_some(packet),
            Hook::Output => began_here.then_some(packet),
            Hook::Postrouting if chain.priority > libc::NF_IP_PRI_NAT_SRC => {
                Some(self.after_nat(packet))
            }
            Hook::Postrouting => Some(Packet {
                input: None,
                ..packet
            }),
        }
    }

    /// Whether a chain comes after the one in which an instance masquerades.
    fn is_after_own_nat(&self, chain: &BaseChain) -> bool {
        let is_own = self.config.masquerade && chain.hook == Hook::Postrouting;
        is_own && chain.priority > libc::NF_IP_PRI_NAT_SRC
    }

    /// Whether a chain has the same priority, so that the newer of them comes first.
    fn is_beside_own_nat(&self, chain: &BaseChain) -> bool {
        let is_own = self.config.masquerade && chain.hook == Hook::Postrouting;
        is_own && chain.is_nat && chain.priority == libc::NF_IP_PRI_NAT_SRC
    }

    /// Before its destination is translated: to this host, and a reply to it too if it was masqueraded.
    fn before_nat(&self, packet: Packet, tracked: bool) -> Packet {
        let to_this_host = match packet.reply {
            false if self.config.listen == Listen::Any => None,
            false => Some(true),
            true => Some(self.config.masquerade),
        };
        let port = packet.original_port.filter(|_| !packet.reply);
        Packet {
            translated: packet.reply,
            tracked,
            to_this_host,
            output: None,
            destination: None,
            destination_port: port,
            ..packet
        }
    }

    /// After its source is translated: masquerading draws a port, and a reply comes from this host.
    fn after_nat(&self, packet: Packet) -> Packet {
        let keeps = !packet.reply && !self.config.masquerade;
        Packet {
            input: None,
            source: packet.source.filter(|_| keeps),
            source_port: if packet.reply {
                packet.original_port
            } else {
                packet.source_port.filter(|_| keeps)
            },
            ..packet
        }
    }

    /// A packet on this path of which neither address nor port is known.
    pub fn any_packet(&self, reply: bool) -> Packet {
        Packet {
            source_port: None,
            destination_port: None,
            original_port: None,
            ..self.packet(None, reply, None)
        }
    }

    /// A packet of a connection to this port, and to this address of a destination.
    fn packet(&self, port: Option<u16>, reply: bool, address: Option<IpAddr>) -> Packet {
        let Path { forward, to, .. } = self;
        let single = || to.ports.is_single().then(|| to.ports.first());
        let backend_port = port.map(|port| to.backend(forward.service.ports, port).1);
        let backend_port = backend_port.or_else(single);
        let packet = Packet {
            translated: true,
            to_this_host: Some(self.output.is_none() && !reply),
            original_port: port,
            ..Packet::first(forward.service.family, forward.service.protocol)
        };
        if reply {
            Packet {
                reply,
                has_way_back: Some(true),
                input: self.output.cloned(),
                output: self.input.cloned(),
                source: address,
                destination: self.client,
                source_port: backend_port,
                destination_port: Some(CLIENT_PORT),
                ..packet
            }
        } else {
            Packet {
                has_way_back: self.has_way_back,
                input: self.input.cloned(),
                output: self.output.cloned(),
                source: self.client,
                destination: address,
                source_port: Some(CLIENT_PORT),
                destination_port: backend_port,
                ..packet
            }
        }
    }
}
