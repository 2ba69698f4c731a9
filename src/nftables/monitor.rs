//! Noticing that another process has changed a table.

use super::{Nftables, NftablesError};
use crate::capability::MissingNetAdmin;
use crate::netlink::{Overrun, Socket};
use crate::uapi::NFTA_TABLE_NAME;
use nix::libc;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Events of changes that other processes make to a table.
pub struct TableEvents {
    socket: Socket,
    table: String,
}

/// Whether another process has changed the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    No,
    Yes,
    /// Events were lost.
    Unknown,
}

impl TableEvents {
    /// Subscribes to changes of this table that are not made over `own`. Takes CAP_NET_ADMIN.
    pub fn open(table: &str, own: &Nftables) -> Result<Self, NftablesError> {
        let socket = match Socket::subscribe(&[libc::NFNLGRP_NFTABLES]) {
            // netlink_bind in net/netlink/af_netlink.c
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                return Err(MissingNetAdmin::find().into());
            }
            socket => socket?,
        };
        socket.ignore_events_caused_by(own.port())?;
        Ok(TableEvents {
            socket,
            table: table.to_owned(),
        })
    }

    /// What has become of the table since the last call.
    pub fn changed(&self) -> io::Result<Changed> {
        let mut changed = false;
        let Overrun(lost) = self.socket.events(|message| {
            // NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE and NFTA_SET_ELEM_LIST_TABLE are the
            // same number.
            let is_nftables = i32::from(message.kind >> 8) == libc::NFNL_SUBSYS_NFTABLES;
            let table = message.attributes().text(NFTA_TABLE_NAME);
            changed |= is_nftables && table == Some(&self.table);
        })?;
        Ok(match (changed, lost) {
            (true, _) => Changed::Yes,
            (false, true) => Changed::Unknown,
            (false, false) => Changed::No,
        })
    }
}

impl AsFd for TableEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
