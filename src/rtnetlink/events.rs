//! What the kernel tells of changes to this host, so that nobody needs to look again and again: forwarding
//! that is switched off or on, new local addresses, and interfaces that come, go, or change.

use super::interface::PartOf;
use super::{Interface, RTM_TYPE, RtnetlinkError};
use crate::config::Family;
use crate::netlink::{Attributes, Message, Overrun, Request, Socket};
use crate::uapi::*;
use nix::libc;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Length in bytes of `struct netconfmsg` (linux/netconf.h) with its padding; its one field is the family.
const NETCONFMSG: usize = 4;

/// What has changed since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Forwarding is off for all packets, or for those that come in on some interface.
    pub forwarding_off: bool,
    /// The same of forwarding that is on.
    pub forwarding_on: bool,
    /// Interfaces have come or gone, have another name, or are a part of another one.
    pub interfaces: bool,
    /// There is an address that packets to this host may have, and may not have had before, or an interface
    /// that they may come in on.
    pub addresses: bool,
}

impl Changes {
    /// What events that were lost may have said.
    const ALL: Changes = Changes {
        forwarding_off: true,
        forwarding_on: true,
        interfaces: true,
        addresses: true,
    };
}

type Names = HashMap<u32, (String, Option<PartOf>)>;

/// Events of forwarding, of local addresses, and of names of interfaces.
pub struct HostEvents {
    socket: Socket,
    /// The names that events have told, and what the interface is a part of, by its index.
    names: RefCell<Names>,
}

impl HostEvents {
    /// Subscribes to them. Needs no privileges.
    pub fn open() -> Result<Self, RtnetlinkError> {
        let groups = [
            libc::RTNLGRP_IPV4_NETCONF,
            libc::RTNLGRP_IPV6_NETCONF,
            // Of addresses there are events too, but those of IPv6 come before packets to the address
            // are taken in (__ipv6_ifa_notify in net/ipv6/addrconf.c).
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_LINK,
        ];
        Ok(HostEvents {
            socket: Socket::subscribe_to_routes(&groups)?,
            names: RefCell::default(),
        })
    }

    /// Reads the events that are queued, or a part of them if they are many.
    pub fn read(&self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        let names = &mut *self.names.borrow_mut();
        let Overrun(lost) = self.socket.events(|message| changes.add(&message, names))?;
        Ok(if lost { Changes::ALL } else { changes })
    }
}

impl AsFd for HostEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Changes {
    /// `names` are those of interfaces, by index, as the events before have told.
    fn add(&mut self, message: &Message<'_>, names: &mut Names) {
        match message.kind {
            libc::RTM_NEWNETCONF => match forwards(message) {
                Some(true) => self.forwarding_on = true,
                Some(false) => self.forwarding_off = true,
                None => {}
            },
            libc::RTM_NEWROUTE => {
                self.addresses |= message.payload.get(RTM_TYPE) == Some(&libc::RTN_LOCAL);
            }
            // Much else of an interface changes, and more often than its name, which it can change while it is
            // up and keeps its addresses.
            libc::RTM_NEWLINK => {
                if let Some(interface) = Interface::read(message) {
                    let Interface { index, name, .. } = interface;
                    let known = names.get(&index);
                    self.addresses |= known.is_none_or(|(known, _)| *known != name);
                    let now = (name, interface.part_of);
                    self.interfaces |= known != Some(&now);
                    names.insert(index, now);
                }
            }
            libc::RTM_DELLINK => {
                let gone = Interface::read(message);
                gone.and_then(|gone| names.remove(&gone.index));
                self.interfaces = true;
            }
            _ => {}
        }
    }
}

/// Asks whether packets of a family are forwarded at all.
pub fn forwarding_request(family: Family) -> Request {
    let mut header = [0; NETCONFMSG];
    header[0] = family.number() as u8;
    Request::with_header(libc::RTM_GETNETCONF, 0, &header, 1)
        .attribute(NETCONFA_IFINDEX, &NETCONFA_IFINDEX_ALL.to_ne_bytes())
}

/// Whether packets are forwarded, if the message says so.
pub fn forwards(message: &Message<'_>) -> Option<bool> {
    let attributes = Attributes(message.payload.get(NETCONFMSG..)?);
    Some(attributes.get(NETCONFA_FORWARDING)? != [0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::any_messages;
    use crate::rtnetlink::interface::IFINFOMSG;

    #[test]
    fn no_message_panics() {
        let add = |message: &Message<'_>| Changes::default().add(message, &mut HashMap::new());
        any_messages(NETCONFMSG, |message| {
            forwards(message);
            add(message);
        });
        any_messages(IFINFOMSG, add);
    }
}
