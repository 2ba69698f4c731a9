//! The programs that are compared, and how each is set up.

use std::net::{IpAddr, SocketAddr};

use crate::fixture::{BACKEND_PORT, Family, Host, Namespace, Net, Process, Protocol, nodefwd};

/// What is the same for both.
#[derive(Clone, Copy)]
pub struct Options {
    pub ranges: &'static str,
    pub hairpin: bool,
}

/// A port for each protocol, as two of Kubernetes' containers in one pod have it.
pub fn forwarded_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 80,
        Protocol::Udp => 53,
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Implementation {
    Nodefwd,
    /// klipper-lb's rules, loaded by the `iptables` of this kind.
    Iptables(&'static str),
}

impl Implementation {
    pub const ALL: [Implementation; 3] = [
        Implementation::Nodefwd,
        Implementation::Iptables("nft"),
        Implementation::Iptables("legacy"),
    ];

    /// Forwards both protocols and families on the node to these hosts.
    pub fn install(self, net: &Net, options: Options, backends: &[Host]) -> Vec<Process> {
        let addresses = |family| backends.iter().map(move |host| host.address(family));
        let addresses: Vec<_> = Family::BOTH.into_iter().flat_map(addresses).collect();
        match self {
            Implementation::Nodefwd => {
                let start = |protocol| start(net, protocol, options, &addresses);
                Protocol::BOTH.map(start).into()
            }
            Implementation::Iptables(kind) => {
                for protocol in Protocol::BOTH {
                    for rule in klipper_rules(protocol, options, &addresses) {
                        add(&net.node, kind, &rule);
                    }
                }
                Vec::new()
            }
        }
    }
}

fn start(net: &Net, protocol: Protocol, options: Options, addresses: &[IpAddr]) -> Process {
    let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    nodefwd([""; 0])
        .env("DEST_IPS", addresses.join(","))
        .env("DEST_PROTO", protocol.name())
        .env("SRC_PORT", forwarded_port(protocol).to_string())
        .env("DEST_PORT", BACKEND_PORT.to_string())
        .env("SRC_RANGES", options.ranges)
        .env("NODEFWD_HAIRPIN", options.hairpin.to_string())
        .start(&net.node)
}

/// klipper-lb's rules for one port, in the order in which it makes them. Newer versions do hairpin;
/// older ones except the backend's own packets.
fn klipper_rules(protocol: Protocol, options: Options, addresses: &[IpAddr]) -> Vec<String> {
    let (name, port) = (protocol.name(), forwarded_port(protocol));
    let ranges = options.ranges.split(',').filter(|range| !range.is_empty());
    let mut rules: Vec<_> = ranges
        .map(|range| format!("-I FORWARD -s {range} -p {name} --dport {BACKEND_PORT} -j ACCEPT"))
        .collect();
    for address in addresses {
        let except = if options.hairpin {
            String::new()
        } else {
            format!("! -s {address}")
        };
        let to = SocketAddr::new(*address, BACKEND_PORT);
        rules.extend([
            format!("-A FORWARD -d {address} -p {name} --dport {BACKEND_PORT} -j DROP"),
            format!("-t nat -I PREROUTING {except} -p {name} --dport {port} -j DNAT --to {to}"),
            format!("-t nat -I POSTROUTING -d {address} -p {name} -j MASQUERADE"),
        ]);
    }
    rules
}

fn add(node: &Namespace, kind: &str, rule: &str) {
    let family = if rule.contains("::") {
        "ip6tables"
    } else {
        "iptables"
    };
    let program = format!("{family}-{kind}");
    // iptables-legacy has a lock that all namespaces share.
    let arguments: Vec<_> = ["--wait"]
        .into_iter()
        .chain(rule.split_whitespace())
        .collect();
    node.succeed(&program, &arguments);
}
