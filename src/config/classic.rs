//! `DEST_IPS`, `DEST_PROTO`, `SRC_PORT` and `DEST_PORT`, the classic variables: every port of every
//! protocol goes to every address.

use super::forward::ForwardSpec;
use super::port::fits;
use super::{ConfigError, Host, OptionName, Options, PortRange, Protocol, Setting};
use super::{WrittenDestination, check_balanced};
use log::warn;
use std::{collections::HashSet, ffi::OsString, fmt::Display, hash::Hash};

/// Reads them; gives no forward if none is set.
pub fn forwards(options: &Options) -> Result<Vec<ForwardSpec>, ConfigError> {
    let all = [
        (OptionName::DEST_IPS, &options.dest_ips),
        (OptionName::DEST_PROTO, &options.dest_proto),
        (OptionName::SRC_PORT, &options.src_port),
        (OptionName::DEST_PORT, &options.dest_port),
    ];
    let Some((given, _)) = all.into_iter().find(|(_, value)| value.is_some()) else {
        return Ok(Vec::new());
    };
    let required = |option, value, fix| required(option, value, given, fix);
    let addresses = required(
        OptionName::DEST_IPS,
        &options.dest_ips,
        "the addresses to forward to",
    )?;
    let hosts = once(OptionName::DEST_IPS, addresses.list(Host::read)?);
    let protocols = required(
        OptionName::DEST_PROTO,
        &options.dest_proto,
        "tcp, udp or sctp",
    )?;
    let protocols = once(
        OptionName::DEST_PROTO,
        protocols.list(str::parse::<Protocol>)?,
    );
    let sources = required(
        OptionName::SRC_PORT,
        &options.src_port,
        "the port to forward",
    )?;
    let pairs = pairs(sources, &protocols, options)?;
    // Before so many are put into lists.
    check_balanced(pairs.len() * protocols.len() * balanced(&hosts))?;

    let mut specs = Vec::new();
    for protocol in protocols {
        for &(ports, to) in &pairs {
            let destination = |host: &Host| WrittenDestination {
                host: host.clone(),
                ports: to,
            };
            specs.push(ForwardSpec {
                protocol,
                ports,
                destinations: hosts.iter().map(destination).collect(),
            });
        }
    }
    Ok(specs)
}

/// How many destinations a forward to these hosts balances its connections over, as far as they have no names.
fn balanced(hosts: &[Host]) -> usize {
    let count = |is_ipv4| {
        let of_family = |host: &&Host| matches!(host, Host::Address(ip) if ip.is_ipv4() == is_ipv4);
        hosts.iter().filter(of_family).count()
    };
    let of_families = [count(true), count(false)];
    of_families.into_iter().filter(|count| *count > 1).sum()
}

/// The protocol and the ports of the first forward, if both are set.
pub fn first_service(options: &Options) -> Result<Option<(Protocol, PortRange)>, ConfigError> {
    let protocol = Setting::read(OptionName::DEST_PROTO, &options.dest_proto)?;
    let ports = Setting::read(OptionName::SRC_PORT, &options.src_port)?;
    let Some((protocol, ports)) = protocol.zip(ports) else {
        return Ok(None);
    };
    let protocols = protocol.list(str::parse::<Protocol>)?;
    let ports = ports.list(|word| PortRange::read(word, &protocols))?;
    Ok(protocols.first().copied().zip(ports.first().copied()))
}

/// An option that must be set because `given` is.
fn required<'a>(
    option: OptionName,
    value: &'a Option<OsString>,
    given: OptionName,
    fix: &'static str,
) -> Result<Setting<'a>, ConfigError> {
    Setting::read(option, value)?.ok_or(ConfigError::Incomplete { given, option, fix })
}

/// The entries of a list, each once. Logs a warning for one that is listed more often.
fn once<T: Clone + Eq + Hash + Display>(option: OptionName, mut entries: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::new();
    entries.retain(|entry| {
        let new = seen.insert(entry.clone());
        if !new {
            warn!("{option}: {entry} is listed more than once: it counts once");
        }
        new
    });
    entries
}

/// Each entry of SRC_PORT with the ports at the destination.
fn pairs(
    sources: Setting<'_>,
    protocols: &[Protocol],
    options: &Options,
) -> Result<Vec<(PortRange, PortRange)>, ConfigError> {
    let port = |word: &str| PortRange::read(word, protocols);
    let sources = sources.list(port)?;
    let Some(setting) = Setting::read(OptionName::DEST_PORT, &options.dest_port)? else {
        return Ok(sources.iter().map(|&ports| (ports, ports)).collect());
    };
    let mut destinations = setting.list(port)?;
    if destinations.len() == 1 && destinations[0].is_single() {
        destinations.resize(sources.len(), destinations[0]);
    }
    if destinations.len() != sources.len() {
        return Err(ConfigError::Pairing {
            sources: sources.len(),
            destinations: destinations.len(),
        });
    }
    sources
        .into_iter()
        .zip(destinations)
        .map(|(ports, to)| match fits(ports, to) {
            Ok(to) => Ok((ports, to)),
            Err(error) => Err(setting.invalid(&to.to_string(), error)),
        })
        .collect()
}
