//! One running forwarder: check, install, wait, remove.

use crate::check;
use crate::config::{Config, Family, Forward};
use crate::drain;
use crate::events::{Event, Events};
use crate::flow::{self, Flow, Judge};
use crate::lock::{Holder, Lock, LockError};
use crate::logging::with_causes;
use crate::netfilter::{Addresses, Connection, Existing, FlowEvents, NetfilterError};
use crate::notify;
use crate::privileges;
use crate::replace::{Predecessor, Problem, ReplaceError};
use crate::rules::{Rules, RulesError};
use crate::ruleset::Ruleset;
use crate::signals::Signals;
use crate::sysctl::{self, ForwardingError};
use log::{info, warn};
use std::io;
use std::time::Instant;
use thiserror::Error;

/// Why forwarding ended, or did not begin.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// Packets would not be forwarded.
    #[error("cannot forward")]
    Forwarding(#[from] ForwardingError),
    /// Nothing to talk to the kernel with.
    #[error("cannot install the rules")]
    Open(#[source] NetfilterError),
    /// The kernel did not take the rules.
    #[error(transparent)]
    Install(#[from] RulesError),
    /// The rules were lost and cannot be brought back.
    #[error("cannot keep the rules")]
    Keep(#[source] RulesError),
    /// The kernel did not let go of them.
    #[error("cannot remove the rules")]
    Remove(#[source] NetfilterError),
    /// Another instance has the name.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It cannot be replaced.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// Nothing to wait on.
    #[error("cannot set up what it waits for")]
    Wait(#[from] io::Error),
}

/// Forwards until TERM, INT, HUP or QUIT comes, or until another process takes over. When it returns,
/// nothing of its own is left in the kernel.
///
/// Fails at once if this host forwards no family of which packets are taken (with `strict`: not every
/// one that has destinations), if another instance has the name or a port, or if the kernel refuses the
/// rules.
pub fn run(mut config: Config) -> Result<(), InstanceError> {
    let started = Instant::now();
    let signals = Signals::register()?;
    let kept = keep_forwarded_families(&mut config);
    // Also if it does not start: they say why the other family would not do.
    config.log_warnings();
    kept?;

    let flow_events = match config.drain.is_zero() {
        true => None,
        false => Some(FlowEvents::open().map_err(InstanceError::Open)?),
    };
    let (lock, connection, predecessor) = take_name(&config, &signals)?;
    let rules = install(&connection, &config, predecessor)?;
    lock.sign()?;
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

    let mut events = Events::new(&signals, &lock, rules);
    let served = events.next(None, None);
    if matches!(served, Ok(Event::Signal)) {
        signals.wait()?;
    }
    notify::stopping(config.drain);
    let successor = match (&served, flow_events) {
        (Ok(Event::Replaced(process)), _) => Some(*process),
        (_, Some(flow_events)) => drain(&mut events, &flow_events, &connection, &config),
        (_, None) => None,
    };
    match successor {
        Some(process) => leave_to(process, &config)?,
        None => stop(&connection, &config)?,
    }
    served.map(|_| ()).map_err(InstanceError::Keep)
}

/// How often the name is tried anew because it has changed hands meanwhile.
const ATTEMPTS: usize = 3;

/// Takes the instance's name, and what its rules are to belong to: a new connection, or that of a live
/// instance that is to be replaced.
fn take_name(
    config: &Config,
    signals: &Signals,
) -> Result<(Lock, Connection, Option<Predecessor>), InstanceError> {
    for _ in 0..ATTEMPTS {
        match Lock::take(&config.name) {
            Err(LockError::Taken { .. }) if config.replace => {}
            lock => {
                let connection = Connection::open().map_err(InstanceError::Open)?;
                return Ok((lock?, connection, None));
            }
        }
        if let Some((predecessor, lock, connection)) = Predecessor::ask(&config.name, signals)? {
            return Ok((lock, connection, Some(predecessor)));
        }
    }
    let holder = Holder::of(&config.name.table());
    Err(ReplaceError::new(&config.name, holder, Problem::Refused).into())
}

/// Installs the rules, in place of the predecessor's if there is one, which then leaves.
fn install<'a>(
    connection: &'a Connection,
    config: &Config,
    predecessor: Option<Predecessor>,
) -> Result<Rules<'a>, InstanceError> {
    let ruleset = Ruleset::new(config);
    let Some(predecessor) = predecessor else {
        return Ok(Rules::install(
            connection,
            ruleset,
            config.ownership,
            Existing::Refuse,
        )?);
    };
    let waits = || predecessor.waits();
    let rules = Rules::install(
        connection,
        ruleset,
        config.ownership,
        Existing::Replace(&waits),
    );
    match rules {
        Err(RulesError::Install(NetfilterError::Withdrawn)) => {
            Err(predecessor.error(Problem::Withdrawn).into())
        }
        rules => {
            let rules = rules?;
            predecessor.relieve()?;
            info!("replaced the instance that ran");
            Ok(rules)
        }
    }
}

/// Lets running connections end. Whatever fails here must not keep the rules from being removed. Gives
/// the process that has taken over meanwhile, if one has.
fn drain(
    events: &mut Events<'_>,
    flow_events: &FlowEvents,
    connection: &Connection,
    config: &Config,
) -> Option<Holder> {
    let mut wait = || {
        let addresses = Addresses::read()?;
        let judge = Judge::new(config, &addresses);
        let ours = |flow: &Flow| judge.is_forwarded(flow);
        drain::wait(connection, events, flow_events, config.drain, ours)
    };
    match wait() {
        Ok(successor) => successor,
        Err(error) => {
            warn!("not draining: {}", with_causes(&error));
            None
        }
    }
}

/// Removes the rules, and ends the connections that they have forwarded.
fn stop(connection: &Connection, config: &Config) -> Result<(), InstanceError> {
    let table = config.name.table();
    connection.remove(&table).map_err(InstanceError::Remove)?;
    let ended = end_flows(connection, config, &|judge, flow| judge.is_forwarded(flow));
    notify::status(format_args!(
        "stopped: table inet {table} is removed, {ended} running connections are ended"
    ));
    Ok(())
}

/// Leaves the rules to the process that has replaced them, and ends the connections that this one has
/// forwarded and nobody forwards any more.
fn leave_to(successor: Holder, config: &Config) -> Result<(), InstanceError> {
    // The one that the rules belong to is the successor's now.
    let connection = Connection::open().map_err(InstanceError::Open)?;
    let claims = connection.claims().map_err(InstanceError::Open)?;
    let ended = end_flows(&connection, config, &|judge, flow| {
        judge.is_forwarded(flow) && !claims.iter().any(|claims| claims.take(flow))
    });
    let table = config.name.table();
    notify::status(format_args!(
        "replaced by {successor}, which has table inet {table} now; {ended} running connections to ports that are not forwarded any more are ended"
    ));
    Ok(())
}

fn forget_stale_flows(connection: &Connection, config: &Config) {
    if !flow::can_be_stale(config) {
        return;
    }
    let ended = end_flows(connection, config, &|judge, flow| judge.is_stale(flow));
    if ended > 0 {
        info!("ended {ended} connections from before the rules were there");
    }
}

/// Ends some of the kernel's connections and says how many. Where that cannot be done, forwarding
/// still can, so it is only worth a warning.
fn end_flows(
    connection: &Connection,
    config: &Config,
    condemned: &dyn Fn(&Judge<'_>, &Flow) -> bool,
) -> usize {
    let end = || {
        let addresses = Addresses::read()?;
        let judge = Judge::new(config, &addresses);
        connection.end_flows(&|flow| condemned(&judge, flow))
    };
    match end() {
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

/// Leaves out the families that this host does not forward. Fails if none remains of which packets are
/// taken, or at the first one with `strict`.
fn keep_forwarded_families(config: &mut Config) -> Result<(), ForwardingError> {
    for family in Family::ALL {
        if !config.forwards_family(family) {
            continue;
        }
        if let Err(error) = sysctl::forwarding(family) {
            let mut others = Family::ALL.into_iter().filter(|other| *other != family);
            let others = others.any(|other| config.takes(other));
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
