//! The command that lets forwarded connections through somebody's firewall.

use crate::config::{Destination, Family, Forward};
use crate::netfilter::{BaseChain, Firewall, NetfilterError, Place, TableFamily};

/// The command that lets a forward through `chain`, in which its packets end at `place`. Of several
/// forwards, all of them if the firewall can say that in one rule.
pub fn command(
    firewall: &Firewall<'_>,
    chain: &BaseChain,
    place: &Place,
    forwards: &[(&Forward, Destination)],
) -> Result<String, NetfilterError> {
    let table = &chain.table;
    let program = match table.family {
        TableFamily::Ip => "iptables",
        TableFamily::Ip6 => "ip6tables",
        TableFamily::Inet if table.name == "firewalld" => return Ok(firewalld(forwards)),
        TableFamily::Inet => return Ok(nft(chain, forwards)),
    };
    let ufw_chain = match table.family {
        TableFamily::Ip6 => "ufw6-user-forward",
        _ => "ufw-user-forward",
    };
    let docker = firewall.has_chain(table, "DOCKER-USER")?;
    let ufw = firewall.has_chain(table, ufw_chain)?;
    // Docker's chains come before ufw's.
    Ok(if docker && (place.chain.starts_with("DOCKER") || !ufw) {
        format!("{program} -I DOCKER-USER {}", iptables(forwards))
    } else if ufw {
        ufw_route(forwards)
    } else if table.name == "filter" && chain.name == "FORWARD" {
        format!("{program} -I FORWARD {}", iptables(forwards))
    } else {
        nft(chain, forwards)
    })
}

/// The protocol and port that all are made to, if those are the same. Connections are known by
/// these in both directions, wherever they go.
fn common<'a>(forwards: &[(&'a Forward, Destination)]) -> Option<&'a Forward> {
    let (first, _) = forwards.first()?;
    let same = |(forward, _): &(&Forward, Destination)| {
        (forward.protocol, forward.ports) == (first.protocol, first.ports)
    };
    forwards.iter().all(same).then_some(first)
}

fn iptables(forwards: &[(&Forward, Destination)]) -> String {
    match common(forwards) {
        None => "-m conntrack --ctstate DNAT -j ACCEPT".into(),
        Some(Forward {
            protocol, ports, ..
        }) => format!(
            "-p {protocol} -m conntrack --ctstate DNAT --ctorigdstport {} -j ACCEPT",
            ports.to_string().replace('-', ":")
        ),
    }
}

fn nft(chain: &BaseChain, forwards: &[(&Forward, Destination)]) -> String {
    let condition = match common(forwards) {
        None => String::new(),
        Some(Forward {
            protocol, ports, ..
        }) => {
            format!("meta l4proto {protocol} ct original proto-dst {ports} ")
        }
    };
    let (table, chain) = (&chain.table, chain.name.escape_debug());
    format!("nft insert rule {table} {chain} {condition}ct status dnat accept")
}

/// ufw(8) lets answers through by itself. Each destination needs a command.
fn ufw_route(forwards: &[(&Forward, Destination)]) -> String {
    for_each(forwards, |forward, to| {
        format!(
            "ufw route allow proto {} to {} port {}",
            forward.protocol,
            to.address,
            to.ports.to_string().replace('-', ":")
        )
    })
}

/// firewall-cmd(1) lets answers through by itself. Between zones, only a policy lets anything through.
fn firewalld(forwards: &[(&Forward, Destination)]) -> String {
    for_each(forwards, |forward, to| {
        let family = match forward.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let policy = "firewall-cmd --permanent --policy=nodefwd";
        format!(
            "firewall-cmd --permanent --new-policy=nodefwd; {policy} --add-ingress-zone=ANY; {policy} --add-egress-zone=ANY; {policy} --add-rich-rule='rule family={family} destination address={} port port={} protocol={} accept'; firewall-cmd --reload",
            to.address, to.ports, forward.protocol
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
