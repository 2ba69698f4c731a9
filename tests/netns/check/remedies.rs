//! Remedies that turn forwarding on, in hosts and pods: each is run, and traffic passes.

use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use nix::libc::SOCK_RAW;
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};

use super::firewall::is_forwarded;
use super::{BACKEND_PORT, FORWARDED_PORT, Report, net, shell, start};
use crate::fixture::{
    Family, Namespace, Net, Nodefwd, Protocol, SILENCE_TIMEOUT, expect_parts, nodefwd, wait_until,
};

const V6: &str = "tcp/80=[fd00:2:1::2]:8080";

/// Sends a router advertisement with a prefix (RFC 4861, sections 4.2 and 4.6.2) to all hosts on a link.
fn advertise(router: &Namespace) {
    let mut packet = vec![134, 0, 0, 0, 64, 0];
    packet.extend(1800u16.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([3, 4, 64, 0xc0]);
    packet.extend(3600u32.to_be_bytes());
    packet.extend(3600u32.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0).octets());
    router.run(|| {
        let kind = Type::from(SOCK_RAW);
        let socket = Socket::new(Domain::IPV6, kind, Some(IpProtocol::ICMPV6)).expect("a socket");
        socket.set_multicast_hops_v6(255).expect("a hop limit");
        // The router itself would take it too.
        socket.set_multicast_loop_v6(false).expect("an option");
        let index = nix::net::if_::if_nametoindex("eth0").expect("an interface");
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let to = SocketAddrV6::new(all_nodes, 0, 0, index);
        socket.send_to(&packet, &to.into()).expect("sent");
    });
}

/// Waits until the node has a default route from an advertisement.
fn wait_for_route(net: &Net) {
    let routes = || {
        advertise(&net.client);
        net.node.succeed("ip", &["-6", "route", "show", "default"])
    };
    wait_until("a default route", routes, |routes| {
        routes.contains("proto ra")
    });
}

/// A client beyond the router: only the default route leads to it.
fn is_served_elsewhere(net: &Net) -> bool {
    let to = net.node_addr(Family::V6, FORWARDED_PORT);
    let from: SocketAddr = "[2001:db8::7]:0".parse().expect("an address");
    let request = net
        .client
        .request_within(SILENCE_TIMEOUT, Protocol::Tcp, Some(from), to);
    request.is_ok()
}

/// A host that has its IPv6 default route from advertisements: with forwarding, the kernel would drop it.
fn advertised() -> Net {
    let net = Net::new(1);
    net.node.ip("route add default via 10.1.1.2");
    net.client
        .add_loopback_address("2001:db8::7".parse().expect("an address"));
    // Otherwise its neighbour advertisements say that it is no router, and the route goes.
    net.client.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    net.node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    wait_for_route(&net);
    net
}

#[test]
fn ipv6_forwarding_is_turned_on_without_losing_the_default_route() {
    let net = advertised();
    let _server = net.backends[0].serve(BACKEND_PORT);
    let report = Report::of(&net.node, V6);
    let failure = report.line("failure", "forwarding");
    let command = "sysctl -w net.ipv6.conf.client.accept_ra=2 net.ipv6.conf.all.forwarding=1";
    assert_eq!(failure.command(), command);
    let kept = "write net.ipv6.conf.client.accept_ra=2 and net.ipv6.conf.all.forwarding=1 to a file in /etc/sysctl.d";
    expect_parts(&failure.text, [kept]);
    // A start says the same.
    let refused = nodefwd([V6]).finish(&net.node).expect_exit(1);
    expect_parts(&refused.stderr, [command]);
    shell(&net.node, command);
    Report::of(&net.node, V6).expect_ok();
    let _instance = start(&net, V6);
    assert!(is_served_elsewhere(&net));
}

#[test]
fn a_host_that_has_lost_its_default_route_so_is_noticed() {
    let net = advertised();
    let _server = net.backends[0].serve(BACKEND_PORT);
    net.node.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    let _instance = start(&net, V6);
    assert!(!is_served_elsewhere(&net));
    let report = Report::of(&net.node, "");
    let failures = report.of_level("failure");
    assert_eq!(failures.len(), 1, "{report:#?}");
    expect_parts(&failures[0].text, ["client ignores router advertisements"]);
    let command = failures[0].command();
    assert_eq!(command, "sysctl -w net.ipv6.conf.client.accept_ra=2");
    shell(&net.node, command);
    wait_for_route(&net);
    Report::of(&net.node, "").expect_ok();
    assert!(is_served_elsewhere(&net));
}

/// As a pod sees it: /proc/sys cannot be written to.
fn in_a_pod(call: &Nodefwd) -> Nodefwd {
    let script =
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    let call = call.clone().env("KUBERNETES_SERVICE_HOST", "10.43.0.1");
    call.wrapped(&["unshare", "--mount", "sh", "-c", script, "sh"])
}

#[test]
fn in_a_pod_the_pods_own_fields_turn_it_on() {
    let net = net(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    for (file, name, forward, family) in [
        (
            "net/ipv4/ip_forward",
            "net.ipv4.ip_forward",
            "tcp/80=10.2.1.2:8080",
            Family::V4,
        ),
        (
            "net/ipv6/conf/all/forwarding",
            "net.ipv6.conf.all.forwarding",
            V6,
            Family::V6,
        ),
    ] {
        net.node.set_sysctl(file, "0");
        let report = Report::from(&in_a_pod(&nodefwd(["check", forward])), &net.node);
        let failure = report.line("failure", "forwarding");
        let field = format!("securityContext: {{sysctls: [{{name: {name}, value: \"1\"}}]}}");
        expect_parts(&failure.text, [&*field, "allow_ip_forwarding: true"]);
        assert!(!failure.text.contains("sysctl -w"), "{failure:?}");
        let refused = in_a_pod(&nodefwd([forward]))
            .finish(&net.node)
            .expect_exit(1);
        expect_parts(&refused.stderr, [field]);
        // As the kubelet does before the containers start.
        net.node.set_sysctl(file, "1");
        Report::from(&in_a_pod(&nodefwd(["check", forward])), &net.node).expect_ok();
        let instance = in_a_pod(&nodefwd([forward])).start(&net.node);
        assert!(is_forwarded(&net, Protocol::Tcp, family));
        drop(instance);
        net.node.wait_for_rules("");
    }
}

/// Such as Wake-on-LAN.
#[test]
fn packets_to_a_broadcast_address_are_forwarded_after_the_command() {
    let net = net(1);
    let forward = "udp/80=10.2.1.255:9";
    let socket = net.backends[0].run(|| UdpSocket::bind("0.0.0.0:9").expect("a socket"));
    socket
        .set_read_timeout(Some(SILENCE_TIMEOUT))
        .expect("a timeout");
    let arrives = || {
        let _instance = start(&net, forward);
        let to = net.node_addr(Family::V4, FORWARDED_PORT);
        let _ = net
            .client
            .request_within(SILENCE_TIMEOUT, Protocol::Udp, None, to);
        let mut byte = [MaybeUninit::uninit(); 1];
        Socket::from(socket.try_clone().expect("a socket"))
            .recv(&mut byte)
            .is_ok()
    };
    assert!(!arrives());
    net.node.wait_for_rules("");
    let report = Report::of(&net.node, forward);
    let about = report.of_level("failure");
    assert_eq!(about.len(), 1, "{report:#?}");
    let command =
        "sysctl -w net.ipv4.conf.all.bc_forwarding=1 net.ipv4.conf.client.bc_forwarding=1";
    assert_eq!(about[0].command(), command);
    shell(&net.node, command);
    let report = Report::of(&net.node, forward);
    assert_eq!(report.of_level("failure").len(), 0, "{report:#?}");
    let warnings = report.of_level("warning");
    expect_parts(
        &warnings[0].text,
        ["its hosts get the packets, but no client gets their replies"],
    );
    assert!(arrives());

    let report = Report::of(&net.node, "tcp/80=10.2.1.255:9");
    expect_parts(
        &report.of_level("failure")[0].text,
        ["no tcp connection can be made to it"],
    );
}
