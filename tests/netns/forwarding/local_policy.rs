//! What a Service with `externalTrafficPolicy: Local` asks for: the pod forwards to the addresses
//! of the very host that it runs on, at another port, and has one family only.

use std::net::SocketAddr;

use crate::fixture::{FRONT, expect_answer};
use crate::fixture::{Family, Net, Nodefwd, Process, Protocol, Server, nodefwd};

/// Where the host itself serves.
const NODE_PORT: u16 = 30080;

/// The namespace in the middle is the host here, and what is a backend elsewhere is the pod.
struct Cluster {
    net: Net,
    _server: Server,
}

impl Cluster {
    fn new() -> Self {
        let net = Net::new(1);
        let addresses = Family::BOTH.map(|family| net.front(family, NODE_PORT));
        let server = Server::start(&net.node, "host", &addresses);
        net.backends[0].set_sysctl("net/ipv4/ip_forward", "1");
        Cluster {
            net,
            _server: server,
        }
    }

    /// The environment as the controller sets it: all that the host has, whatever the pod can.
    fn call(&self) -> Nodefwd {
        let host = Family::BOTH.map(|family| self.net.client.gateway(family).to_string());
        nodefwd([""; 0])
            .env("SRC_PORT", FRONT.to_string())
            .env("SRC_RANGES", "0.0.0.0/0")
            .env("DEST_PROTO", "TCP")
            .env("DEST_PORT", NODE_PORT.to_string())
            .env("DEST_IPS", host.join(","))
    }

    fn start(&self) -> Process {
        self.call().start(&self.net.backends[0])
    }

    fn pod(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.net.backends[0].address(family), FRONT)
    }
}

#[test]
fn the_hosts_own_addresses_are_forwarded_to_over_the_family_that_the_pod_has() {
    let cluster = Cluster::new();
    let Cluster { net, .. } = &cluster;
    let _forwarder = cluster.start();
    let pod = cluster.pod(Family::V4);
    let answer = net.client.request(Protocol::Tcp, pod);
    expect_answer(answer, "host", pod.ip());
    net.client.expect_refused(Protocol::Udp, pod);
    net.client
        .expect_refused(Protocol::Tcp, cluster.pod(Family::V6));
}

/// The way from outside: the host's port leads to the pod, and the pod leads back to the host.
#[test]
fn the_hosts_port_leads_through_the_pod_and_back() {
    let cluster = Cluster::new();
    let Cluster { net, .. } = &cluster;
    let pod = cluster.pod(Family::V4);
    net.node.load(&format!(
        "table ip hostport {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                fib daddr type local tcp dport {FRONT} dnat to {pod}
            }}
        }}"
    ));
    let _forwarder = cluster.start();
    let answer = net
        .client
        .request(Protocol::Tcp, net.front(Family::V4, FRONT));
    expect_answer(answer, "host", pod.ip());
}

#[test]
fn the_family_that_the_pod_lacks_is_one_warning() {
    let cluster = Cluster::new();
    let forwarder = cluster.start();
    let stderr = forwarder.stderr();
    let (ready, others): (Vec<_>, Vec<_>) =
        stderr.lines().partition(|line| line.starts_with("ready"));
    assert_eq!(ready.len(), 1, "{stderr}");
    let [warning] = others[..] else {
        panic!("not one warning:\n{stderr}");
    };
    assert!(warning.starts_with("warning:"), "{warning}");
    for word in ["IPv6", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        assert!(warning.contains(word), "'{word}' is not in: {warning}");
    }
    assert!(!ready[0].contains("fd00"), "{stderr}");
    let rules = cluster.net.backends[0].ruleset();
    assert!(!rules.contains("fd00"), "{rules}");
}
