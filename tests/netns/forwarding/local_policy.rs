//! `externalTrafficPolicy: Local`: the pod forwards to addresses of the host that it runs on, at
//! another port, and has only one of the host's families.

use std::net::SocketAddr;

use crate::fixture::{
    FORWARDED_PORT, Family, Net, Nodefwd, Process, Protocol, Server, expect_parts, expect_reply,
    nodefwd,
};

/// The port at which the host itself serves.
const NODE_PORT: u16 = 30080;

/// The host is the node of the net, and the pod is its backend.
struct Cluster {
    net: Net,
    _server: Server,
}

impl Cluster {
    fn new() -> Self {
        let net = Net::new(1);
        let addresses = Family::BOTH.map(|family| net.node_addr(family, NODE_PORT));
        let server = Server::start(&net.node, "host", &addresses);
        net.backends[0].set_sysctl("net/ipv4/ip_forward", "1");
        Cluster {
            net,
            _server: server,
        }
    }

    /// The environment as the controller sets it: all addresses of the host, whatever families the pod
    /// has.
    fn call(&self) -> Nodefwd {
        let host = Family::BOTH.map(|family| self.net.client.gateway(family).to_string());
        nodefwd([""; 0])
            .env("SRC_PORT", FORWARDED_PORT.to_string())
            .env("SRC_RANGES", "0.0.0.0/0")
            .env("DEST_PROTO", "TCP")
            .env("DEST_PORT", NODE_PORT.to_string())
            .env("DEST_IPS", host.join(","))
    }

    fn start(&self) -> Process {
        self.call().start(&self.net.backends[0])
    }

    fn pod(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.net.backends[0].address(family), FORWARDED_PORT)
    }
}

#[test]
fn the_host_is_reached_over_the_family_that_the_pod_has() {
    let cluster = Cluster::new();
    let Cluster { net, .. } = &cluster;
    let _forwarder = cluster.start();
    let pod = cluster.pod(Family::V4);
    let reply = net.client.request(Protocol::Tcp, pod);
    expect_reply(reply, "host", pod.ip());
    net.client.expect_refused(Protocol::Udp, pod);
    net.client
        .expect_refused(Protocol::Tcp, cluster.pod(Family::V6));
}

/// The path of a client from outside: from the host's port to the pod, and from there to the host.
#[test]
fn a_host_port_leads_through_the_pod_back_to_the_host() {
    let cluster = Cluster::new();
    let Cluster { net, .. } = &cluster;
    let pod = cluster.pod(Family::V4);
    net.node.load(&format!(
        "table ip hostport {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                fib daddr type local tcp dport {FORWARDED_PORT} dnat to {pod}
            }}
        }}"
    ));
    let _forwarder = cluster.start();
    let reply = net
        .client
        .request(Protocol::Tcp, net.node_addr(Family::V4, FORWARDED_PORT));
    expect_reply(reply, "host", pod.ip());
}

#[test]
fn the_family_that_the_pod_lacks_is_named_in_one_warning() {
    let cluster = Cluster::new();
    let forwarder = cluster.start();
    let stderr = forwarder.stderr();
    // All tests can run with a fast path.
    let lines = stderr.lines().filter(|line| !line.contains("fast path: "));
    let (ready, others): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("ready"));
    assert_eq!(ready.len(), 1, "{stderr}");
    let [warning] = others[..] else {
        panic!("there should be one warning:\n{stderr}");
    };
    assert!(warning.starts_with("warning:"), "{warning}");
    expect_parts(warning, ["IPv6", "/proc/sys/net/ipv6/conf/all/forwarding"]);
    assert!(!ready[0].contains("fd00"), "{stderr}");
    let rules = cluster.net.backends[0].ruleset();
    assert!(!rules.contains("fd00"), "{rules}");
}
