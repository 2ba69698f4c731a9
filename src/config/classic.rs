//! The classic variables: every port of every protocol goes to every address.

use super::address::unicast;
use super::forward::{Destination, Request, fits};
use super::{ConfigError, OptionName, PortRange, Protocol, Setting, setting};
use crate::cli::Options;
use log::warn;
use std::{collections::HashSet, ffi::OsString, fmt::Display, hash::Hash, net::IpAddr};

/// What `DEST_IPS`, `DEST_PROTO`, `SRC_PORT` and `DEST_PORT` ask for; nothing if none is set.
pub fn requests(options: &Options) -> Result<Vec<Request>, ConfigError> {
    let given = [
        &options.dest_ips,
        &options.dest_proto,
        &options.src_port,
        &options.dest_port,
    ];
    if given.iter().all(|value| value.is_none()) {
        return Ok(Vec::new());
    }
    let addresses = required(
        OptionName::DEST_IPS,
        &options.dest_ips,
        "the addresses to forward to",
    )?;
    let addresses = once(OptionName::DEST_IPS, addresses.list(unicast)?);
    let protocols = required(
        OptionName::DEST_PROTO,
        &options.dest_proto,
        "tcp, udp or sctp",
    )?;
    let protocols = once(
        OptionName::DEST_PROTO,
        protocols.list(str::parse::<Protocol>)?,
    );
    let pairs = pairs(options)?;

    let mut requests = Vec::new();
    for protocol in protocols {
        for &(ports, target) in &pairs {
            let destination = |&address: &IpAddr| Destination {
                address,
                ports: target,
            };
            requests.push(Request {
                protocol,
                ports,
                destinations: addresses.iter().map(destination).collect(),
            });
        }
    }
    Ok(requests)
}

/// The protocol and the port of the first request, if both are set.
pub fn first_service(options: &Options) -> Result<Option<(Protocol, PortRange)>, ConfigError> {
    let protocol = setting(OptionName::DEST_PROTO, &options.dest_proto)?;
    let ports = setting(OptionName::SRC_PORT, &options.src_port)?;
    let Some((protocol, ports)) = protocol.zip(ports) else {
        return Ok(None);
    };
    let protocols = protocol.list(str::parse::<Protocol>)?;
    let ports = ports.list(str::parse::<PortRange>)?;
    Ok(protocols.first().copied().zip(ports.first().copied()))
}

fn required<'a>(
    option: OptionName,
    value: &'a Option<OsString>,
    remedy: &'static str,
) -> Result<Setting<'a>, ConfigError> {
    setting(option, value)?.ok_or(ConfigError::Missing { option, remedy })
}

/// The entries of a list, each once. Warns of those that are there more often.
fn once<T: Copy + Eq + Hash + Display>(option: OptionName, mut entries: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::new();
    entries.retain(|entry| {
        let new = seen.insert(*entry);
        if !new {
            warn!("{option}: {entry} is listed more than once: it counts once");
        }
        new
    });
    entries
}

/// Each entry of SRC_PORT with the ports at the destination.
fn pairs(options: &Options) -> Result<Vec<(PortRange, PortRange)>, ConfigError> {
    let sources = required(
        OptionName::SRC_PORT,
        &options.src_port,
        "the port to forward",
    )?
    .list(str::parse::<PortRange>)?;
    let Some(setting) = setting(OptionName::DEST_PORT, &options.dest_port)? else {
        return Ok(sources.iter().map(|&ports| (ports, ports)).collect());
    };
    let mut targets = setting.list(str::parse::<PortRange>)?;
    if targets.len() == 1 && targets[0].is_single() {
        targets.resize(sources.len(), targets[0]);
    }
    if targets.len() != sources.len() {
        return Err(ConfigError::Pairing {
            sources: sources.len(),
            destinations: targets.len(),
        });
    }
    sources
        .into_iter()
        .zip(targets)
        .map(|(ports, target)| match fits(ports, target) {
            Ok(target) => Ok((ports, target)),
            Err(error) => Err(setting.invalid(&target.to_string(), error)),
        })
        .collect()
}
