//! `nodefwd status`: what runs in this network namespace, as the kernel has it. It asks no instance, so
//! it works for every process that may read nftables.

mod chains;
mod forwarding;
mod forwards;
mod json;
mod prometheus;
mod ready;
mod rule;
#[cfg(test)]
mod sample;
mod text;

pub use forwarding::FamilyStatus;
pub use forwards::{MAX_ROWS, accepts_connections, forwards};
#[cfg(test)]
pub use rule::action;

use crate::config::{Destination, InterfaceName, Name, Service, TABLE_PREFIX};
use crate::conntrack::{Conntrack, ConntrackError, Flow};
use crate::logging::with_causes;
use crate::nftables::list::{self, Table, TableInfo};
use crate::nftables::{Nftables, NftablesError};
use crate::process::{self, Owner};
use crate::ruleset::{DROPPED_INVALID, RELOAD_FAILED};
use crate::siblings;
use clap::{Args, ValueEnum};
use log::warn;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// What to show of the instances in this network namespace.
#[derive(Debug, Default, Args)]
#[allow(missing_docs)] // the help says what each is
pub struct StatusOptions {
    /// The instance to look at [default: all]
    #[arg(value_name = "NAME")]
    pub name: Option<Name>,

    /// Print nothing; exit with 0 if the instance's rules are in the kernel and accept connections, which
    /// this host forwards, and with 1 and the reason if not
    ///
    /// Without NAME, it is the instance that the environment configures: NODEFWD_NAME, or the first
    /// forward of SRC_PORT and DEST_PROTO or of NODEFWD_FORWARDS. If nothing is configured, any
    /// instance will do.
    #[arg(long, conflicts_with_all = ["format", "watch"])]
    pub ready: bool,

    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    pub format: StatusFormat,

    /// Write it again every second until a signal comes
    #[arg(long)]
    pub watch: bool,
}

/// How the status is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// An aligned table for people
    #[default]
    Text,
    /// For programs
    Json,
    /// The text exposition format of Prometheus
    Prometheus,
}

/// What the kernel and /proc show of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    pub name: String,
    /// The name of its table, which is of family `inet`.
    pub table: String,
    /// Whether it accepts new connections; false while it drains.
    pub accepting: bool,
    /// Whether its file was refused when it was read again last: the rules are those from before.
    pub reload_failed: bool,
    /// The addresses that it listens on.
    pub listen: Vec<IpAddr>,
    /// The interfaces that it listens on; none of either stands for all.
    pub interfaces: Vec<InterfaceName>,
    /// `None` on a kernel before 5.12.
    pub owner: Option<Owner>,
    /// How many packets of forwarded connections were dropped because conntrack found them invalid.
    pub invalid: u64,
    /// Whether this host forwards the families that it has forwards of.
    pub forwarding: Vec<FamilyStatus>,
    /// Whether the forwards are left out, as they are too many.
    pub truncated: bool,
    /// In order of family, protocol and port.
    pub forwards: Vec<ForwardStatus>,
}

/// A service, and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForwardStatus {
    #[serde(flatten)]
    pub service: Service,
    /// How many first packets were dropped because their source may not connect. Clients try again, so
    /// one connection can count several times.
    pub dropped: u64,
    pub destinations: Vec<DestinationStatus>,
}

/// One destination of a forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DestinationStatus {
    pub to: Destination,
    /// How many connections it was given.
    pub connections: u64,
    /// How many conntrack entries they have now, also of connections that have just ended; `None` if the
    /// kernel does not say.
    pub active: Option<u64>,
    /// Whether it answers; `None` if it is not tried (`NODEFWD_HEALTH`).
    pub up: Option<bool>,
}

/// Why there is no status, or why an instance is not ready.
#[derive(Debug, Error)]
pub enum StatusError {
    #[error("cannot read the rules")]
    Read(#[from] NftablesError),
    #[error("not ready: the kernel has no table inet {0}")]
    Missing(String),
    #[error("not ready: table inet {0} accepts no new connections")]
    Closed(String),
    #[error("not ready: {0}")]
    NotForwarding(String),
    #[error("not ready: the kernel has no table inet {TABLE_PREFIX}* that accepts connections")]
    NoneReady,
    #[error(
        "not ready: table inet {0} was left by an instance that died; restart it to replace the table"
    )]
    Dead(String),
    #[error("no instance '{0}' in this network namespace; list them with: nodefwd status")]
    Unknown(Name),
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// How long `--watch` waits between two looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How many rows of all instances are shown together. A single one, or one that is asked for, shows
/// [`MAX_ROWS`].
const MAX_ROWS_OF_ALL: usize = 1 << 16;

/// How often everything is read again because the ruleset has changed meanwhile.
const MAX_READ_RETRIES: usize = 10;

/// Writes what the options ask for to standard output. With `watch`, it does not return unless it fails;
/// with `ready`, it writes nothing and fails if the instance is not ready.
pub fn run(options: &StatusOptions) -> Result<(), StatusError> {
    let nftables = Nftables::open()?;
    if options.ready {
        return ready::check(&nftables, options.name.as_ref());
    }
    loop {
        let instances = read(&nftables, options.name.as_ref())?;
        show(&instances, options)?;
        if !options.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// Reads the instance of this name, or all.
fn read(nftables: &Nftables, name: Option<&Name>) -> Result<Vec<Instance>, StatusError> {
    let mut instances = read_unchanged(nftables, name)?;
    match (instances.is_empty(), name) {
        (true, Some(name)) => return Err(StatusError::Unknown(name.clone())),
        (true, None) => return Ok(instances),
        (false, _) => {}
    }
    instances.sort_by(|one, other| one.name.cmp(&other.name));
    for Instance { table, name, .. } in instances.iter().filter(|instance| instance.truncated) {
        warn!(
            "the forwards of table inet {table} are left out, as they are too many: nodefwd status {name} shows more"
        );
    }
    let translated = || -> Result<Vec<Flow>, ConntrackError> {
        let forwards = instances.iter().flat_map(|instance| &instance.forwards);
        Conntrack::open()?.translated(forwards.map(|forward| forward.service))
    };
    match translated() {
        Ok(flows) => count_flows(&mut instances, &flows),
        Err(error) => warn!("running connections are not shown: {}", with_causes(&error)),
    }
    Ok(instances)
}

/// Reads all instances at one generation of the ruleset, unless it keeps changing.
fn read_unchanged(
    nftables: &Nftables,
    name: Option<&Name>,
) -> Result<Vec<Instance>, NftablesError> {
    let mut instances = Vec::new();
    for _ in 0..MAX_READ_RETRIES {
        let generation = nftables.generation()?;
        instances.clear();
        let mut tables = siblings::instances(nftables)?;
        tables.retain(|table| name.is_none_or(|name| table.name == name.table()));
        let mut unread = tables.len();
        let mut left = if unread == 1 {
            MAX_ROWS
        } else {
            MAX_ROWS_OF_ALL
        };
        for table in tables {
            // Each has its share, and what those before it have left.
            let found = instance(nftables, table, left / unread)?;
            unread -= 1;
            left -= forwards::rows(&found.forwards);
            instances.push(found);
        }
        if nftables.generation()? == generation {
            break;
        }
    }
    Ok(instances)
}

/// Leaves the forwards out if they have more rows than `most`.
fn instance(nftables: &Nftables, table: TableInfo, most: usize) -> Result<Instance, NftablesError> {
    let TableInfo { name, owner, .. } = table;
    let table = Table::inet(&name);
    let instance = name.strip_prefix(TABLE_PREFIX).unwrap_or(&name);
    let forwards = nftables.list(|socket| forwards::forwards(socket, &table, most))?;
    let truncated = forwards.is_none();
    let forwards = forwards.unwrap_or_default();
    Ok(Instance {
        name: instance.to_owned(),
        accepting: ready::accepts(nftables, &name)?,
        reload_failed: nftables
            .list(|socket| list::chain_use(socket, &table, RELOAD_FAILED))?
            .is_some(),
        listen: siblings::listen_addresses(nftables, &name)?,
        interfaces: siblings::listen_interfaces(nftables, &name)?,
        invalid: nftables.list(|socket| chains::dropped(socket, &table, DROPPED_INVALID))?,
        forwarding: forwarding::families(nftables, &table, &forwards)?,
        truncated,
        forwards,
        owner: owner.map(process::owner),
        table: name,
    })
}

/// Counts each flow at the destination that it goes to.
fn count_flows(instances: &mut [Instance], flows: &[Flow]) {
    for instance in instances {
        let listen: HashSet<IpAddr> = instance.listen.iter().copied().collect();
        let mut indices = HashMap::new();
        for (forward, status) in instance.forwards.iter_mut().enumerate() {
            for (destination, status) in status.destinations.iter_mut().enumerate() {
                status.active = Some(0);
                indices.entry((forward, status.to)).or_insert(destination);
            }
        }
        let all = listen.is_empty() || !instance.interfaces.is_empty();
        let listens = |flow: &&Flow| all || listen.contains(&flow.destination);
        for flow in flows.iter().filter(listens) {
            if let Some(destination) = destination_of(flow, &mut instance.forwards, &indices) {
                *destination.active.get_or_insert(0) += 1;
            }
        }
    }
}

/// The destination that the flow goes to; the forwards are in order, and do not overlap. `indices` has
/// the index of each destination in its forward, which has an index too.
fn destination_of<'a>(
    flow: &Flow,
    forwards: &'a mut [ForwardStatus],
    indices: &HashMap<(usize, Destination), usize>,
) -> Option<&'a mut DestinationStatus> {
    let service = |forward: &ForwardStatus| forward.service;
    let index = Service::position(forwards, service, (flow.family, flow.protocol, flow.port))?;
    let forward = forwards.get_mut(index)?;
    let mut leading = Destination::leading_to(flow.backend?, forward.service.ports, flow.port);
    let destination = leading.find_map(|to| indices.get(&(index, to)))?;
    forward.destinations.get_mut(*destination)
}

fn show(instances: &[Instance], options: &StatusOptions) -> Result<(), StatusError> {
    let text = match options.format {
        StatusFormat::Text => text::render(instances, now()),
        StatusFormat::Json => json::render(instances)?,
        StatusFormat::Prometheus => prometheus::render(instances),
    };
    let mut out = io::stdout().lock();
    if options.watch && out.is_terminal() {
        // ECMA-48: cursor to the top left (CUP), and erase everything after it (ED).
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
    use crate::config::{Family, Protocol};

    fn flow(port: u16, to: &str, to_port: u16) -> Flow {
        Flow {
            family: Family::of(to.parse().unwrap()),
            protocol: Protocol::Tcp,
            source: "10.9.0.1".parse().unwrap(),
            destination: "10.1.0.1".parse().unwrap(),
            port,
            backend: Some((to.parse().unwrap(), to_port)),
            masqueraded: true,
            source_port: 4000,
            replies_to: ("10.9.0.1".parse().unwrap(), 4000),
            replied: true,
        }
    }

    #[test]
    fn a_flow_is_counted_at_its_destination() {
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
            .map(|destination| destination.active)
            .collect();
        assert_eq!(counted, [Some(0), Some(1), Some(2)]);
    }
}
