//! A netlink socket to netfilter, or to the routing tables.
//!
//! The kernel works on a request while it is being sent and has queued its answers when that
//! returns, so nothing here ever waits: an empty queue is the end of the answers.

use super::message::{Message, Request, messages};
use mnl::mnl_sys;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockname, recv, setsockopt, sockopt};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The kernel fills at most 32 KiB of a dump at once (netlink_dump in net/netlink/af_netlink.c), and
/// without the request itself an error is short.
const RECEIVE_BYTES: usize = 1 << 15;

/// An open socket.
pub struct Socket {
    socket: mnl::Socket,
}

/// An answer that says that a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which request.
    pub sequence: u32,
    /// Why.
    pub errno: Errno,
    /// Where in it lies the attribute that was not liked, if the kernel says.
    pub offset: Option<usize>,
}

/// Why no good answer came.
#[derive(Debug)]
pub enum Failure {
    /// The socket failed.
    Socket(io::Error),
    /// The kernel refused.
    Refused(Refusal),
    /// The kernel said nothing.
    NoAnswer,
}

/// Whether messages were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost(pub bool);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Socket(error)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `socket` is, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

impl Socket {
    /// Opens a socket. Needs no privileges.
    pub fn open() -> io::Result<Self> {
        let socket = Socket {
            socket: mnl::Socket::new(mnl::Bus::Netfilter)?,
        };
        // Answers to a failed request then name the attribute, and leave the request itself out.
        // Both are as old as nf_tables' fib (Linux 4.12, 4.2); without them errors say less.
        socket.enable(libc::NETLINK_EXT_ACK);
        socket.enable(libc::NETLINK_CAP_ACK);
        Ok(socket)
    }

    /// Opens a socket to the routing tables (rtnetlink(7)). Needs no privileges.
    pub fn open_routes() -> io::Result<Self> {
        let socket = mnl::Socket::new(mnl::Bus::Route)?;
        Ok(Socket { socket })
    }

    /// Opens a socket that hears what the kernel tells these groups, a bit mask (`NFNLGRP_*`,
    /// linux/netfilter/nfnetlink_compat.h).
    pub fn subscribe(groups: u32) -> io::Result<Self> {
        let socket = mnl::Socket::open(mnl::Bus::Netfilter)?;
        socket.bind(groups, 0)?;
        Ok(Socket { socket })
    }

    /// Takes over a socket that another process has passed on, with its port and all that belongs
    /// to it.
    pub fn adopt(passed: &OwnedFd) -> io::Result<Self> {
        // mnl takes no descriptor, so the one that it has opened comes to stand for that socket.
        let socket = Socket {
            socket: mnl::Socket::open(mnl::Bus::Netfilter)?,
        };
        // SAFETY: both descriptors are open, and mnl's stays open and stays mnl's.
        let exchanged = unsafe {
            libc::dup3(
                passed.as_raw_fd(),
                socket.socket.as_raw_fd(),
                libc::O_CLOEXEC,
            )
        };
        Errno::result(exchanged)?;
        socket.discard_answers()?;
        Ok(socket)
    }

    /// Drops answers to what another process has asked over this socket.
    pub fn discard_answers(&self) -> io::Result<()> {
        self.answers(|_| ()).map(|_| ())
    }

    fn enable(&self, option: i32) {
        let on: libc::c_int = 1;
        // SAFETY: the socket is open; the value is an int that lives through the call.
        unsafe {
            mnl_sys::mnl_socket_setsockopt(
                self.socket.as_raw_socket(),
                option,
                (&raw const on).cast_mut().cast(),
                size_of_val(&on) as libc::socklen_t,
            );
        }
    }

    /// Sends a batch of any length in one piece, and reads its answers up to `last_sequence`'s.
    pub fn transact(&self, bytes: &[u8], last_sequence: u32) -> Result<(), Failure> {
        self.make_room(bytes.len());
        self.send(bytes)?;
        let mut refusal = None;
        let mut answered = false;
        self.answers(|message| {
            if let Some(found) = refusal_in(&message) {
                // Several messages can fail; the first is the cause of the others.
                refusal.get_or_insert(found);
            } else {
                answered |= message.sequence == last_sequence;
            }
        })?;
        match refusal {
            Some(refusal) => Err(Failure::Refused(refusal)),
            None if answered => Ok(()),
            None => Err(Failure::NoAnswer),
        }
    }

    /// Sends requests that are answered only if they fail; gives the first refusal.
    pub fn transmit(&self, bytes: &[u8]) -> io::Result<Option<Refusal>> {
        self.send(bytes)?;
        let mut refusal = None;
        self.answers(|message| refusal = refusal.or(refusal_in(&message)))?;
        Ok(refusal)
    }

    /// Sends a request and hands over each message of the answer. `NotFound` is an answer without
    /// any; a dump that others disturbed is begun anew, `each` seeing all of it again behind a
    /// `restart`.
    pub fn dump(
        &self,
        request: &Request,
        mut each: impl FnMut(Option<Message<'_>>),
    ) -> Result<(), Failure> {
        self.dump_to(request, &mut each)
    }

    /// One copy in the program, whatever `each` is.
    fn dump_to(
        &self,
        request: &Request,
        each: &mut dyn FnMut(Option<Message<'_>>),
    ) -> Result<(), Failure> {
        loop {
            each(None);
            self.send(request.bytes())?;
            let mut refusal = None;
            let mut disturbed = false;
            let mut finished = !request.is_dump();
            self.answers(|message| {
                disturbed |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                finished |= i32::from(message.kind) == libc::NLMSG_DONE;
                match refusal_in(&message) {
                    Some(found) => refusal = Some(found),
                    None if i32::from(message.kind) >= libc::NLMSG_MIN_TYPE => each(Some(message)),
                    None => {}
                }
            })?;
            match refusal {
                Some(refusal) => return Err(Failure::Refused(refusal)),
                None if disturbed => continue,
                None if finished => return Ok(()),
                None => return Err(Failure::NoAnswer),
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = loop {
            match self.socket.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => break result?,
            }
        };
        match sent == bytes.len() {
            true => Ok(()),
            false => Err(io::Error::other(
                "the kernel took only a part of the request",
            )),
        }
    }

    /// The socket's netlink port; 0 stands for none.
    pub fn port(&self) -> u32 {
        let address = getsockname::<NetlinkAddr>(self.socket.as_raw_fd());
        address.map_or(0, |address| address.pid())
    }

    /// Hands over every message that is queued. Says whether others were lost because the queue was
    /// full; those that came first never are.
    pub fn answers(&self, mut each: impl FnMut(Message<'_>)) -> io::Result<Lost> {
        self.answers_to(&mut each)
    }

    fn answers_to(&self, each: &mut dyn FnMut(Message<'_>)) -> io::Result<Lost> {
        let mut buffer = vec![0u8; RECEIVE_BYTES];
        let mut lost = Lost(false);
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => messages(&buffer[..length]).for_each(&mut *each),
                Err(Errno::EAGAIN) => return Ok(lost),
                Err(Errno::ENOBUFS) => lost = Lost(true),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes the send buffer large enough for a request, which the kernel takes whole or not at
    /// all (netlink_sendmsg). Where it may not be made larger, sending says EMSGSIZE.
    fn make_room(&self, length: usize) {
        let wanted = length + 4096;
        let default = nix::sys::socket::getsockopt(self, sockopt::SndBuf).unwrap_or(0);
        if wanted > default && setsockopt(self, sockopt::SndBufForce, &wanted).is_err() {
            let _ = setsockopt(self, sockopt::SndBuf, &wanted);
        }
    }
}

fn refusal_in(message: &Message<'_>) -> Option<Refusal> {
    let is_error = i32::from(message.kind) == libc::NLMSG_ERROR;
    let (errno, offset) = message.error().filter(|_| is_error)?;
    (errno != 0).then(|| Refusal {
        sequence: message.sequence,
        errno: Errno::from_raw(errno),
        offset,
    })
}
