//! `nodefwd status`: what runs in this network namespace, or in all of this host, as the kernel has it. It
//! asks no instance, so it works for every process that may read nftables.

mod chains;
mod flows;
mod forwarding;
mod forwards;
mod json;
mod namespaces;
mod options;
mod output;
mod prometheus;
mod ready;
mod rule;
#[cfg(test)]
mod sample;
mod text;

pub use forwarding::FamilyStatus;
pub use forwards::{MAX_ROWS, accepts_connections, forwards};
pub use options::{LeftOut, Lists, OptionsStatus, sources};
#[cfg(test)]
pub use rule::action;

use crate::config::{Destination, InterfaceName, Name, Service, TABLE_PREFIX};
use crate::conntrack::{Conntrack, ConntrackError, Flow};
use crate::lock::Holder;
use crate::logging::with_causes;
use crate::nftables::list::{self, Table, TableInfo};
use crate::nftables::{Nftables, NftablesError};
use crate::process::{Owner, Owners};
use crate::ruleset::{DROPPED_INVALID, RELOAD_FAILED};
use crate::siblings;
use crate::text::Printable;
use clap::{Args, ValueEnum, ValueHint};
use log::warn;
use serde::Serialize;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
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
    #[arg(long, conflicts_with_all = ["format", "watch", "file", "all_namespaces"])]
    pub ready: bool,

    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    pub format: StatusFormat,

    /// Write it again every second until a signal comes; JSON as one object on each line
    #[arg(long)]
    pub watch: bool,

    /// Write it to this file, which is replaced once all of it is written (rename(2)), instead of standard
    /// output
    #[arg(long = "output", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,

    /// Show the instances in all network namespaces of this host, such as those of its pods: the ones that
    /// have a name in /run/netns or a process. Takes root on the host
    #[arg(long)]
    pub all_namespaces: bool,
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
    /// The network namespace that it runs in; `None` for this process's own.
    pub netns: Option<String>,
    pub name: String,
    /// The name of its table, which is of family `inet`.
    pub table: String,
    /// False if it died and has left its table, which forwards nevertheless: before Linux 5.12.
    pub running: bool,
    /// Whether it accepts new connections; false while it drains.
    pub accepting: bool,
    /// Whether its file was refused when it was read again last: the rules are those from before.
    pub reload_failed: bool,
    /// `None` if the table has no forwards.
    pub options: Option<OptionsStatus>,
    /// The families of destinations that it does not forward, or of which no client can connect.
    pub left_out: Vec<LeftOut>,
    /// The addresses that it listens on.
    pub listen: Vec<IpAddr>,
    /// The interfaces that it listens on; none of either stands for all.
    pub interfaces: Vec<InterfaceName>,
    /// `None` on a kernel before 5.12.
    pub owner: Option<Owner>,
    /// The process that has its lock, if the table has no owner.
    #[serde(skip)]
    pub holder: Option<Holder>,
    /// How many packets of forwarded connections were dropped because conntrack found them invalid.
    pub invalid: u64,
    /// Whether this host forwards the families that it has forwards of.
    pub forwarding: Vec<FamilyStatus>,
    /// Whether the forwards are left out, as they are too many, or its sources or addresses are.
    pub truncated: bool,
    /// Or what else of it is too much to read all.
    #[serde(skip)]
    pub too_many: Option<&'static str>,
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
    /// Whether the rules lead there. If not, they did, and connections from then go on.
    pub listed: bool,
    /// How many connections these rules have given it.
    pub connections: u64,
    /// How many conntrack entries they have now, also of connections that have just ended; `None` if the
    /// kernel does not say.
    pub active: Option<u64>,
    /// How many of those entries have seen no packet of the destination.
    pub unanswered: Option<u64>,
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
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("cannot write {path}")]
    File {
        path: String,
        #[source]
        error: io::Error,
    },
    #[error(
        "cannot look into other network namespaces (--all-namespaces): run it as root on the host, with CAP_SYS_ADMIN"
    )]
    Namespaces(#[source] io::Error),
}

/// How long `--watch` waits between two looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How many rows of all instances are shown together. A single one, or one that is asked for, shows
/// [`MAX_ROWS`].
const MAX_ROWS_OF_ALL: usize = 1 << 16;

/// How often everything is read again because the ruleset has changed meanwhile.
const MAX_READ_RETRIES: usize = 10;

/// Writes what the options ask for. With `watch`, it does not return unless it fails; with `ready`, it
/// writes nothing and fails if the instance is not ready.
pub fn run(options: &StatusOptions) -> Result<(), StatusError> {
    if options.ready {
        return ready::check(options.name.as_ref());
    }
    loop {
        let instances = read(options)?;
        output::write(&instances, options)?;
        if !options.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// The instances that the options ask for, in order.
fn read(options: &StatusOptions) -> Result<Vec<Instance>, StatusError> {
    let name = options.name.as_ref();
    let owners = Owners::default();
    let mut instances = read_here(name, &owners)?;
    if options.all_namespaces {
        instances.extend(read_elsewhere(name, &owners)?);
    }
    if let (Some(name), true) = (name, instances.is_empty()) {
        return Err(StatusError::Unknown(name.clone()));
    }
    instances.sort_by(|one, other| (&one.netns, &one.name).cmp(&(&other.netns, &other.name)));
    for Instance {
        table,
        name,
        too_many,
        ..
    } in &instances
    {
        let Some(which) = too_many else { continue };
        let left_out = format!("the forwards of table inet {table} are left out, as");
        match *which {
            "forwards" => warn!("{left_out} they are too many: nodefwd status {name} shows more"),
            which => warn!("{left_out} its {which} are too many"),
        }
    }
    Ok(instances)
}

/// Those in the other network namespaces of this host.
fn read_elsewhere(name: Option<&Name>, owners: &Owners) -> Result<Vec<Instance>, StatusError> {
    let mut found = Vec::new();
    for namespace in namespaces::others().map_err(StatusError::Namespaces)? {
        let inside = namespace.inside(|| read_here(name, owners));
        match inside.map_err(StatusError::Namespaces)? {
            None => {}
            Some(Ok(instances)) if instances.is_empty() => {}
            Some(Ok(instances)) => found.push((namespace.name(), namespace, instances)),
            Some(Err(error)) => warn!(
                "network namespace {} is not shown: {}",
                namespace.name(),
                with_causes(&error)
            ),
        }
    }
    // As they are shown, and in Prometheus' labels: two that differ may look the same.
    let shown = found.iter().map(|(name, ..)| Printable(name).to_string());
    let names: Vec<String> = shown.collect();
    let mut all = Vec::new();
    for ((name, namespace, instances), shown) in found.into_iter().zip(&names) {
        let same = names.iter().filter(|other| *other == shown);
        let netns = if same.count() == 1 && !name.contains(namespaces::NUMBER) {
            name
        } else {
            namespace.unique_name()
        };
        all.extend(instances.into_iter().map(|instance| Instance {
            netns: Some(netns.clone()),
            ..instance
        }));
    }
    Ok(all)
}

fn accepts(nftables: &Nftables, table: &str) -> Result<bool, NftablesError> {
    nftables.list(|socket| forwards::accepts_connections(socket, &Table::inet(table)))
}

/// The table of the instance of this name, or those of all instances.
fn tables(nftables: &Nftables, name: Option<&Name>) -> Result<Vec<TableInfo>, NftablesError> {
    let mut tables = siblings::instances(nftables)?;
    if let Some(name) = name {
        let table = name.table();
        tables.retain(|found| found.name == table);
    }
    Ok(tables)
}

/// The instance of this name in the network namespace of this thread, or all.
fn read_here(name: Option<&Name>, owners: &Owners) -> Result<Vec<Instance>, StatusError> {
    let nftables = Nftables::open()?;
    let mut instances = read_unchanged(&nftables, name, owners)?;
    if instances.is_empty() {
        return Ok(instances);
    }
    let translated = || -> Result<Vec<Flow>, ConntrackError> {
        let forwards = instances.iter().flat_map(|instance| &instance.forwards);
        Conntrack::open()?.translated(forwards.map(|forward| forward.service))
    };
    match translated() {
        Ok(flows) => instances
            .iter_mut()
            .for_each(|instance| flows::count(instance, &flows)),
        Err(error) => warn!("running connections are not shown: {}", with_causes(&error)),
    }
    Ok(instances)
}

/// Reads all instances at one generation of the ruleset, unless it keeps changing.
fn read_unchanged(
    nftables: &Nftables,
    name: Option<&Name>,
    owners: &Owners,
) -> Result<Vec<Instance>, NftablesError> {
    let mut instances = Vec::new();
    for _ in 0..MAX_READ_RETRIES {
        let generation = nftables.generation()?;
        instances.clear();
        let tables = tables(nftables, name)?;
        let mut unread = tables.len();
        let mut left = if unread == 1 {
            MAX_ROWS
        } else {
            MAX_ROWS_OF_ALL
        };
        for table in tables {
            // Each has its share, and what those before it have left.
            let found = instance(nftables, table, owners, left / unread)?;
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

/// The forwards in a table, which this opens a socket for; no value if they have more rows than `most`.
pub fn forwards_of(
    table: &Table,
    most: usize,
) -> Result<Option<Vec<ForwardStatus>>, NftablesError> {
    Nftables::open()?.list(|socket| forwards::forwards(socket, table, most))
}

/// Leaves the forwards out if they have more rows than `most`, and all lists if one of them is too long.
fn instance(
    nftables: &Nftables,
    table: TableInfo,
    owners: &Owners,
    most: usize,
) -> Result<Instance, NftablesError> {
    let holder = ready::holder(&table);
    let TableInfo { name, owner, .. } = table;
    let table = Table::inet(&name);
    let instance = name.strip_prefix(TABLE_PREFIX).unwrap_or(&name);
    let (lists, too_many) = match Lists::read(&table)? {
        Ok(lists) => (lists, None),
        Err(which) => (Lists::default(), Some(which)),
    };
    let forwards = if too_many.is_none() {
        forwards_of(&table, most)?
    } else {
        None
    };
    let too_many = too_many.or(forwards.is_none().then_some("forwards"));
    let forwards = forwards.unwrap_or_default();
    let sources = options::sources(nftables, &table, &forwards, &lists)?;
    Ok(Instance {
        netns: None,
        name: instance.to_owned(),
        running: holder != Some(Holder::None),
        accepting: accepts(nftables, &name)?,
        reload_failed: nftables
            .list(|socket| list::chain_use(socket, &table, RELOAD_FAILED))?
            .is_some(),
        options: OptionsStatus::read(nftables, &table, &forwards, &lists, &sources)?,
        left_out: options::left_out(nftables, &table, &sources)?,
        invalid: nftables.list(|socket| chains::dropped(socket, &table, DROPPED_INVALID))?,
        forwarding: forwarding::families(&lists.listening, &sources, &forwards),
        listen: lists.listening.addresses,
        interfaces: lists.listening.interfaces,
        truncated: too_many.is_some(),
        too_many,
        forwards,
        owner: owner.map(|port| owners.find(port)),
        holder,
        table: name,
    })
}
