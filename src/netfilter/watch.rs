//! Noticing that somebody else has changed our table.

use super::error::unheard;
use super::socket::{Lost, Socket};
use super::{Connection, NetfilterError};
use nftnl::nftnl_sys::libc;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// linux/netfilter/nfnetlink_compat.h ends with group 6; NFNLGRP_NFTABLES is 7.
const GROUP_NFTABLES: u32 = 1 << 6;

/// News of changes that others make to nf_tables.
pub struct TableEvents {
    socket: Socket,
    table: String,
    own_port: u32,
    /// Behind which generation news begins that counts.
    since: Cell<Option<u32>>,
}

/// Whether somebody has changed the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Nobody has.
    No,
    /// Somebody has.
    Yes,
    /// The news was lost.
    Unknown,
}

impl TableEvents {
    /// Begins to listen for changes to this table that are not made over `connection`.
    pub fn open(table: &str, connection: &Connection) -> Result<Self, NetfilterError> {
        Ok(TableEvents {
            socket: Socket::subscribe(GROUP_NFTABLES).map_err(unheard)?,
            table: table.to_owned(),
            own_port: connection.socket.port(),
            since: Cell::new(None),
        })
    }

    /// Has what comes before this generation of the ruleset be no news any more: the table is new since
    /// then.
    pub fn disregard_before(&self, generation: Option<u32>) {
        self.since.set(generation);
    }

    /// What has become of the table since this was asked last.
    pub fn changed(&self) -> io::Result<Changed> {
        // linux/netfilter/nf_tables.h: NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE,
        // NFTA_SET_TABLE and NFTA_SET_ELEM_LIST_TABLE are all the first attribute.
        const TABLE: u16 = 1;
        const GENERATION: u16 = 1;
        const NEW_GENERATION: u16 = (libc::NFNL_SUBSYS_NFTABLES << 8 | libc::NFT_MSG_NEWGEN) as u16;
        let mut changed = false;
        let mut since = self.since.get();
        let Lost(lost) = self.socket.news(|message| {
            let attributes = message.attributes();
            match since {
                // Each transaction's news ends with its generation (nf_tables_gen_notify).
                Some(_) if message.kind == NEW_GENERATION => {
                    since = since.filter(|since| attributes.u32(GENERATION) != Some(*since));
                }
                Some(_) => {}
                None => {
                    let subsystem = i32::from(message.kind >> 8);
                    changed |= subsystem == libc::NFNL_SUBSYS_NFTABLES
                        && message.port != self.own_port
                        && attributes.text(TABLE) == Some(&self.table);
                }
            }
        })?;
        self.since.set(since.filter(|_| !lost));
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
