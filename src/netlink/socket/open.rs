//! How each kind of netlink socket is opened.

use super::Socket;
use crate::netlink::sys;
use nix::libc;
use nix::sys::socket::{NetlinkAddr, connect};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

impl Socket {
    /// Opens a socket to netfilter. Needs no privileges.
    pub fn netfilter() -> io::Result<Self> {
        let socket = Socket::from(mnl::Socket::new(mnl::Bus::Netfilter)?);
        // Errors then name the attribute that was refused, and leave the request itself out. Both are
        // as old as nf_tables' fib (Linux 4.12, 4.2); without them errors say less.
        sys::enable(&socket.socket, libc::NETLINK_EXT_ACK);
        sys::enable(&socket.socket, libc::NETLINK_CAP_ACK);
        socket.connect_to_kernel()?;
        Ok(socket)
    }

    /// Opens a socket to the routing tables (rtnetlink(7)). Needs no privileges.
    pub fn route() -> io::Result<Self> {
        let socket = Socket::from(mnl::Socket::new(mnl::Bus::Route)?);
        // A dump then holds only what was asked for (Linux 4.20; before, everything).
        sys::enable(&socket.socket, libc::NETLINK_GET_STRICT_CHK);
        socket.connect_to_kernel()?;
        Ok(socket)
    }

    /// Opens a socket to the kernel's lists of sockets (sock_diag(7)). Needs no privileges.
    pub fn sock_diag() -> io::Result<Self> {
        let socket = Socket::from(mnl::Socket::new(mnl::Bus::SockDiag)?);
        socket.connect_to_kernel()?;
        Ok(socket)
    }

    /// Opens a socket to the policies of IPsec (ip-xfrm(8)).
    pub fn xfrm() -> io::Result<Self> {
        let socket = Socket::from(mnl::Socket::new(mnl::Bus::Xfrm)?);
        socket.connect_to_kernel()?;
        Ok(socket)
    }

    /// Opens a socket to netfilter that receives the events of these groups (`NFNLGRP_*`,
    /// linux/netfilter/nfnetlink.h).
    pub fn subscribe(groups: &[i32]) -> io::Result<Self> {
        Self::subscribed(mnl::Socket::open(mnl::Bus::Netfilter)?, groups)
    }

    /// Opens a socket to the routing tables that receives the events of these groups (`RTNLGRP_*`); of
    /// routes only new ones to this host itself.
    pub fn subscribe_to_routes(groups: &[u32]) -> io::Result<Self> {
        let socket = mnl::Socket::open(mnl::Bus::Route)?;
        // Before any event comes: a router may have a million routes that change.
        sys::ignore_routes_elsewhere(sys::descriptor(&socket))?;
        Self::subscribed(socket, groups)
    }

    /// Groups beyond 31 need another call than bind(2).
    fn subscribed<G: Copy + Into<i64>>(socket: mnl::Socket, groups: &[G]) -> io::Result<Self> {
        let bit = |group: &G| 1 << ((*group).into() - 1);
        socket.bind(groups.iter().map(bit).sum(), 0)?;
        let socket = Socket::from(socket);
        socket.connect_to_kernel()?;
        Ok(socket)
    }

    /// Takes over a netfilter socket that another process has passed on, with its port and all that the
    /// kernel ties to it. Fails if it is anything else, or not of `own`'s network namespace.
    pub fn adopt(passed: &OwnedFd, own: &Socket) -> io::Result<Self> {
        let is =
            |option, value| sys::socket_option(passed.as_fd(), option).is_ok_and(|is| is == value);
        if !is(libc::SO_DOMAIN, libc::AF_NETLINK)
            || !is(libc::SO_PROTOCOL, libc::NETLINK_NETFILTER)
            || !sys::in_same_namespace(passed.as_fd(), own.as_fd())
        {
            return Err(io::Error::other(
                "it is no netfilter socket of this network namespace",
            ));
        }
        let socket = Socket::from(mnl::Socket::open(mnl::Bus::Netfilter)?);
        sys::exchange(&socket.socket, passed)?;
        socket.connect_to_kernel()?;
        socket.discard_replies()?;
        Ok(socket)
    }

    /// Has the kernel refuse what other processes send to this socket: it takes unicast datagrams only
    /// from the port that it is connected to (netlink_getsockbyportid in net/netlink/af_netlink.c),
    /// here the kernel's, 0.
    fn connect_to_kernel(&self) -> io::Result<()> {
        Ok(connect(self.socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?)
    }
}
