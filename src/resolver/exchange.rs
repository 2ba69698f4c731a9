//! A question to a name server and its answer: over UDP, or over TCP if that does not fit into a datagram.

use super::message::{Query, Reply};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// As long as an answer over TCP, or a datagram, can be.
const MAX_BYTES: usize = 1 << 16;

/// How long is left; an error if nothing is.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Whether a call with a timeout is made again: a signal has interrupted it (signal(7)).
fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Interrupted
}

/// Sends a question, and waits for the answer. All that is no answer to it is ignored, so that nobody but the
/// server can answer.
pub fn ask(server: SocketAddr, query: &Query, deadline: Instant) -> io::Result<Reply> {
    let question = query.bytes().ok_or(ErrorKind::InvalidInput)?;
    match over_udp(server, query, &question, deadline)? {
        Reply::Truncated => over_tcp(server, query, &question, deadline),
        reply => Ok(reply),
    }
}

fn over_udp(
    server: SocketAddr,
    query: &Query,
    question: &[u8],
    deadline: Instant,
) -> io::Result<Reply> {
    // The kernel takes a random port (udp_lib_get_port in net/ipv4/udp.c).
    let socket = match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    // From then on it receives from there only, and learns that nobody listens.
    socket.connect(server)?;
    socket.send(question)?;
    let mut datagram = vec![0; MAX_BYTES];
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        match socket.recv(&mut datagram) {
            Ok(length) => {
                if let Some(reply) = query.reply(&datagram[..length]) {
                    return Ok(reply);
                }
            }
            Err(error) if is_interrupted(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A message over TCP has its length before it (RFC 1035, section 4.2.2).
fn over_tcp(
    server: SocketAddr,
    query: &Query,
    question: &[u8],
    deadline: Instant,
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    let length = question.len() as u16;
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    fill(&mut stream, &mut length, deadline)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    fill(&mut stream, &mut answer, deadline)?;
    match query.reply(&answer) {
        Some(Reply::Truncated) | None => Err(ErrorKind::InvalidData.into()),
        Some(reply) => Ok(reply),
    }
}

/// Reads so many bytes, however slowly they come, until the deadline.
fn fill(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => buffer = &mut buffer[length..],
            Err(error) if is_interrupted(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What an error says of the server.
pub fn describe(error: &io::Error) -> String {
    match error.kind() {
        // The kernel says EAGAIN when a read's time is up.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer".into(),
        ErrorKind::ConnectionRefused => "nothing listens there".into(),
        ErrorKind::InvalidData => "an answer over TCP that is none".into(),
        ErrorKind::UnexpectedEof => "it ended the connection without an answer".into(),
        ErrorKind::InvalidInput => "the name is none that DNS can have".into(),
        _ => error.to_string(),
    }
}
