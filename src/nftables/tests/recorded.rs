//! Messages that the kernel really sends, recorded for tests that change them.

use super::super::encode;
use super::super::list::{TableFamily, dump_request, message_type};
use crate::config::{Config, Options};
use crate::conntrack::{Conntrack, Dump};
use crate::netlink::Request;
use crate::netns::in_own_namespace;
use crate::ruleset::Ruleset;
use crate::uapi::*;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

/// The table that the messages are about.
pub const TABLE: &str = "nodefwd-recorded";

/// Addresses of the host, and its destinations, which are the same host: so it can connect.
const ADDRESSES: [&str; 4] = [
    "10.1.0.1/32",
    "10.2.0.11/32",
    "fd00:1::1/128",
    "fd00:2::11/128",
];

/// Messages of every kind that is decoded.
pub fn messages() -> Vec<Vec<u8>> {
    in_own_namespace(|| {
        up();
        let events = raw_socket();
        let groups = [
            libc::NFNLGRP_CONNTRACK_UPDATE,
            libc::NFNLGRP_CONNTRACK_DESTROY,
            libc::NFNLGRP_NFTABLES,
        ];
        let groups = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        bind(events.as_raw_fd(), &NetlinkAddr::new(0, groups)).unwrap();
        let ruleset = ruleset();
        let client = raw_socket();
        let transaction = encode::install(&ruleset, false, None);
        let mut datagrams = ask(&client, transaction.bytes());
        // The table is there already.
        datagrams.extend(ask(&client, transaction.bytes()));
        connect();
        for request in requests(&ruleset) {
            datagrams.extend(ask(&client, request.bytes()));
        }
        let conntrack = Conntrack::asking(|_, _| vec![Dump::default()]);
        conntrack.delete(&[], &|_| true).unwrap();
        datagrams.extend(queued(&events));
        datagrams.iter().flat_map(|bytes| separate(bytes)).collect()
    })
}

/// The message that ends a list.
pub fn end_of_list() -> Vec<u8> {
    control_message(libc::NLMSG_DONE, 1)
}

/// The message that acknowledges the request with this sequence number.
pub fn acknowledgement(sequence: u32) -> Vec<u8> {
    control_message(libc::NLMSG_ERROR, sequence)
}

/// An error number of 0 is where other messages have their family.
fn control_message(kind: i32, sequence: u32) -> Vec<u8> {
    let message = Request::new(kind as u16, 0, 0, sequence);
    message.bytes().to_vec()
}

fn up() {
    let ip = |arguments: &[&str]| {
        let status = Command::new("ip").args(arguments).status().unwrap();
        assert!(status.success(), "ip {arguments:?}");
    };
    ip(&["link", "set", "lo", "up"]);
    for address in ADDRESSES {
        // Usable at once: without it, the kernel first looks for a duplicate, in another thread.
        ip(&["address", "add", address, "dev", "lo", "nodad"]);
    }
}

fn ruleset() -> Ruleset {
    let forwards = "tcp/80=10.2.0.11:8080,[fd00:2::11]:8080 udp/7000-7003=10.2.0.11:9000-9003 \
        udp/53=10.2.0.11,10.2.0.12";
    let options = Options {
        forwards: vec![forwards.into()],
        src_ranges: Some("10.1.0.0/24,fd00:1::/64".into()),
        listen: Some("10.1.0.1,fd00:1::1".into()),
        output: Some("true".into()),
        name: Some("recorded".into()),
        ..Options::default()
    };
    Ruleset::new(&Config::new(&options).unwrap())
}

/// Makes connections that are forwarded, and one that has ended.
fn connect() {
    for (host, destination) in [("10.1.0.1", "10.2.0.11"), ("[fd00:1::1]", "[fd00:2::11]")] {
        let _server = TcpListener::bind(format!("{destination}:8080")).unwrap();
        drop(TcpStream::connect(format!("{host}:80")).unwrap());
        let client = UdpSocket::bind(format!("{host}:0")).unwrap();
        client.send_to(b"?", format!("{host}:7000")).unwrap();
    }
}

fn requests(ruleset: &Ruleset) -> Vec<Request> {
    let dump = |message| dump_request(message, TableFamily::Inet);
    let conntrack = (libc::NFNL_SUBSYS_CTNETLINK << 8) as u16;
    let mut requests = vec![
        dump(libc::NFT_MSG_GETTABLE),
        dump(libc::NFT_MSG_GETCHAIN),
        dump(libc::NFT_MSG_GETSET),
        dump(libc::NFT_MSG_GETRULE).text(NFTA_RULE_TABLE, TABLE),
        Request::new(message_type(libc::NFT_MSG_GETGEN), 0, 0, 1),
        Request::new(conntrack | IPCTNL_MSG_CT_GET, libc::NLM_F_DUMP as u16, 0, 1),
    ];
    for set in &ruleset.sets {
        let elements = dump(libc::NFT_MSG_GETSETELEM).text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
        requests.push(elements.text(NFTA_SET_ELEM_LIST_SET, &set.name));
    }
    requests
}

fn raw_socket() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkNetFilter;
    socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).unwrap()
}

fn ask(socket: &OwnedFd, request: &[u8]) -> Vec<Vec<u8>> {
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), request, &kernel, MsgFlags::empty()).unwrap();
    queued(socket)
}

fn queued(socket: &OwnedFd) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        datagrams.push(buffer[..length].to_vec());
    }
    datagrams
}

/// The messages of a datagram.
fn separate(mut datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(length) = datagram.first_chunk() {
        let length = u32::from_ne_bytes(*length) as usize;
        messages.push(datagram[..length].to_vec());
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    messages
}
