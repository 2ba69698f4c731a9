//! The two that are compared: how each is told to forward.

use std::net::{IpAddr, SocketAddr};

use crate::fixture::BACK;
use crate::fixture::{Family, Host, Namespace, Net, Process, Protocol, nodefwd};

/// What both are told.
#[derive(Clone, Copy)]
pub struct Options {
    pub ranges: &'static str,
    pub hairpin: bool,
}

/// A port for each protocol, as two of Kubernetes' containers in one pod have it.
pub fn front(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 80,
        Protocol::Udp => 53,
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Contender {
    Nodefwd,
    /// The real one, with this back end.
    Iptables(&'static str),
}

impl Contender {
    pub const ALL: [Contender; 3] = [
        Contender::Nodefwd,
        Contender::Iptables("nft"),
        Contender::Iptables("legacy"),
    ];

    /// Forwards both protocols and families on the node to these hosts.
    pub fn install(self, net: &Net, options: Options, destinations: &[Host]) -> Vec<Process> {
        let addresses = |family| destinations.iter().map(move |host| host.address(family));
        let addresses: Vec<_> = Family::BOTH.into_iter().flat_map(addresses).collect();
        match self {
            Contender::Nodefwd => {
                let start = |protocol| start(net, protocol, options, &addresses);
                Protocol::BOTH.map(start).into()
            }
            Contender::Iptables(back_end) => {
                for protocol in Protocol::BOTH {
                    for rule in classical_rules(protocol, options, &addresses) {
                        add(&net.node, back_end, &rule);
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
        .env("SRC_PORT", front(protocol).to_string())
        .env("DEST_PORT", BACK.to_string())
        .env("SRC_RANGES", options.ranges)
        .env("NODEFWD_HAIRPIN", options.hairpin.to_string())
        .start(&net.node)
}

/// One port's rules, in the order in which they are made. Hairpin is what newer versions of
/// klipper-lb do; older ones except the destination's own packets.
fn classical_rules(protocol: Protocol, options: Options, addresses: &[IpAddr]) -> Vec<String> {
    let (name, front) = (protocol.name(), front(protocol));
    let ranges = options.ranges.split(',').filter(|range| !range.is_empty());
    let mut rules: Vec<_> = ranges
        .map(|range| format!("-I FORWARD -s {range} -p {name} --dport {BACK} -j ACCEPT"))
        .collect();
    for address in addresses {
        let except = match options.hairpin {
            true => String::new(),
            false => format!("! -s {address}"),
        };
        let to = SocketAddr::new(*address, BACK);
        rules.extend([
            format!("-A FORWARD -d {address} -p {name} --dport {BACK} -j DROP"),
            format!("-t nat -I PREROUTING {except} -p {name} --dport {front} -j DNAT --to {to}"),
            format!("-t nat -I POSTROUTING -d {address} -p {name} -j MASQUERADE"),
        ]);
    }
    rules
}

fn add(node: &Namespace, back_end: &str, rule: &str) {
    let program = match rule.contains("::") {
        true => format!("ip6tables-{back_end}"),
        false => format!("iptables-{back_end}"),
    };
    // The legacy one has a lock that all namespaces share.
    let arguments: Vec<_> = ["--wait"]
        .into_iter()
        .chain(rule.split_whitespace())
        .collect();
    node.succeed(&program, &arguments);
}
