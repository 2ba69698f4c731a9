//! The command that lets forwarded connections through another program's firewall.

use crate::config::{Destination, Family, Forward, Service};
use crate::firewall::{Firewall, Location};
use crate::nftables::NftablesError;
use crate::nftables::list::{BaseChain, Hook, TableFamily};

/// Where firewalld rejects translated connections that it does not forward itself (StrictForwardPorts in
/// firewalld.conf(5)), before it looks at policies.
const STRICT: [&str; 2] = ["filter_FORWARD_dnat", "filter_INPUT_dnat"];

/// The command that lets a forward through `chain`, in which its packets end at `location`. Of several
/// forwards, all of them if the firewall can express that in one rule. `None` if no command can name the
/// chain.
pub fn command(
    firewall: &Firewall<'_>,
    chain: &BaseChain,
    location: &Location,
    forwards: &[(&Forward, Destination)],
) -> Result<Option<String>, NftablesError> {
    let table = &chain.table;
    let program = match table.family {
        TableFamily::Ip => "iptables",
        TableFamily::Ip6 => "ip6tables",
        TableFamily::Inet if table.name == "firewalld" && STRICT.contains(&&*location.chain) => {
            return Ok(Some("sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts=no/' /etc/firewalld/firewalld.conf; firewall-cmd --reload".into()));
        }
        TableFamily::Inet if table.name == "firewalld" => {
            let to = if chain.hook == Hook::Input {
                "HOST"
            } else {
                "ANY"
            };
            return Ok(Some(firewalld(forwards, to)));
        }
        TableFamily::Inet | TableFamily::Netdev | TableFamily::Bridge | TableFamily::Arp => {
            return Ok(nft(chain, forwards));
        }
    };
    let to_host = chain.hook == Hook::Input;
    let ufw_chain = match (table.family, to_host) {
        (TableFamily::Ip6, true) => "ufw6-user-input",
        (TableFamily::Ip6, false) => "ufw6-user-forward",
        (_, true) => "ufw-user-input",
        (_, false) => "ufw-user-forward",
    };
    let docker = !to_host && firewall.has_chain(table, "DOCKER-USER")?;
    let ufw = firewall.has_chain(table, ufw_chain)?;
    // Docker's chains come before ufw's.
    Ok(
        if docker && (location.chain.starts_with("DOCKER") || !ufw) {
            Some(format!("{program} -I DOCKER-USER {}", iptables(forwards)))
        } else if ufw {
            Some(ufw_allow(forwards, if to_host { "" } else { "route " }))
        } else if table.name == "filter" && ["FORWARD", "INPUT"].contains(&&*chain.name) {
            let rule = iptables(forwards);
            Some(format!("{program} -I {} {rule}", chain.name))
        } else {
            nft(chain, forwards)
        },
    )
}

/// What takes a rule or a policy out of the way, and the command for it. `None` if no command can name the
/// chain.
pub fn removal(location: &Location) -> (&'static str, Option<String>) {
    let chain = location.table.for_nft(Some(&location.chain));
    match location.rule {
        Some(rule) => (
            "remove that rule with",
            chain.map(|chain| format!("nft delete rule {chain} handle {rule}")),
        ),
        None => (
            "set the policy to accept with",
            chain.map(|chain| format!("nft 'chain {chain} {{ policy accept; }}'")),
        ),
    }
}

/// The service of all forwards, of either family, if they have the same protocol and ports. These
/// identify a connection in both directions, whatever its destination is.
fn common(forwards: &[(&Forward, Destination)]) -> Option<Service> {
    let mut services = forwards.iter().map(|(forward, _)| forward.service);
    let first = services.next()?;
    let same = |other: Service| (other.protocol, other.ports) == (first.protocol, first.ports);
    services.all(same).then_some(first)
}

/// What a rule of iptables(8) ends with that accepts forwards.
pub fn iptables(forwards: &[(&Forward, Destination)]) -> String {
    match common(forwards) {
        None => "-m conntrack --ctstate DNAT -j ACCEPT".into(),
        Some(Service {
            protocol, ports, ..
        }) => format!(
            "-p {protocol} -m conntrack --ctstate DNAT --ctorigdstport {} -j ACCEPT",
            ports.to_string().replace('-', ":")
        ),
    }
}

fn nft(chain: &BaseChain, forwards: &[(&Forward, Destination)]) -> Option<String> {
    let condition = match common(forwards) {
        None => String::new(),
        Some(Service {
            protocol, ports, ..
        }) => {
            format!("meta l4proto {protocol} ct original proto-dst {ports} ")
        }
    };
    let chain = chain.table.for_nft(Some(&chain.name))?;
    Some(format!(
        "nft insert rule {chain} {condition}ct status dnat accept"
    ))
}

/// ufw(8) lets replies through by itself. Each destination needs a command.
fn ufw_allow(forwards: &[(&Forward, Destination)], direction: &str) -> String {
    for_each(forwards, |forward, to| {
        format!(
            "ufw {direction}allow proto {} to {} port {}",
            forward.service.protocol,
            to.address,
            to.ports.to_string().replace('-', ":")
        )
    })
}

/// firewall-cmd(1) lets replies through by itself. Between zones, only a policy lets anything through; to this
/// host, as `HOST`, one does too.
fn firewalld(forwards: &[(&Forward, Destination)], egress: &str) -> String {
    for_each(forwards, |forward, to| {
        let family = match forward.service.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        // A policy leads to this host or to zones, not to both.
        let name = if egress == "HOST" {
            "nodefwd-host"
        } else {
            "nodefwd"
        };
        let policy = format!("firewall-cmd --permanent --policy={name}");
        format!(
            "firewall-cmd --permanent --new-policy={name}; {policy} --add-ingress-zone=ANY; {policy} --add-egress-zone={egress}; {policy} --add-rich-rule='rule family={family} destination address={} port port={} protocol={} accept'; firewall-cmd --reload",
            to.address, to.ports, forward.service.protocol
        )
    })
}

fn for_each(
    forwards: &[(&Forward, Destination)],
    command: impl Fn(&Forward, &Destination) -> String,
) -> String {
    let first = forwards.first().map(|(forward, to)| command(forward, to));
    let others = if forwards.len() > 1 {
        " (and so for each)"
    } else {
        ""
    };
    first.unwrap_or_default() + others
}
