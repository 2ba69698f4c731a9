//! Noticing that somebody else has changed our table.

use super::error::unheard;
use super::socket::{Lost, Socket};
use super::{Connection, NetfilterError};
use nftnl::nftnl_sys::libc;
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// linux/netfilter/nfnetlink_compat.h ends with group 6; NFNLGRP_NFTABLES is 7.
const GROUP_NFTABLES: u32 = 1 << 6;

/// News of changes that others make to nf_tables.
pub struct TableEvents {
    socket: Socket,
    table: String,
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
    /// Begins to listen for changes to this table that are not made over `connection`. Takes
    /// CAP_NET_ADMIN.
    pub fn open(table: &str, connection: &Connection) -> Result<Self, NetfilterError> {
        let socket = Socket::subscribe(GROUP_NFTABLES).map_err(unheard)?;
        leave_out(&socket, connection.socket.port()).map_err(NetfilterError::Socket)?;
        Ok(TableEvents {
            socket,
            table: table.to_owned(),
        })
    }

    /// What has become of the table since this was asked last.
    pub fn changed(&self) -> io::Result<Changed> {
        // linux/netfilter/nf_tables.h: NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE,
        // NFTA_SET_TABLE and NFTA_SET_ELEM_LIST_TABLE are all the first attribute.
        const TABLE: u16 = 1;
        let mut changed = false;
        let Lost(lost) = self.socket.news(|message| {
            let subsystem = i32::from(message.kind >> 8);
            changed |= subsystem == libc::NFNL_SUBSYS_NFTABLES
                && message.attributes().text(TABLE) == Some(&self.table);
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

/// Has the kernel leave out the news of what this port changes: all that a large transaction brings
/// would not fit into the queue. Every datagram is of one transaction (nft_commit_notify in
/// net/netfilter/nf_tables_api.c), so its first message stands for all.
fn leave_out(socket: &Socket, port: u32) -> io::Result<()> {
    use nix::libc;
    /// Where struct nlmsghdr has nlmsg_pid (linux/netlink.h).
    const PORT: u32 = 12;
    let step = |code: u32, jf, k| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let mut steps = [
        // What is loaded is taken to be in network byte order, and the port is not.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, PORT),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, port.to_be()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the socket is open; the program and its steps live through the call, which copies both
    // and changes neither.
    let attached = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    Errno::result(attached)?;
    Ok(())
}
