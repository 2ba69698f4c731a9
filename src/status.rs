//! What runs in this network namespace, as the kernel has it. Nothing here asks the instances
//! themselves, so it works for anyone who may read nftables.

mod json;
pub(crate) mod owner;
mod prometheus;
#[cfg(test)]
mod sample;
mod text;

use crate::cli::{StatusFormat, StatusOptions};
use crate::config::{Destination, Family, Name, PortRange, Protocol};
use crate::flow::{self, Flow};
use crate::lock::Holder;
use crate::netfilter::{Connection, NetfilterError, TableInfo};
use crate::ruleset::TABLE_PREFIX;
use log::warn;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// The name of its table, which is of family `inet`.
    pub table: String,
    /// Whether it takes new connections; it does not while it drains.
    pub open: bool,
    /// The addresses that it listens on; none stands for all.
    pub listen: Vec<IpAddr>,
    /// Who owns the table; nobody on a kernel before 5.12, or without `NODEFWD_OWNER`.
    pub owner: Option<Owner>,
    /// What it forwards, in order of family, protocol and port.
    pub forwards: Vec<ForwardStatus>,
}

/// The socket that a table belongs to, and the process that has it open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The socket's netlink port.
    pub port: u32,
    /// The process, unless it is out of sight, in another container for example.
    pub pid: Option<u32>,
    /// The process's name.
    pub process: Option<String>,
    /// When it started, in seconds since 1970.
    pub since: Option<u64>,
}

/// Ports of one protocol and family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForwardStatus {
    /// The protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
    /// The ports that are forwarded.
    pub ports: PortRange,
    /// How many first packets were dropped because their source may not connect. Clients try
    /// again, so one connection can count several times.
    pub denied: u64,
    /// Where connections go.
    pub destinations: Vec<DestinationStatus>,
}

/// One destination of a forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DestinationStatus {
    /// Where it is.
    pub to: Destination,
    /// How many connections it was given.
    pub taken: u64,
    /// How many of them the kernel tracks now, those that have just ended among them; nothing if
    /// the kernel does not say.
    pub flows: Option<u64>,
}

/// Why there is no status, or why it is bad.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The kernel did not say.
    #[error("cannot read the rules")]
    Read(#[from] NetfilterError),
    /// An instance is not there.
    #[error("not ready: the kernel has no table inet {0}")]
    Missing(String),
    /// An instance is about to end.
    #[error("not ready: table inet {0} takes no new connections")]
    Closed(String),
    /// No instance is there.
    #[error("not ready: the kernel has no table inet {TABLE_PREFIX}* that takes connections")]
    NoneReady,
    /// Its process is dead, and could not take its rules along.
    #[error(
        "not ready: table inet {0} is what a dead instance has left: start it again, and it is replaced"
    )]
    Dead(String),
    /// There is no instance of this name.
    #[error("there is no instance '{0}' here: nodefwd status lists those that there are")]
    Unknown(Name),
    /// It cannot be written as JSON.
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    /// The status was not taken.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Writes what the options ask for to standard output. With `watch`, it does not end by itself
/// unless it fails; with `ready`, it writes nothing and fails if the instance is not ready.
pub fn run(options: &StatusOptions) -> Result<(), StatusError> {
    let connection = Connection::open()?;
    if options.ready {
        return ready(&connection, options.name.as_ref());
    }
    loop {
        let instances = read(&connection, options.name.as_ref())?;
        show(&instances, options)?;
        if !options.watch {
            return Ok(());
        }
        std::thread::sleep(REFRESH);
    }
}

/// How long `--watch` waits between two looks.
const REFRESH: Duration = Duration::from_secs(1);

/// How often reading is begun anew because the ruleset has changed meanwhile.
const ATTEMPTS: usize = 10;

/// Fails unless the instance, or any if no name is given, lives and takes connections.
fn ready(connection: &Connection, name: Option<&Name>) -> Result<(), StatusError> {
    let tables = tables(connection, name)?;
    // Where the kernel removes nothing with its process, the lock tells who lives.
    let is_dead =
        |table: &TableInfo| table.owner.is_none() && Holder::of(&table.name) == Holder::Nobody;
    for table in &tables {
        if !is_dead(table) && connection.takes_connections(&table.name)? {
            return Ok(());
        }
    }
    Err(match (name, &tables[..]) {
        (None, _) => StatusError::NoneReady,
        (Some(name), []) => StatusError::Missing(name.table()),
        (Some(name), [table, ..]) if is_dead(table) => StatusError::Dead(name.table()),
        (Some(name), _) => StatusError::Closed(name.table()),
    })
}

/// The table of this name, or all.
fn tables(connection: &Connection, name: Option<&Name>) -> Result<Vec<TableInfo>, NetfilterError> {
    let mut tables = connection.instances()?;
    if let Some(name) = name {
        let table = name.table();
        tables.retain(|found| found.name == table);
    }
    Ok(tables)
}

/// Reads the instance of this name, or all.
fn read(connection: &Connection, name: Option<&Name>) -> Result<Vec<Instance>, StatusError> {
    let mut instances = unchanged(connection, name)?;
    match (instances.is_empty(), name) {
        (true, Some(name)) => return Err(StatusError::Unknown(name.clone())),
        (true, None) => return Ok(instances),
        (false, _) => {}
    }
    instances.sort_by(|one, other| one.name.cmp(&other.name));
    match connection.translated_flows() {
        Ok(flows) => count_flows(&mut instances, &flows),
        Err(error) => warn!("running connections are not shown: {error}"),
    }
    Ok(instances)
}

/// Reads all instances in one state of the ruleset, if others let it be for so long.
fn unchanged(
    connection: &Connection,
    name: Option<&Name>,
) -> Result<Vec<Instance>, NetfilterError> {
    let mut instances = Vec::new();
    for _ in 0..ATTEMPTS {
        let generation = connection.generation()?;
        instances = tables(connection, name)?
            .into_iter()
            .map(|table| instance(connection, table))
            .collect::<Result<_, _>>()?;
        if connection.generation()? == generation {
            break;
        }
    }
    Ok(instances)
}

fn instance(connection: &Connection, table: TableInfo) -> Result<Instance, NetfilterError> {
    let TableInfo {
        name: table, owner, ..
    } = table;
    Ok(Instance {
        name: table
            .strip_prefix(TABLE_PREFIX)
            .unwrap_or(&table)
            .to_owned(),
        open: connection.takes_connections(&table)?,
        listen: connection.listen_addresses(&table)?,
        forwards: connection.forwards(&table)?,
        owner: owner.map(owner::find),
        table,
    })
}

/// Counts each flow at the destination that it goes to.
fn count_flows(instances: &mut [Instance], flows: &[Flow]) {
    for instance in instances {
        let listen = &instance.listen;
        for forward in &mut instance.forwards {
            for destination in &mut forward.destinations {
                destination.flows = Some(0);
            }
        }
        let here = |flow: &&Flow| listen.is_empty() || listen.contains(&flow.destination);
        for flow in flows.iter().filter(here) {
            if let Some(destination) = destination_of(flow, &mut instance.forwards) {
                *destination.flows.get_or_insert(0) += 1;
            }
        }
    }
}

/// The destination that the flow goes to; the forwards are in order, and do not overlap.
fn destination_of<'a>(
    flow: &Flow,
    forwards: &'a mut [ForwardStatus],
) -> Option<&'a mut DestinationStatus> {
    let place = forwards.partition_point(|forward| {
        (forward.family, forward.protocol, forward.ports.last())
            < (flow.family, flow.protocol, flow.port)
    });
    let forward = forwards.get_mut(place).filter(|forward| {
        (forward.family, forward.protocol) == (flow.family, flow.protocol)
            && forward.ports.contains(flow.port)
    })?;
    let ports = forward.ports;
    let mut destinations = forward.destinations.iter_mut();
    destinations.find(|to| flow.target == Some(flow::target(&to.to, ports, flow.port)))
}

fn show(instances: &[Instance], options: &StatusOptions) -> Result<(), StatusError> {
    let text = match options.format {
        StatusFormat::Text => text::render(instances, now()),
        StatusFormat::Json => json::render(instances)?,
        StatusFormat::Prometheus => prometheus::render(instances),
    };
    let mut out = io::stdout().lock();
    if options.watch && out.is_terminal() {
        // ECMA-48: cursor to the first place (CUP), and erase what is behind it (ED).
        out.write_all(b"\x1b[H\x1b[J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16, to: &str, target: u16) -> Flow {
        Flow {
            family: Family::of(to.parse().unwrap()),
            protocol: Protocol::Tcp,
            source: "10.9.0.1".parse().unwrap(),
            destination: "10.1.0.1".parse().unwrap(),
            port,
            target: Some((to.parse().unwrap(), target)),
            masqueraded: true,
        }
    }

    #[test]
    fn a_flow_counts_at_its_destination() {
        let mut elsewhere = flow(80, "10.2.0.12", 8080);
        elsewhere.destination = "10.1.0.2".parse().unwrap();
        let mut instances = sample::instances();
        let flows = [
            flow(80, "10.2.0.12", 8080),
            flow(80, "10.2.0.13", 8080),
            flow(81, "10.2.0.12", 8080),
            flow(8000, "fd00:2::11", 9),
            flow(8100, "fd00:2::11", 109),
            flow(8100, "fd00:2::11", 9),
            elsewhere,
        ];
        count_flows(&mut instances, &flows);
        let counted: Vec<_> = instances
            .iter()
            .flat_map(|instance| &instance.forwards)
            .flat_map(|forward| &forward.destinations)
            .map(|destination| destination.flows)
            .collect();
        assert_eq!(counted, [Some(0), Some(1), Some(2)]);
    }
}
