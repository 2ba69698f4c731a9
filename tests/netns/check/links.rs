//! The links to destinations: bridges that send no frame back, and ways out that are narrower than the way
//! in.

use std::net::{IpAddr, SocketAddr};

use super::{BACKEND_PORT, FORWARDED_PORT, Report, net, shell, start, start_warnings};
use crate::fixture::{
    Bridge, Family, Host, Namespace, PROTOCOLS_AND_FAMILIES, Protocol, Server, expect_parts,
    expect_reply,
};

/// The node's address on the link to a host.
fn gateway(host: &Host, family: Family) -> SocketAddr {
    SocketAddr::new(host.gateway(family), FORWARDED_PORT)
}

/// Has the node learn the hardware address of a host, and the bridge its port.
fn learn(bridge: &Bridge, node: &Namespace) {
    for host in &bridge.hosts {
        for family in Family::BOTH {
            let to = SocketAddr::new(host.address(family), BACKEND_PORT);
            node.request(Protocol::Udp, to).expect("a reply");
        }
    }
}

fn servers(bridge: &Bridge) -> Vec<Server> {
    let hosts = bridge.hosts.iter();
    hosts.map(|host| host.serve(BACKEND_PORT)).collect()
}

#[test]
fn a_bridge_that_sends_no_frame_back_to_a_destination_is_a_warning_until_it_does() {
    let net = net(0);
    let bridge = Bridge::new(&net.node, 2);
    let _servers = servers(&bridge);
    let forwards = "tcp/80=10.7.0.2:8080,[fd00:7::2]:8080 udp/80=10.7.0.3:8080,[fd00:7::3]:8080 tcp/81=10.7.0.3:8080";
    let call = format!("--hairpin {forwards}");
    // Which port each is behind is not known yet.
    let report = Report::of(&net.node, &call);
    let line = report.only("warning", "hairpin");
    expect_parts(
        &line.text,
        ["not looked at: ", "bridge br0", "10.7.0.2, 10.7.0.3"],
    );
    learn(&bridge, &net.node);
    let destinations = [
        (Protocol::Tcp, &bridge.hosts[0], "bridged-1"),
        (Protocol::Udp, &bridge.hosts[1], "bridged-2"),
    ];
    let instance = start(&net, &call);
    for (protocol, host, _) in destinations {
        for family in Family::BOTH {
            host.expect_silence(protocol, gateway(host, family));
        }
    }
    drop(instance);
    // Those of others come through, so without the option there is nothing to say.
    Report::of(&net.node, forwards).expect_ok();
    let log = start_warnings::log_of_start(&net, &call);
    let report = Report::of(&net.node, &call);
    let lines = report.of_level("warning");
    assert_eq!(lines.len(), 2, "{report:#?}");
    for (line, port) in lines.iter().zip(["bridged-1", "bridged-2"]) {
        assert_eq!(
            line.command(),
            format!("bridge link set dev {port} hairpin on")
        );
        expect_parts(&log, [format!("warning: hairpin: {}\n", line.text)]);
        shell(&net.node, line.command());
    }
    Report::of(&net.node, &call).expect_ok();
    let _instance = start(&net, &call);
    for (protocol, host, name) in destinations {
        for family in Family::BOTH {
            let reply = host.request(protocol, gateway(host, family));
            expect_reply(reply, name, host.gateway(family));
        }
    }
}

/// Where netfilter does not see the bridge's frames, this host routes them, and the bridge sends them out of
/// any port. Either family has a switch for all bridges, and each bridge one of its own.
#[test]
fn a_bridge_whose_frames_netfilter_does_not_see_needs_no_hairpin() {
    let net = net(0);
    let bridge = Bridge::new(&net.node, 1);
    let _servers = servers(&bridge);
    learn(&bridge, &net.node);
    let call = "--hairpin tcp/80=10.7.0.2:8080,[fd00:7::2]:8080";
    let host = &bridge.hosts[0];
    let switch = |family, on: bool| {
        let name = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let value = if on { "1" } else { "0" };
        net.node
            .set_sysctl(&format!("net/bridge/bridge-nf-call-{name}"), value);
        name
    };
    for family in Family::BOTH {
        switch(family, false);
    }
    Report::of(&net.node, call).expect_ok();
    for family in Family::BOTH {
        let name = switch(family, true);
        Report::of(&net.node, call).only("warning", "hairpin");
        switch(family, false);
        let of_bridge = format!("link set br0 type bridge nf_call_{name}");
        net.node.ip(&format!("{of_bridge} 1"));
        Report::of(&net.node, call).only("warning", "hairpin");
        net.node.ip(&format!("{of_bridge} 0"));
    }
    let _instance = start(&net, call);
    for family in Family::BOTH {
        let reply = host.request(Protocol::Tcp, gateway(host, family));
        expect_reply(reply, "bridged-1", host.gateway(family));
    }
}

/// As with an uplink that is a port of a bridge, and a destination on that side of it: with br_netfilter, no
/// client's packet would come through.
#[test]
fn clients_behind_the_same_port_of_a_bridge_as_a_destination_are_a_failure() {
    let net = net(0);
    let bridge = Bridge::new(&net.node, 1);
    let _servers = servers(&bridge);
    let host = &bridge.hosts[0];
    host.ip("addr add 10.7.0.99/24 dev eth0\naddr add fd00:7::99/64 dev eth0 nodad");
    let call = "tcp/80=10.7.0.2:8080,[fd00:7::2]:8080 udp/80=10.7.0.2:8080,[fd00:7::2]:8080";
    Report::of(&net.node, call).expect_ok();
    net.node
        .ip("route replace default via 10.7.0.99\nroute replace default via fd00:7::99");
    learn(&bridge, &net.node);
    let other: [IpAddr; 2] =
        ["10.7.0.99", "fd00:7::99"].map(|text| text.parse().expect("an address"));
    for address in other {
        let closed = SocketAddr::new(address, BACKEND_PORT);
        net.node.expect_refused(Protocol::Udp, closed);
    }
    let from = |family| SocketAddr::new(other[usize::from(family == Family::V6)], 0);
    let instance = start(&net, call);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        host.expect_silence_from(protocol, from(family), gateway(host, family));
    }
    drop(instance);
    for _ in Family::BOTH {
        let report = Report::of(&net.node, call);
        shell(&net.node, report.only("failure", "hairpin").command());
    }
    Report::of(&net.node, call).expect_ok();
    let _instance = start(&net, call);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let reply = host.request_from(protocol, from(family), gateway(host, family));
        expect_reply(reply, "bridged-1", host.gateway(family));
    }
}

#[test]
fn a_way_out_that_is_narrower_than_the_way_in_is_a_warning_unless_the_mss_is_clamped() {
    let net = net(2);
    let call = "tcp/80=10.2.1.2,fd00:2:1::2 udp/80=10.2.2.2,fd00:2:2::2";
    let narrow = |text: &[&str]| {
        let report = Report::of(&net.node, call);
        expect_parts(&report.only("warning", "MTU").text, text);
        Report::of(&net.node, &format!("--clamp-mss {call}")).expect_ok();
    };
    // A narrow way in, or one to a destination of UDP, is no matter.
    net.node
        .ip("link set client mtu 1420\nlink set backend-2 mtu 1300");
    Report::of(&net.node, call).expect_ok();
    net.node.ip("link set backend-1 mtu 1419");
    narrow(&[
        "10.2.1.2, fd00:2:1::2 ",
        "backend-1 with at most 1419",
        "client with up to 1420",
        "--clamp-mss",
    ]);
    net.node.ip("link set backend-1 mtu 1500");
    Report::of(&net.node, call).expect_ok();
    // The MTU of a route.
    net.node.ip("route add 10.2.1.2 dev backend-1 mtu 1300");
    narrow(&["packets to 10.2.1.2 leave on backend-1 with at most 1300"]);
    net.node
        .ip("route del 10.2.1.2\nroute add fd00:2:1::2 dev backend-1 mtu 1300");
    narrow(&["packets to fd00:2:1::2 leave on backend-1 with at most 1300"]);
    // Of an instance that runs, the option is read back.
    let instance = start(&net, &format!("--clamp-mss {call}"));
    Report::of(&net.node, "").expect_ok();
    drop(instance);
    let _instance = start(&net, call);
    Report::of(&net.node, "").only("warning", "MTU");
}
