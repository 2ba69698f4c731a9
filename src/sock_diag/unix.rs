//! The Unix socket that has an abstract name. /proc/net/unix lists them too, but a name may hold line breaks
//! and any other bytes, so whoever binds one writes lines there.

use super::{SockDiagError, open};
use crate::netlink::{Attributes, Message, Request};
use crate::uapi::{
    SOCK_DIAG_BY_FAMILY, TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN, UDIAG_SHOW_NAME, UDIAG_SHOW_UID,
    UNIX_DIAG_NAME, UNIX_DIAG_UID,
};
use nix::libc;

/// A stream socket that has a name, whether it listens or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    pub inode: u32,
    /// Who made it; `None` before Linux 5.3.
    pub user: Option<u32>,
}

/// `struct unix_diag_req` (linux/unix_diag.h): its length, and where it has its fields.
const REQUEST: usize = 24;
const SDIAG_FAMILY: usize = 0;
const UDIAG_STATES: usize = 4;
const UDIAG_SHOW: usize = 12;

/// `struct unix_diag_msg`: its length, and where it has its fields.
const REPLY: usize = 16;
const UDIAG_TYPE: usize = 1;
const UDIAG_STATE: usize = 2;
const UDIAG_INO: usize = 4;

/// The stream socket of this network namespace that is bound to this abstract name.
pub fn stream_with_name(name: &str) -> Result<Option<Named>, SockDiagError> {
    let mut header = [0; REQUEST];
    header[SDIAG_FAMILY] = libc::AF_UNIX as u8;
    let mut set = |at: usize, value: u32| header[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    set(
        UDIAG_STATES,
        1 << TCP_LISTEN | 1 << TCP_CLOSE | 1 << TCP_ESTABLISHED,
    );
    set(UDIAG_SHOW, UDIAG_SHOW_NAME | UDIAG_SHOW_UID);
    let request = Request::dump(SOCK_DIAG_BY_FAMILY, &header);
    let mut found = open()?.list_existing(&request, |message| read(name, message))?;
    // What a listening one has accepted has its name too. Without that, it is one that has bound the name, and
    // connected to another.
    found.sort_by_key(|(state, _)| *state == TCP_ESTABLISHED);
    Ok(found.first().map(|(_, named)| *named))
}

/// It, and its state. `None` if it is another socket.
fn read(name: &str, message: &Message<'_>) -> Option<(u8, Named)> {
    let (reply, attributes) = message.payload.split_at_checked(REPLY)?;
    let attributes = Attributes(attributes);
    let bound = attributes.get(UNIX_DIAG_NAME)?.strip_prefix(&[0])?;
    let is_stream = i32::from(reply[UDIAG_TYPE]) == libc::SOCK_STREAM;
    let user = attributes.get(UNIX_DIAG_UID);
    let user = user.and_then(|user| Some(u32::from_ne_bytes(*user.first_chunk()?)));
    let named = Named {
        inode: u32::from_ne_bytes(*reply[UDIAG_INO..].first_chunk()?),
        user,
    };
    (is_stream && bound == name.as_bytes()).then_some((reply[UDIAG_STATE], named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::any_messages;
    use crate::netns::in_own_namespace;
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, connect, listen, socket,
    };
    use nix::unistd::{close, geteuid};
    use std::fs::File;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::fs::MetadataExt;

    fn bound(name: &[u8], kind: SockType) -> OwnedFd {
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let address = UnixAddr::new_abstract(name).unwrap();
        bind(socket.as_raw_fd(), &address).unwrap();
        socket
    }

    /// Of 64 bits on every architecture, unlike fstat(2)'s.
    fn inode(socket: &OwnedFd) -> u64 {
        let file = File::from(socket.try_clone().unwrap());
        file.metadata().unwrap().ino()
    }

    /// Beside names that write the line of another socket into /proc/net/unix, or no text at all.
    #[test]
    fn a_socket_is_found_by_type_and_name_beside_any_others() {
        in_own_namespace(|| {
            let line = "0000000000000000: 00000002 00000000 00010000 0001 01 4242 @nodefwd-web";
            let _others = [
                bound(format!("x\n{line}\n").as_bytes(), SockType::Stream),
                bound(b"\xff\n\xfe", SockType::Stream),
                bound(b"nodefwd-web", SockType::Datagram),
                bound(b"nodefwd-web-2", SockType::Stream),
                bound(b"nodefwd-web\0", SockType::Stream),
            ];
            assert_eq!(stream_with_name("nodefwd-web").unwrap(), None);
            let socket = bound(b"nodefwd-web", SockType::Stream);
            let found = stream_with_name("nodefwd-web").unwrap().unwrap();
            assert_eq!(u64::from(found.inode), inode(&socket));
            assert_eq!(found.user, Some(geteuid().as_raw()));
            // Also once it is connected: it keeps the name.
            let listener = bound(b"listener", SockType::Stream);
            listen(&listener, Backlog::new(1).unwrap()).unwrap();
            let address = UnixAddr::new_abstract(b"listener").unwrap();
            connect(socket.as_raw_fd(), &address).unwrap();
            assert_eq!(stream_with_name("nodefwd-web").unwrap(), Some(found));
            // What it has accepted has the listener's name too, and another process may have that.
            let accepted = accept(listener.as_raw_fd()).unwrap();
            let found = stream_with_name("listener").unwrap().unwrap();
            assert_eq!(u64::from(found.inode), inode(&listener));
            close(accepted).unwrap();
        });
    }

    #[test]
    fn no_message_panics() {
        any_messages(REPLY, |message| {
            read("", message);
        });
    }
}
