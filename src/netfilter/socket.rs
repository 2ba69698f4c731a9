//! A netlink socket to netfilter, or to the routing tables.
//!
//! The kernel works on a request while it is being sent and has queued its answers when that
//! returns, so nothing here ever waits: an empty queue is the end of the answers.

use super::message::{Message, Request, messages};
use mnl::mnl_sys;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, connect, getsockname, recvmsg, setsockopt, sockopt};
use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The kernel fills at most 32 KiB of a dump at once (netlink_dump in net/netlink/af_netlink.c), and
/// without the request itself an error is short.
const RECEIVE_BYTES: usize = 1 << 15;

/// How many datagrams of news are taken at once: whoever waits for them has more to see to, and they
/// may come faster than they can be read.
const NEWS_AT_ONCE: usize = 256;

/// How often a list is asked for anew because others changed what it holds meanwhile.
const ATTEMPTS: usize = 100;

/// An open socket.
pub struct Socket {
    socket: mnl::Socket,
    /// Whether messages were lost, and the queue has not been seen empty since.
    overrun: Cell<bool>,
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
    /// Others change what is asked for all the time.
    Restless,
}

/// Whether messages were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost(pub bool);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Socket(error)
    }
}

impl From<mnl::Socket> for Socket {
    fn from(socket: mnl::Socket) -> Self {
        Socket {
            socket,
            overrun: Cell::new(false),
        }
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
        let socket = Socket::from(mnl::Socket::new(mnl::Bus::Netfilter)?);
        // Answers to a failed request then name the attribute, and leave the request itself out.
        // Both are as old as nf_tables' fib (Linux 4.12, 4.2); without them errors say less.
        socket.enable(libc::NETLINK_EXT_ACK);
        socket.enable(libc::NETLINK_CAP_ACK);
        socket.keep_others_out()?;
        Ok(socket)
    }

    /// Opens a socket to the routing tables (rtnetlink(7)). Needs no privileges.
    pub fn open_routes() -> io::Result<Self> {
        let socket = Socket::from(mnl::Socket::new(mnl::Bus::Route)?);
        // A list then holds only what was asked for (Linux 4.20; before, all of it).
        socket.enable(libc::NETLINK_GET_STRICT_CHK);
        socket.keep_others_out()?;
        Ok(socket)
    }

    /// Opens a socket that hears what the kernel tells these groups, a bit mask (`NFNLGRP_*`,
    /// linux/netfilter/nfnetlink_compat.h).
    pub fn subscribe(groups: u32) -> io::Result<Self> {
        let socket = mnl::Socket::open(mnl::Bus::Netfilter)?;
        socket.bind(groups, 0)?;
        let socket = Socket::from(socket);
        socket.keep_others_out()?;
        Ok(socket)
    }

    /// Has the kernel refuse what other processes send to this socket: it takes datagrams only from
    /// whom it is connected to (netlink_getsockbyportid in net/netlink/af_netlink.c), here port 0.
    fn keep_others_out(&self) -> io::Result<()> {
        Ok(connect(self.socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?)
    }

    /// Takes over a socket that another process has passed on, with its port and all that belongs
    /// to it.
    pub fn adopt(passed: &OwnedFd) -> io::Result<Self> {
        // mnl takes no descriptor, so the one that it has opened comes to stand for that socket.
        let socket = Socket::from(mnl::Socket::open(mnl::Bus::Netfilter)?);
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
        self.answers(|message| match verdict(&message, libc::NLMSG_ERROR) {
            // Several messages can fail; the first is the cause of the others.
            Some(Err(found)) => refusal = refusal.or(Some(found)),
            Some(Ok(())) => answered |= message.sequence == last_sequence,
            None => {}
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
        self.answers(|message| {
            let found = verdict(&message, libc::NLMSG_ERROR).and_then(Result::err);
            refusal = refusal.or(found);
        })?;
        Ok(refusal)
    }

    /// Sends a request and hands over each message of the answer. A list that others disturbed is
    /// asked for anew, `each` seeing all of it again behind a nothing.
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
        for _ in 0..ATTEMPTS {
            each(None);
            self.send(request.bytes())?;
            let mut refusal = None;
            let mut disturbed = false;
            let mut finished = false;
            self.answers(|message| {
                disturbed |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                let done = verdict(&message, libc::NLMSG_DONE);
                finished |= matches!(done, Some(Ok(())));
                let error = verdict(&message, libc::NLMSG_ERROR);
                refusal = refusal.or([done, error].into_iter().flatten().find_map(Result::err));
                if i32::from(message.kind) >= libc::NLMSG_MIN_TYPE {
                    finished |= !request.is_dump();
                    each(Some(message));
                }
            })?;
            match refusal {
                Some(refusal) => return Err(Failure::Refused(refusal)),
                None if disturbed => continue,
                None if finished => return Ok(()),
                None => return Err(Failure::NoAnswer),
            }
        }
        Err(Failure::Restless)
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

    /// Hands over every message that is queued.
    fn answers(&self, mut each: impl FnMut(Message<'_>)) -> io::Result<Lost> {
        self.receive(usize::MAX, &mut each)
    }

    /// Hands over what is queued, or a part of it if that is much. Says whether others were lost
    /// because the queue was full; those that came first never are.
    ///
    /// The kernel reports a loss once, and loses all that comes until the queue is empty again
    /// (netlink_overrun in net/netlink/af_netlink.c). So a loss is said of each part until then: who
    /// looks at things anew behind every one of them overlooks nothing.
    pub fn news(&self, mut each: impl FnMut(Message<'_>)) -> io::Result<Lost> {
        self.receive(NEWS_AT_ONCE, &mut each)
    }

    fn receive(&self, most: usize, each: &mut dyn FnMut(Message<'_>)) -> io::Result<Lost> {
        let mut buffer = vec![0u8; RECEIVE_BYTES];
        let mut lost = Lost(self.overrun.get());
        for _ in 0..most {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            match recvmsg::<NetlinkAddr>(self.socket.as_raw_fd(), &mut parts, None, flags) {
                // Others can still send to whole groups (netlink(7)).
                Ok(datagram) if datagram.address.is_some_and(|from| from.pid() != 0) => {}
                Ok(datagram) => {
                    lost = Lost(lost.0 || datagram.flags.contains(MsgFlags::MSG_TRUNC));
                    let length = datagram.bytes;
                    messages(&buffer[..length]).for_each(&mut *each);
                }
                Err(Errno::EAGAIN) => {
                    self.overrun.set(false);
                    break;
                }
                Err(Errno::ENOBUFS) => {
                    self.overrun.set(true);
                    lost = Lost(true);
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(lost)
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

/// What a message of this kind, `NLMSG_ERROR` or `NLMSG_DONE`, says of what was asked; nothing if it
/// is of another kind, or was cut short.
fn verdict(message: &Message<'_>, kind: i32) -> Option<Result<(), Refusal>> {
    if i32::from(message.kind) != kind {
        return None;
    }
    let (errno, offset) = message.error()?;
    Some(match errno {
        0 => Ok(()),
        _ => Err(Refusal {
            sequence: message.sequence,
            errno: Errno::from_raw(errno),
            offset,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::sandbox::in_own_namespace;
    use super::super::{Connection, Existing, Ownership, table};
    use super::*;
    use crate::cli::Options;
    use crate::config::Config;
    use crate::ruleset::Ruleset;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    fn large_ruleset() -> Ruleset {
        let forwards = (1..=2000).map(|port| format!("udp/{port}=10.2.0.1"));
        let options = Options {
            forwards: forwards.map(Into::into).collect(),
            ..Options::default()
        };
        Ruleset::new(&Config::new(&options).unwrap())
    }

    #[test]
    fn a_list_that_others_keep_changing_is_given_up() {
        let ruleset = large_ruleset();
        in_own_namespace(|| {
            let connection = Connection::open().unwrap();
            connection
                .install(&ruleset, Ownership::Kernel, Existing::Refuse)
                .unwrap();
            let read = AtomicBool::new(false);
            let others = || {
                let connection = Connection::open().unwrap();
                while !read.load(Ordering::Relaxed) {
                    connection.supports_ownership("others");
                }
            };
            thread::scope(|scope| {
                scope.spawn(others);
                let mut asked = 0;
                let request = table::dump_request(nftnl::nftnl_sys::libc::NFT_MSG_GETRULE)
                    .text(1, &ruleset.table);
                let list = connection.socket.dump(&request, |message| {
                    asked += usize::from(message.is_none());
                });
                read.store(true, Ordering::Relaxed);
                // Once in a while it may be read between two changes.
                assert!(asked <= ATTEMPTS && matches!(list, Ok(()) | Err(Failure::Restless)));
            });
        });
    }

    #[test]
    fn news_is_lost_until_a_queue_that_was_full_is_empty() {
        let ruleset = large_ruleset();
        in_own_namespace(|| {
            // linux/netfilter/nfnetlink.h: NFNLGRP_NFTABLES, as a bit mask.
            let socket = Socket::subscribe(1 << 6).unwrap();
            setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).unwrap();
            let connection = Connection::open().unwrap();
            for _ in 0..10 {
                connection
                    .install(&ruleset, Ownership::Kernel, Existing::Refuse)
                    .unwrap();
                connection.remove(&ruleset.table).unwrap();
            }
            let mut parts = 0;
            loop {
                let mut heard = false;
                let lost = socket.news(|_| heard = true).unwrap();
                if !heard {
                    break;
                }
                assert_eq!(lost, Lost(true));
                parts += 1;
            }
            assert!(parts > 1);
            assert_eq!(socket.news(|_| panic!("more")).unwrap(), Lost(false));
        });
    }
}
