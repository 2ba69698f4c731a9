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
    pub output: &'a Interface,
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
        match self.at_hook(chain, packet) {
            Some(packet) => firewall.outcome(chain, &packet),
            None => Ok(Outcome::Passes),
        }
    }

    /// A packet of the forward hook as a chain sees it; `None` if it does not.
    fn at_hook(&self, chain: &BaseChain, packet: &Packet) -> Option<Packet> {
        let packet = packet.clone();
        let on = |interface: &Option<Interface>| {
            let name = interface.as_ref().map(|interface| &interface.name);
            name.is_some_and(|name| chain.devices.contains(name))
        };
        match chain.hook {
            Hook::Ingress if on(&packet.input) => Some(self.before_nat(packet, false)),
            Hook::Egress if on(&packet.output) => Some(self.after_nat(packet)),
            Hook::Prerouting if chain.priority < libc::NF_IP_PRI_NAT_DST => {
                let tracked = chain.priority > libc::NF_IP_PRI_CONNTRACK;
                Some(self.before_nat(packet, tracked))
            }
            Hook::Prerouting => Some(Packet {
                output: None,
                ..packet
            }),
            Hook::Forward => Some(packet),
            Hook::Postrouting if chain.priority > libc::NF_IP_PRI_NAT_SRC => {
                Some(self.after_nat(packet))
            }
            Hook::Postrouting => Some(Packet {
                input: None,
                ..packet
            }),
            Hook::Ingress | Hook::Egress | Hook::Input | Hook::Output => None,
        }
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
            source: None,
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
            to_this_host: Some(false),
            original_port: port,
            ..Packet::first(forward.service.family, forward.service.protocol)
        };
        if reply {
            Packet {
                reply,
                input: Some(self.output.clone()),
                output: self.input.cloned(),
                source: address,
                source_port: backend_port,
                destination_port: Some(CLIENT_PORT),
                ..packet
            }
        } else {
            Packet {
                input: self.input.cloned(),
                output: Some(self.output.clone()),
                destination: address,
                source_port: Some(CLIENT_PORT),
                destination_port: backend_port,
                ..packet
            }
        }
    }
}
