//! One running forwarder: check, install, wait, remove.

use crate::check;
use crate::config::{Config, Family, Forward};
use crate::drain::{self, DrainError};
use crate::events::Events;
use crate::flow::{self, Flow, Judge};
use crate::guard::{Guard, GuardError};
use crate::lock::{Lock, LockError};
use crate::logging::with_causes;
use crate::netfilter::{Connection, FlowEvents, NetfilterError, Ownership};
use crate::notify;
use crate::privileges;
use crate::ruleset::Ruleset;
use crate::signals::Signals;
use crate::sysctl::{self, ForwardingError};
use log::{info, warn};
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::time::Instant;
use thiserror::Error;

/// Why forwarding ended, or did not begin.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// Packets would not be forwarded.
    #[error("cannot forward")]
    Forwarding(#[from] ForwardingError),
    /// The kernel did not take the rules.
    #[error("cannot install the rules")]
    Install(#[source] NetfilterError),
    /// The kernel did not let go of them.
    #[error("cannot remove the rules")]
    Remove(#[source] NetfilterError),
    /// Another instance has the name.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The rules were lost and cannot be brought back.
    #[error("cannot keep the rules")]
    Guard(#[from] GuardError),
    /// Nothing to wait on.
    #[error("cannot set up what it waits for")]
    Wait(#[from] io::Error),
}

/// Forwards until TERM, INT, HUP or QUIT comes. When it returns, nothing is left in the kernel.
///
/// Fails at once if no family of the destinations is forwarded by this host (with `strict`: any is
/// not), if another instance has the name or a port, or if the kernel refuses the rules.
pub fn run(mut config: Config) -> Result<(), InstanceError> {
    let started = Instant::now();
    let signals = Signals::register()?;
    keep_forwarded_families(&mut config)?;
    config.warn_of_closed_families();

    let flow_events = match config.drain.is_zero() {
        true => None,
        false => Some(FlowEvents::open()?),
    };
    let _lock = Lock::take(&config.name)?;
    let connection = Connection::open().map_err(InstanceError::Install)?;
    let guard = install(&connection, &config)?;
    forget_stale_flows(&connection, &config);
    let table = config.name.table();
    let summary = format!("{} in table inet {table}", summary(&config.forwards));
    info!("ready: {summary} after {:.1?}", started.elapsed());
    notify::ready(&summary);
    check::warn(&connection, &config);
    if let Err(error) = privileges::keep_net_admin() {
        warn!(
            "keeping privileges that are not needed: {}",
            with_causes(&error)
        );
    }

    let mut events = Events::new(&signals, guard);
    let served = events.next(None, None);
    if served.is_ok() {
        signals.wait()?;
    }
    notify::stopping(config.drain);
    if let Some(flow_events) = flow_events {
        drain(&connection, &mut events, &flow_events, &config);
    }
    connection.remove(&table).map_err(InstanceError::Remove)?;
    let ended = end_flows(&connection, &config, |judge, flow| judge.is_forwarded(flow));
    notify::status(format_args!(
        "stopped: table inet {table} is removed, {ended} running connections are ended"
    ));
    served?;
    Ok(())
}

/// Installs the rules, owned by this process if the kernel can do that; if not, they have a guard.
fn install<'a>(
    connection: &'a Connection,
    config: &Config,
) -> Result<Option<Guard<'a>>, InstanceError> {
    let ruleset = Ruleset::new(config);
    if config.ownership == Ownership::Kernel {
        let installed = connection.install(&ruleset, Ownership::Kernel);
        let unowned_table = matches!(
            &installed,
            Err(NetfilterError::TableExists { owner: None, .. })
        );
        let unsupported = matches!(&installed, Err(NetfilterError::NoOwnership))
            || unowned_table && !connection.supports_ownership(&ruleset.table);
        if !unsupported {
            return installed.map(|()| None).map_err(InstanceError::Install);
        }
        warn!(
            "this kernel (before 5.12) lets others remove the rules: if they do, they are installed again"
        );
    }
    match Guard::install(connection, ruleset) {
        Ok(guard) => Ok(Some(guard)),
        Err(GuardError::Install(error)) => Err(InstanceError::Install(error)),
        Err(error) => Err(error.into()),
    }
}

/// Lets running connections end. Whatever fails here must not keep the rules from being removed.
fn drain(
    connection: &Connection,
    events: &mut Events<'_>,
    flow_events: &FlowEvents,
    config: &Config,
) {
    let local = local_addresses();
    let judge = Judge::new(config, &local);
    events.keep_closed();
    let drained = connection
        .close(&Ruleset::new(config))
        .map_err(DrainError::from)
        .and_then(|()| {
            let ours = |flow: &Flow| judge.is_forwarded(flow);
            drain::wait(connection, events, flow_events, config.drain, ours)
        });
    if let Err(error) = drained {
        warn!("not draining: {}", with_causes(&error));
    }
}

fn forget_stale_flows(connection: &Connection, config: &Config) {
    if !flow::can_be_stale(config) {
        return;
    }
    let ended = end_flows(connection, config, |judge, flow| judge.is_stale(flow));
    if ended > 0 {
        info!("ended {ended} connections from before the rules were there");
    }
}

/// Ends some of the kernel's connections and says how many. Where that cannot be done, forwarding
/// still can, so it is only worth a warning.
fn end_flows(
    connection: &Connection,
    config: &Config,
    condemned: impl Fn(&Judge<'_>, &Flow) -> bool,
) -> usize {
    let local = local_addresses();
    let judge = Judge::new(config, &local);
    match connection.end_flows(|flow| condemned(&judge, flow)) {
        Ok(ended) => ended,
        Err(error) => {
            warn!(
                "connections from earlier are left as they are: {}",
                with_causes(&error)
            );
            0
        }
    }
}

pub(crate) fn local_addresses() -> HashSet<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let ipv4 = address.as_sockaddr_in().map(|address| address.ip().into());
            ipv4.or(address.as_sockaddr_in6().map(|address| address.ip().into()))
        })
        .collect()
}

/// Leaves out the families that this host does not forward. Fails if none remains, or at the first
/// one with `strict`.
fn keep_forwarded_families(config: &mut Config) -> Result<(), ForwardingError> {
    for family in Family::ALL {
        if !config.forwards_family(family) {
            continue;
        }
        if let Err(error) = sysctl::forwarding(family) {
            let others = config
                .forwards
                .iter()
                .any(|forward| forward.family != family);
            if config.strict || !others {
                return Err(error);
            }
            warn!("{error}; going on without {family}");
            config.forwards.retain(|forward| forward.family != family);
        }
    }
    Ok(())
}

/// The first forwards, each with its first destinations, and how many more there are.
pub(crate) fn summary(forwards: &[Forward]) -> String {
    let mut words = vec!["forwarding".to_owned()];
    for forward in forwards.iter().take(SHOWN) {
        let shown = Forward {
            destinations: forward.destinations.iter().take(SHOWN).copied().collect(),
            ..*forward
        };
        let more = more(forward.destinations.len());
        words.push(format!("{shown}{more}"));
    }
    words.join(" ") + &more(forwards.len())
}

/// How many forwards, and destinations of each, a log line names.
pub(crate) const SHOWN: usize = 4;

pub(crate) fn more(all: usize) -> String {
    match all.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}
