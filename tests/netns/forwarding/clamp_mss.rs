//! Large transfers over a way that is narrower than the interfaces at both ends, where ICMP is dropped.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, Host, Net, Protocol, SILENCE_TIMEOUT,
    forward_to, nodefwd,
};

/// As much as needs many full segments.
pub const BYTES: usize = 200_000;

/// What would tell the ends that their segments are too large.
const WITHOUT_ICMP: &str = "table inet blind {
    chain input {
        type filter hook input priority filter;
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
    }
}";

/// A client and a backend that never learn of a path's MTU, and the node's link to one of them narrow.
fn net_with_narrow_link(link: &str, mtu: u16) -> Net {
    let net = Net::new(1);
    for host in [&net.client, &net.backends[0]] {
        host.load(WITHOUT_ICMP);
    }
    net.node.ip(&format!("link set {link} mtu {mtu}"));
    net
}

/// Reads all that a client sends, and sends as much back, until the test run ends.
pub fn serve(host: &Host, family: Family) {
    serve_with(host, family, |mut connection| {
        let mut received = Vec::new();
        connection.read_to_end(&mut received)?;
        connection.write_all(&received)
    });
}

/// Answers each client until the test run ends.
fn serve_with(host: &Host, family: Family, answer: fn(TcpStream) -> io::Result<()>) {
    let address = SocketAddr::new(host.address(family), BACKEND_PORT);
    let listener = host.run(|| TcpListener::bind(address)).expect("a listener");
    thread::spawn(move || {
        for connection in listener.incoming() {
            // The client reports what goes wrong.
            let _ = connection.and_then(answer);
        }
    });
}

/// A connection that waits so long for each byte.
fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(to)?;
    connection.set_read_timeout(Some(patience))?;
    connection.set_write_timeout(Some(patience))?;
    Ok(connection)
}

/// How many bytes come back before nothing comes for so long.
pub fn exchange(to: SocketAddr, patience: Duration) -> io::Result<usize> {
    let mut connection = connect(to, patience)?;
    connection.write_all(&vec![b'x'; BYTES])?;
    connection.shutdown(Shutdown::Write)?;
    let mut received = Vec::new();
    connection.read_to_end(&mut received)?;
    Ok(received.len())
}

#[track_caller]
fn expect_large_transfer(link: &str, mtu: u16, options: &[&str]) {
    let net = net_with_narrow_link(link, mtu);
    let call = forward_to(Protocol::Tcp, &net.backends).args(options);
    let _forwarder = call.start(&net.node);
    for family in Family::BOTH {
        serve(&net.backends[0], family);
        let to = net.node_addr(family, FORWARDED_PORT);
        let bytes = net.client.run(|| exchange(to, EVENT_TIMEOUT));
        let all = bytes.expect("a reply");
        assert_eq!(all, BYTES, "{link} {mtu} {family:?} {options:?}");
    }
}

#[test]
fn segments_fit_a_narrow_way_to_the_destination() {
    for mtu in [1300, 1420] {
        expect_large_transfer("backend-1", mtu, &["--clamp-mss"]);
        expect_large_transfer("backend-1", mtu, &["--clamp-mss", "--masquerade=false"]);
    }
}

#[test]
fn segments_fit_a_narrow_way_to_the_client() {
    for mtu in [1300, 1420] {
        expect_large_transfer("client", mtu, &["--clamp-mss"]);
        expect_large_transfer("client", mtu, &["--clamp-mss", "--masquerade=false"]);
    }
}

/// What a destination sends to a connection of the host's own fits.
#[test]
fn segments_to_the_host_itself_fit() {
    for mtu in [1300, 1420] {
        let net = net_with_narrow_link("backend-1", mtu);
        // A veth takes what is too large for it as long as it is not yet cut into segments.
        net.backends[0].ip("link set eth0 gso_max_segs 1");
        for family in Family::BOTH {
            serve_with(&net.backends[0], family, |mut connection| {
                connection.write_all(&[b'x'; BYTES])
            });
        }
        for masquerade in ["--masquerade=true", "--masquerade=false"] {
            let call = forward_to(Protocol::Tcp, &net.backends);
            let call = call.args(&["--clamp-mss", "--output", masquerade]);
            let _forwarder = call.start(&net.node);
            for family in Family::BOTH {
                let to = net.node_addr(family, FORWARDED_PORT);
                let bytes = net.node.run(|| {
                    let mut received = Vec::new();
                    connect(to, EVENT_TIMEOUT)?.read_to_end(&mut received)?;
                    io::Result::Ok(received.len())
                });
                let all = bytes.expect("the bytes");
                assert_eq!(all, BYTES, "{mtu} {family:?} {masquerade}");
            }
        }
    }
}

/// What the host itself sends does not, since its sockets have a route to its own address, which no rule can
/// change: a running socket does not learn of that path's MTU (Linux 6.18, also with a rule of nft alone), so
/// the route needs it, as the man page says.
#[test]
fn segments_of_the_host_itself_fit_by_the_mtu_of_its_local_route() {
    for mtu in [1300, 1420] {
        let net = net_with_narrow_link("backend-1", mtu);
        let call = forward_to(Protocol::Tcp, &net.backends);
        let _forwarder = call.args(&["--output"]).start(&net.node);
        for family in Family::BOTH {
            serve(&net.backends[0], family);
            let address = net.client.gateway(family);
            net.node.ip(&format!(
                "route replace local {address} dev client table local mtu {mtu}"
            ));
            let to = net.node_addr(family, FORWARDED_PORT);
            let bytes = net.node.run(|| exchange(to, EVENT_TIMEOUT));
            assert_eq!(bytes.expect("a reply"), BYTES, "{mtu} {family:?}");
        }
    }
}

/// Each kind of forward has its destinations in the sets that the rules look into.
#[test]
fn every_kind_of_forward_is_clamped() {
    let net = Net::new(2);
    net.client.load(WITHOUT_ICMP);
    for host in &net.backends {
        host.load(WITHOUT_ICMP);
    }
    net.node
        .ip("link set backend-1 mtu 1300\nlink set backend-2 mtu 1300");
    for family in Family::BOTH {
        net.backends.iter().for_each(|host| serve(host, family));
        let [one, other] = [&net.backends[0], &net.backends[1]].map(|host| match family {
            Family::V4 => host.address(family).to_string(),
            Family::V6 => format!("[{}]", host.address(family)),
        });
        for forward in [
            format!("tcp/70-90={one}:8080"),
            format!("tcp/79-80={one}:8079-8080"),
            format!("tcp/80={one}:8080,{other}:8080"),
        ] {
            let _forwarder = nodefwd([&forward[..], "--clamp-mss"]).start(&net.node);
            let to = net.node_addr(family, FORWARDED_PORT);
            let bytes = net.client.run(|| exchange(to, EVENT_TIMEOUT));
            assert_eq!(bytes.expect("a reply"), BYTES, "{forward}");
        }
    }
}

/// What the option is for: without it, a large segment is lost again and again.
#[test]
fn without_the_option_the_transfer_stops() {
    let net = net_with_narrow_link("backend-1", 1300);
    let _forwarder = forward_to(Protocol::Tcp, &net.backends).start(&net.node);
    serve(&net.backends[0], Family::V4);
    let to = net.node_addr(Family::V4, FORWARDED_PORT);
    let error = net
        .client
        .run(|| exchange(to, SILENCE_TIMEOUT))
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
}

/// Others' connections through this host keep their MSS.
#[test]
fn connections_of_others_are_left_alone() {
    let net = net_with_narrow_link("backend-1", 1300);
    let options = ["--clamp-mss", "--listen=any"];
    let _forwarder = forward_to(Protocol::Tcp, &net.backends)
        .args(&options)
        .start(&net.node);
    for family in Family::BOTH {
        serve(&net.backends[0], family);
        let to = SocketAddr::new(net.backends[0].address(family), BACKEND_PORT);
        let error = net
            .client
            .run(|| exchange(to, SILENCE_TIMEOUT))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    }
}
