//! Connections of which this host routes only one way, past it the other way. Conntrack finds packets of
//! them invalid, and they are none of nodefwd's business.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::fixture::{
    BACKEND_PORT, Bridge, EVENT_TIMEOUT, FORWARDED_PORT, Family, Host, Namespace, Net, Protocol,
    forward_to, nodefwd,
};

/// More than any window, so that no part of the window's tracking is left out.
const BYTES: usize = 1 << 22;

/// Has the server, and then the client, send many bytes.
fn expect_transfer(client: &Namespace, server: &Namespace, to: SocketAddr) {
    let listener = server.run(|| TcpListener::bind(to).expect("a listener"));
    let serving = thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("a connection");
        limit(&connection);
        connection.write_all(&vec![b's'; BYTES]).expect("sent");
        receive(&mut connection);
    });
    let mut connection = client.run(|| TcpStream::connect_timeout(&to, EVENT_TIMEOUT));
    let connection = connection.as_mut().expect("a connection");
    limit(connection);
    receive(connection);
    connection.write_all(&vec![b'c'; BYTES]).expect("sent");
    serving.join().expect("the server");
}

fn limit(connection: &TcpStream) {
    let set = connection.set_read_timeout(Some(EVENT_TIMEOUT));
    set.expect("a read timeout");
    let set = connection.set_write_timeout(Some(EVENT_TIMEOUT));
    set.expect("a write timeout");
}

fn receive(connection: &mut TcpStream) {
    let received = connection.read_exact(&mut vec![0; BYTES]);
    received.expect("all bytes");
}

/// The hardware address of the receiver's end.
const LINK: &str = "02:00:00:00:00:02";

/// Gives two hosts a link of their own; `sender` alone uses it.
fn add_one_way_link(sender: &Host, receiver: &Host) {
    let inside = receiver.name();
    sender.ip(&format!(
        "link add direct type veth peer name direct address {LINK} netns {inside}
         link set direct up"
    ));
    receiver.ip("link set direct up");
    let [v4, v6] = Family::BOTH.map(|family| receiver.address(family));
    sender.ip(&format!(
        "route add {v4} dev direct
         route add {v6} dev direct
         neigh add {v4} lladdr {LINK} dev direct
         neigh add {v6} lladdr {LINK} dev direct"
    ));
}

#[test]
fn connections_that_are_routed_one_way_only_are_left_alone() {
    for (to_server_directly, masquerade) in
        [(true, true), (true, false), (false, true), (false, false)]
    {
        let net = Net::new(1);
        let (other, backend) = (net.another_client(2), &net.backends[0]);
        let hosts = if to_server_directly {
            [&other, backend]
        } else {
            [backend, &other]
        };
        add_one_way_link(hosts[0], hosts[1]);
        for listen in ["local", "any"] {
            let call = forward_to(Protocol::Tcp, &net.backends);
            let masquerade = format!("--masquerade={masquerade}");
            let _forwarder = call
                .args(&["--listen", listen, &masquerade])
                .start(&net.node);
            for family in Family::BOTH {
                // A destination's port, and the forwarded one at another host.
                let mut ports = vec![BACKEND_PORT];
                if listen == "local" || to_server_directly {
                    ports.push(FORWARDED_PORT);
                }
                for port in ports {
                    let to = SocketAddr::new(backend.address(family), port);
                    expect_transfer(&other, backend, to);
                }
            }
        }
    }
}

/// To the forwarded port of a neighbour, and to a port that is also a destination's.
#[test]
fn connections_that_pass_a_bridge_one_way_only_are_left_alone() {
    for to_server_directly in [true, false] {
        let net = Net::new(1);
        let bridge = Bridge::new(&net.node, 2);
        let [client, server] = [&bridge.hosts[0], &bridge.hosts[1]];
        if to_server_directly {
            add_one_way_link(client, server);
        } else {
            add_one_way_link(server, client);
        }
        for options in [
            &["--listen=any"][..],
            &["--listen=any", "--masquerade=false"],
            &["--masquerade=false"],
        ] {
            let to = Family::BOTH.map(|family| {
                let to = SocketAddr::new(server.address(family), BACKEND_PORT);
                format!("tcp/{FORWARDED_PORT}={to}")
            });
            let _forwarder = nodefwd(to).args(options).start(&net.node);
            for family in Family::BOTH {
                for port in [FORWARDED_PORT, BACKEND_PORT] {
                    let to = SocketAddr::new(server.address(family), port);
                    expect_transfer(client, server, to);
                }
            }
        }
    }
}
