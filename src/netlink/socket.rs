//! A netlink socket, to netfilter or to the routing tables.
//!
//! The kernel carries out a request while it is being sent and has queued its replies when `send`
//! returns (netlink_sendmsg in net/netlink/af_netlink.c). So nothing here waits: an empty queue is the
//! end of the replies.

mod open;
mod send;

pub use send::TooLong;

use super::give_up::{give_up_when, gives_up};
use super::message::{Message, Request, messages};
use super::sys;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockname, recvmsg};
use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The kernel fills at most 32 KiB of a dump at once (netlink_dump in net/netlink/af_netlink.c). An error
/// reply is short: NETLINK_CAP_ACK leaves the request out.
const RECEIVE_BYTES: usize = 1 << 15;

thread_local! {
    /// Where datagrams are received: one buffer for all requests, most of which have short replies.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How many datagrams of events are read at once: events may come faster than they can be read, so that
/// the caller can handle signals in between.
const EVENTS_AT_ONCE: usize = 256;

/// How often a dump that a change interrupts is requested.
pub const MAX_DUMP_RETRIES: usize = 100;

/// An open netlink socket.
pub struct Socket {
    socket: mnl::Socket,
    /// Whether messages were lost, and the queue has not been empty since.
    overrun: Cell<bool>,
}

/// A reply that says that a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The sequence number of the request.
    pub sequence: u32,
    pub errno: Errno,
    /// Where in the request the refused attribute lies, if the kernel says.
    pub offset: Option<usize>,
}

/// Why a request was not carried out, or got no reply.
#[derive(Debug)]
pub enum Failure {
    /// A system call on the socket failed.
    Socket(io::Error),
    /// The kernel refused the request.
    Refused(Refusal),
    /// The kernel did not reply.
    NoReply,
    /// Every one of [`MAX_DUMP_RETRIES`] dumps was interrupted by a change.
    Contended,
}

/// The reply, or no value if the kernel has no such object (ENOENT).
pub fn or_missing<T: Default>(reply: Result<T, Failure>) -> Result<T, Failure> {
    match reply {
        Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(T::default()),
        reply => reply,
    }
}

/// Whether messages were lost because the receive queue was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun(pub bool);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Socket(error)
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Socket(error) => error,
            Failure::Refused(refusal) => refusal.errno.into(),
            Failure::NoReply => io::Error::other("the kernel did not reply"),
            Failure::Contended => io::Error::other("what it lists keeps changing"),
        }
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
        sys::descriptor(&self.socket)
    }
}

impl Socket {
    /// Drops replies to requests that another process has sent over this socket.
    pub fn discard_replies(&self) -> io::Result<()> {
        self.replies(|_| ()).map(|_| ())
    }

    /// Filters out events caused by the socket with this port: those of a large commit would overrun
    /// the queue. Every datagram is of one transaction (nft_commit_notify in
    /// net/netfilter/nf_tables_api.c), so its first message stands for all.
    pub fn ignore_events_caused_by(&self, port: u32) -> io::Result<()> {
        sys::ignore_events_caused_by(self.as_fd(), port)
    }

    /// Requests one object, and gives what `read` finds in it.
    pub fn get<T>(
        &self,
        request: &Request,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let mut found = None;
        let replied = self.request(request, &mut |message| {
            found = message.and_then(|message| read(&message));
        });
        match replied {
            Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(None),
            replied => replied.map(|()| found),
        }
    }

    /// Dumps a table of the kernel's, and hands over each object as it comes; again if a change
    /// interrupts the dump.
    pub fn visit(
        &self,
        request: &Request,
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), Failure> {
        or_missing(self.request(request, &mut |message| message.iter().for_each(&mut *each)))
    }

    /// Dumps a table of the kernel's: what `read` finds in each object. A dump that a change interrupts is
    /// requested again, from its start.
    pub fn list<T>(
        &self,
        request: &Request,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        or_missing(self.list_existing(request, read))
    }

    /// The same of a table that must be there.
    pub fn list_existing<T>(
        &self,
        request: &Request,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        let mut found = Vec::new();
        self.request(request, &mut |message| match message {
            None => found.clear(),
            Some(message) => found.extend(read(&message)),
        })?;
        Ok(found)
    }

    /// The same of messages with several objects each. `None` if there are more than `most`: then the socket must
    /// not be used afterwards, as the kernel goes on with the reply.
    pub fn list_up_to<T>(
        &self,
        most: usize,
        request: &Request,
        read: impl Fn(&Message<'_>) -> Vec<T>,
    ) -> Result<Option<Vec<T>>, Failure> {
        let (mut found, mut replied) = (Vec::new(), Ok(()));
        let too_many = Arc::new(AtomicBool::new(false));
        give_up_when(&too_many, None, || {
            replied = or_missing(self.request(request, &mut |message| match message {
                None => found.clear(),
                Some(message) => {
                    found.extend(read(&message));
                    too_many.store(found.len() > most, Ordering::Relaxed);
                }
            }));
        });
        if found.len() > most {
            return Ok(None);
        }
        replied.map(|()| Some(found))
    }

    /// Sends a request until its reply was not interrupted, and hands over each message of the reply,
    /// after a `None` each time. Not generic: the program holds one copy.
    fn request(
        &self,
        request: &Request,
        each: &mut dyn FnMut(Option<Message<'_>>),
    ) -> Result<(), Failure> {
        for _ in 0..MAX_DUMP_RETRIES {
            each(None);
            self.send(request.bytes())?;
            let mut refusal = None;
            let mut interrupted = false;
            let mut complete = false;
            self.replies(|message| {
                interrupted |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                let done = outcome(&message, libc::NLMSG_DONE);
                complete |= matches!(done, Some(Ok(())));
                let error = outcome(&message, libc::NLMSG_ERROR);
                refusal = refusal.or([done, error].into_iter().flatten().find_map(Result::err));
                if i32::from(message.kind) >= libc::NLMSG_MIN_TYPE {
                    complete |= !request.is_dump();
                    each(Some(message));
                }
            })?;
            match refusal {
                Some(refusal) => return Err(Failure::Refused(refusal)),
                None if interrupted => continue,
                None if complete => return Ok(()),
                None => return Err(Failure::NoReply),
            }
        }
        Err(Failure::Contended)
    }

    /// The socket's netlink port; 0 if it has none.
    pub fn port(&self) -> u32 {
        let address = getsockname::<NetlinkAddr>(self.socket.as_raw_fd());
        address.map_or(0, |address| address.pid())
    }

    /// Hands over every message that is queued.
    fn replies(&self, mut each: impl FnMut(Message<'_>)) -> io::Result<Overrun> {
        self.receive(usize::MAX, &mut each)
    }

    /// Hands over the events that are queued, or a part of them if they are many. Says whether others
    /// were lost because the queue was full; those that came first never are.
    ///
    /// The kernel reports an overrun once, and drops what comes until the queue is empty again
    /// (netlink_overrun in net/netlink/af_netlink.c). So after ENOBUFS every batch is reported as lossy
    /// until the queue has been empty once: a caller that resynchronises after each lossy batch misses
    /// nothing.
    pub fn events(&self, mut each: impl FnMut(Message<'_>)) -> io::Result<Overrun> {
        self.receive(EVENTS_AT_ONCE, &mut each)
    }

    fn receive(&self, most: usize, each: &mut dyn FnMut(Message<'_>)) -> io::Result<Overrun> {
        let mut buffer = BUFFER.take();
        buffer.resize(RECEIVE_BYTES, 0);
        let received = self.receive_into(&mut buffer, most, each);
        BUFFER.set(buffer);
        received
    }

    fn receive_into(
        &self,
        buffer: &mut [u8],
        most: usize,
        each: &mut dyn FnMut(Message<'_>),
    ) -> io::Result<Overrun> {
        let mut overrun = self.overrun.get();
        for _ in 0..most {
            if gives_up() {
                let why = "given up, as a signal has come or it took too long";
                return Err(io::Error::new(io::ErrorKind::Interrupted, why));
            }
            let mut parts = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            match recvmsg::<NetlinkAddr>(self.socket.as_raw_fd(), &mut parts, None, flags) {
                // Another process can still send to whole groups (netlink(7)).
                Ok(datagram) if datagram.address.is_some_and(|from| from.pid() != 0) => {}
                Ok(datagram) => {
                    overrun |= datagram.flags.contains(MsgFlags::MSG_TRUNC);
                    let length = datagram.bytes;
                    messages(&buffer[..length]).for_each(&mut *each);
                }
                Err(Errno::EAGAIN) => {
                    self.overrun.set(false);
                    break;
                }
                Err(Errno::ENOBUFS) => {
                    self.overrun.set(true);
                    overrun = true;
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Overrun(overrun))
    }
}

/// What a message of this kind, `NLMSG_ERROR` or `NLMSG_DONE`, says about the request; `None` if it is
/// of another kind, or cut short.
fn outcome(message: &Message<'_>, kind: i32) -> Option<Result<(), Refusal>> {
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
