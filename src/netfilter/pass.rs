//! Passing open sockets on to another process (unix(7), `SCM_RIGHTS`).

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Rights travel with at least one byte; nobody looks at it.
const CARRIER: [u8; 1] = [0];

/// Passes two sockets on. Both processes have them from then on.
pub fn send(stream: &UnixStream, sockets: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let numbers = sockets.map(|socket| socket.as_raw_fd());
    let rights = [ControlMessage::ScmRights(&numbers)];
    let carrier = [IoSlice::new(&CARRIER)];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &carrier,
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Takes two sockets that were passed on. Nothing, if the other end has hung up; anything else than
/// two sockets is an error.
pub fn receive(stream: &UnixStream) -> io::Result<Option<[OwnedFd; 2]>> {
    let mut carrier = CARRIER;
    let mut buffer = [IoSliceMut::new(&mut carrier)];
    let mut space = cmsg_space!([RawFd; 2]);
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut buffer,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut sockets = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just opened these descriptors for this process, and nobody else
            // here knows of them.
            sockets.extend(
                numbers
                    .iter()
                    .map(|number| unsafe { OwnedFd::from_raw_fd(*number) }),
            );
        }
    }
    let two = <[OwnedFd; 2]>::try_from(sockets);
    two.map(Some)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}
