//! What the crates have no safe call for: socket options, socket filters, and descriptors that come
//! from elsewhere.

use super::message::{NLMSG_PID, NLMSG_TYPE};
use mnl::mnl_sys;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::ptr;

/// The descriptor of a socket of libmnl's.
pub fn descriptor(socket: &mnl::Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `socket` is, which outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// Turns on an option of level `SOL_NETLINK`. A kernel that does not have it goes on without.
pub fn enable(socket: &mnl::Socket, option: i32) {
    let on: libc::c_int = 1;
    // SAFETY: the socket is open; the value is an int that lives through the call.
    unsafe {
        mnl_sys::mnl_socket_setsockopt(
            socket.as_raw_socket(),
            option,
            (&raw const on).cast_mut().cast(),
            size_of_val(&on) as libc::socklen_t,
        );
    }
}

/// Makes libmnl's descriptor refer to another open socket (dup3(2)); libmnl has no call that takes a
/// descriptor.
pub fn exchange(socket: &mnl::Socket, other: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open; libmnl's number stays open, and libmnl alone closes it.
    let exchanged = unsafe { libc::dup3(other.as_raw_fd(), socket.as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(exchanged)?;
    Ok(())
}

/// Makes a descriptor refer to another open file, for tests that reply in the kernel's place.
#[cfg(test)]
pub fn replace_descriptor(descriptor: BorrowedFd<'_>, other: &OwnedFd) {
    // SAFETY: both are open; the number stays open, and whoever owns it alone closes it.
    let replaced = unsafe { libc::dup2(other.as_raw_fd(), descriptor.as_raw_fd()) };
    assert_ne!(replaced, -1);
}

/// Has the kernel put off the acknowledgement that ends a TCP handshake, of all connections that this socket makes: if
/// one is closed before, its peer's program never sees it (tcp_rcv_synsent_state_process in net/ipv4/tcp_input.c).
pub fn put_off_acknowledgement(socket: BorrowedFd<'_>) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    // SAFETY: the socket is open; the value is an int that lives through the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    Errno::result(set)?;
    Ok(())
}

/// A step of a socket filter: code, how many steps to leave out if a comparison holds and if it does not,
/// and its operand.
type Step = (u32, u8, u8, u32);

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_16_BITS: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_32_BITS: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const DROP: Step = (RETURN, 0, 0, 0);
const ACCEPT: Step = (RETURN, 0, 0, u32::MAX);

/// Filters out datagrams of events whose first message was caused by the socket with this netlink
/// port.
pub fn ignore_events_caused_by(socket: BorrowedFd<'_>, port: u32) -> io::Result<()> {
    attach_filter(
        socket,
        &[
            // The filter reads the number as one in network byte order, which the port is not.
            (LOAD_32_BITS, 0, 0, NLMSG_PID as u32),
            (EQUALS, 0, 1, port.to_be()),
            DROP,
            ACCEPT,
        ],
    )
}

/// Filters out datagrams of routes (rtnetlink(7)) but new ones to this host itself. The kernel sends each
/// route in a datagram of its own.
pub fn ignore_routes_elsewhere(socket: BorrowedFd<'_>) -> io::Result<()> {
    // In network byte order, as the filter reads it.
    let kind = |kind: u16| u32::from(kind.to_be());
    attach_filter(
        socket,
        &[
            (LOAD_16_BITS, 0, 0, NLMSG_TYPE as u32),
            (EQUALS, 4, 0, kind(libc::RTM_DELROUTE)),
            (EQUALS, 0, 2, kind(libc::RTM_NEWROUTE)),
            (LOAD_BYTE, 0, 0, RTM_TYPE),
            (EQUALS, 0, 1, u32::from(libc::RTN_LOCAL)),
            ACCEPT,
            DROP,
        ],
    )
}

/// Where a message of a route has its type: `rtm_type` of `struct rtmsg`, after the header.
const RTM_TYPE: u32 = 16 + 7;

/// Has the kernel run these steps for each datagram (socket(7), `SO_ATTACH_FILTER`).
fn attach_filter(socket: BorrowedFd<'_>, steps: &[Step]) -> io::Result<()> {
    let step = |(code, jt, jf, k): &Step| libc::sock_filter {
        code: *code as u16,
        jt: *jt,
        jf: *jf,
        k: *k,
    };
    let mut steps: Vec<libc::sock_filter> = steps.iter().map(step).collect();
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the socket is open; the program and its steps live through the call, which copies both
    // and changes neither.
    let attached = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    Errno::result(attached)?;
    Ok(())
}

/// An option of level `SOL_SOCKET` that is a number (socket(7)).
pub fn socket_option(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value = [0; size_of::<libc::c_int>()];
    read_option(socket, libc::SOL_SOCKET, option, &mut value)?;
    Ok(libc::c_int::from_ne_bytes(value))
}

/// Reads an option of a socket into these bytes, which may tell the kernel what is wanted (getsockopt(2)).
pub fn read_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &mut [u8],
) -> io::Result<()> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the socket is open; the value is as long as `length` says, and both live through the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(done)?;
    Ok(())
}

/// Whether two sockets, of any family, are in the same network namespace. Not if this process lacks
/// CAP_NET_ADMIN in one of the two.
pub fn in_same_namespace(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let identity = |socket| {
        let namespace = File::from(network_namespace(socket)?).metadata()?;
        io::Result::Ok((namespace.st_dev(), namespace.st_ino()))
    };
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// The network namespace of a socket (`SIOCGSKNS`, Linux 4.10; it takes CAP_NET_ADMIN there: sock_ioctl in
/// net/socket.c). musl's ioctl takes the request as an int, glibc's as a long.
fn network_namespace(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open; the request takes no argument, and gives a new descriptor.
    let opened = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGSKNS as _) };
    let number = Errno::result(opened)?;
    // SAFETY: the kernel has just opened it for this process, and nothing else here knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Random bytes of the kernel's (getrandom(2)).
pub fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // SAFETY: the buffer is as long as the call is told, and lives through it.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match Errno::result(filled)? {
        // The kernel gives up to 256 bytes at once.
        16 => Ok(bytes),
        _ => Err(io::Error::other("the kernel gave too few random bytes")),
    }
}

/// Whether this process ignores a signal (sigaction(2)).
pub fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only fills in the present one, which is read if it has.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// SCM_RIGHTS needs at least one byte of data (unix(7)); its value is ignored.
const CARRIER: [u8; 1] = [0];

/// Passes two open descriptors on to another process (unix(7), `SCM_RIGHTS`). Both processes have
/// them from then on.
pub fn send_descriptors(stream: &UnixStream, descriptors: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let numbers = descriptors.map(|descriptor| descriptor.as_raw_fd());
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&CARRIER)],
        &[ControlMessage::ScmRights(&numbers)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Receives two descriptors that another process passes; `None` if it has hung up. Anything but two
/// descriptors is an error.
pub fn receive_descriptors(stream: &UnixStream) -> io::Result<Option<[OwnedFd; 2]>> {
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
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just opened these descriptors for this process, and nothing else
            // here knows of them.
            let owned = |number: RawFd| unsafe { OwnedFd::from_raw_fd(number) };
            descriptors.extend(numbers.into_iter().map(owned));
        }
    }
    let two = <[OwnedFd; 2]>::try_from(descriptors);
    two.map(Some)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Opens what stands for a standard descriptor that is closed. Rust's runtime does that too, with /dev/null,
/// and aborts where there is none, as in an empty chroot. A socket that is connected to nothing: what is
/// written to it fails, as it would be lost.
extern "C" fn open_standard_descriptors() {
    for number in 0..=libc::STDERR_FILENO {
        // SAFETY: neither call has to do with memory.
        let is_closed = unsafe { libc::fcntl(number, libc::F_GETFD) } == -1;
        if is_closed {
            // The lowest number that is free: this one. SAFETY: as above.
            unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0) };
        }
    }
}

/// Called before the runtime, which runs before `main` (the ELF gABI's "Initialization and Termination
/// Functions").
// SAFETY: the section holds pointers to functions of this signature, and this one needs no runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_RUNTIME: extern "C" fn() = open_standard_descriptors;

/// Functions of the C library and of the unwinder that a release does without, with much that only they use:
/// together an eighth of the program, and more on ppc64el. The linker takes the first definition of a name (build.rs).
#[cfg(all(
    feature = "static",
    target_env = "gnu",
    target_feature = "crt-static",
    not(debug_assertions)
))]
mod left_out {
    use nix::libc::{self, c_char, c_int, c_void};
    use std::ffi::CStr;
    use std::process::abort;
    use std::ptr;

    // SAFETY, of all of them: their callers get what the real ones give when they fail, or find nothing.

    /// A release has no symbols, so the backtrace of a panic would be a list of numbers. What reads symbols goes
    /// too. Gives _URC_END_OF_STACK.
    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Backtrace(_frame: *const c_void, _argument: *const c_void) -> c_int {
        5
    }

    /// Rust's library asks for the end of the first thread's stack, for what it says when that is full. glibc
    /// reads /proc/self/maps for it, with a sscanf.
    #[unsafe(no_mangle)]
    extern "C" fn pthread_getattr_np(_thread: *const c_void, _attributes: *mut c_void) -> c_int {
        libc::ENOSYS
    }

    /// Translates glibc's messages: with files that it converts to other character sets by libraries that it
    /// loads. None of them is there for a program of one file.
    #[unsafe(no_mangle)]
    extern "C" fn __dcgettext(
        _domain: *const c_char,
        message: *const c_char,
        _category: c_int,
    ) -> *const c_char {
        message
    }

    /// The C library sets its own resolver up, and reads its files, when a thread first asks it for a name. None
    /// does here (src/resolver.rs), yet each thread keeps a place for it.
    #[unsafe(no_mangle)]
    extern "C" fn __res_vinit(_state: *mut c_void, _initialized_before: c_int) -> c_int {
        -1
    }

    /// Closes the sockets of that resolver, which has none.
    #[unsafe(no_mangle)]
    extern "C" fn __res_iclose(_state: *mut c_void, _frees: bool) {}

    /// Collects the folders where shared libraries are, for the dynamic linker's half of a shared program.
    #[unsafe(no_mangle)]
    extern "C" fn _dl_init_paths() {}

    /// Takes LD_LIBRARY_PATH and its like away from the programs that one with file capabilities starts. This one
    /// starts none.
    #[unsafe(no_mangle)]
    extern "C" fn __unsetenv(_name: *const c_char) -> c_int {
        0
    }

    macro_rules! expressions {
        ($($name:literal $functions:ident)*) => {
            unsafe extern "C" {
                $(static $functions: u8;)*
            }

            /// What libnftnl makes an expression with. Its own list also has those that no rule here has.
            #[unsafe(no_mangle)]
            extern "C" fn nftnl_expr_ops_lookup(name: *const c_char) -> *const u8 {
                // SAFETY: nftnl_expr_alloc passes on the name that it gets, a string of C.
                match unsafe { CStr::from_ptr(name) }.to_bytes() {
                    $($name => &raw const $functions,)*
                    _ => ptr::null(),
                }
            }
        };
    }
    expressions! {
        b"bitwise" expr_ops_bitwise b"byteorder" expr_ops_byteorder b"cmp" expr_ops_cmp b"counter" expr_ops_counter
        b"ct" expr_ops_ct b"exthdr" expr_ops_exthdr b"fib" expr_ops_fib b"flow_offload" expr_ops_flow
        b"hash" expr_ops_hash b"immediate" expr_ops_immediate b"lookup" expr_ops_lookup b"masq" expr_ops_masq
        b"meta" expr_ops_meta b"nat" expr_ops_nat b"numgen" expr_ops_ng b"payload" expr_ops_payload b"rt" expr_ops_rt
    }

    /// Functions that other ones refer to, and that nothing here makes them call.
    macro_rules! never_called {
        ($($name:ident)*) => {
            $(#[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                abort()
            })*
        };
    }

    // What prints with all of printf what is wrong in glibc's own state; what printf does with floating-point numbers,
    // %1$s and %n, which neither glibc nor libnftnl prints: Rust has its own.
    never_called! { __assert_fail __printf_fp_l_buffer __printf_fphex_l_buffer __parse_one_specmb __readonly_area }

    // Streams of wide characters, and conversions, with libraries that are loaded, of a locale other than C.
    never_called! {
        __libc_dlopen_mode __libc_dlsym __libc_dlclose _IO_wdo_write __gconv_btwoc_ascii __gconv_close_transform
        __gconv_find_transform __gconv_release_step __gconv_transform_ascii_internal __gconv_transform_internal_ascii
    }

    // A panic aborts, and the tables that the unwinder reads are left out too (.cargo/no-unwind.ld).
    never_called! {
        _Unwind_GetDataRelBase _Unwind_GetIPInfo _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart
        _Unwind_GetTextRelBase _Unwind_Resume _Unwind_SetGR _Unwind_SetIP
    }
}
