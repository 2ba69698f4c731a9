//! One running forwarder: check, install, wait, remove.
//!
//! [`run`] drives it. `install` and `rules` put the table into the kernel and keep it there, `events` waits, `flows`
//! tells which conntrack entries are the instance's, `deletion` deletes those that bypass its rules, `drain` lets them
//! end, `replace` hands the table over to another process; `names` looks them up again; `notify` speaks to the service
//! manager.

mod deletion;
mod drain;
mod events;
mod fast_path;
mod flows;
mod forwarding;
mod health;
mod host;
mod install;
mod name;
mod names;
mod notify;
mod poll;
mod reload;
mod replace;
mod rules;
mod signals;
mod watch;

use crate::capability;
use crate::check;
use crate::config::{Config, ConfigError, Down, Family, Forward};
use crate::conntrack::{Conntrack, ConntrackError, Flow};
use crate::lock::{Holder, LockError};
use crate::logging::with_causes;
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::Addresses;
use crate::sysctl::{Forwarding, ForwardingError};
use deletion::{
    delete_abandoned_flows, delete_all_stale_flows, delete_flows, delete_stale_flows, deleted,
};
use events::{Event, Events};
use flows::FlowMatcher;
use forwarding::{ForwardingReport, in_table, take_in};
use health::Health;
use host::{HostChange, HostChanges};
use install::IfExists;
use log::{Level, info, log, warn};
use names::Names;
pub use notify::failed as notify_failure;
use reload::reload;
pub use reload::{RequestError, request as request_reload};
use replace::{Clients, Predecessor, ReplaceError, ReplaceProblem};
use rules::{Rules, RulesError};
pub use signals::Signals;
use std::collections::HashSet;
use std::io;
use std::time::Instant;
use thiserror::Error;
pub use watch::FileWatch;

/// Why forwarding ended, or did not begin.
#[derive(Debug, Error)]
pub enum InstanceError {
    #[error("cannot forward: {}", .0.iter().map(|error| with_causes(error)).collect::<Vec<_>>().join("; "))]
    Forwarding(Vec<ForwardingError>),
    #[error("cannot install the rules")]
    Open(#[from] NftablesError),
    #[error("cannot install the rules")]
    Conntrack(#[from] ConntrackError),
    #[error(transparent)]
    Install(#[from] RulesError),
    /// The rules were changed by another process, and cannot be installed again.
    #[error("cannot keep the rules")]
    Keep(#[source] RulesError),
    #[error("cannot remove the rules")]
    Remove(#[source] NftablesError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    #[error("cannot set up signal handling or the lock")]
    Wait(#[from] io::Error),
}

/// Forwards until one of the signals comes, or until another process replaces this one. When it
/// returns, nothing of its own is left in the kernel.
///
/// Fails at once if this host forwards no family of which packets are forwarded (with `strict`: not
/// every one that has destinations), if another instance has the name or a port, or if the kernel
/// refuses the rules.
///
/// `read_again` reads the options once more for the config that runs; it is called when HUP comes, if
/// the signals were registered so, and with `watch` when `file` changes.
pub fn run(
    mut config: Config,
    signals: &Signals,
    file: Option<io::Result<FileWatch>>,
    read_again: &dyn Fn(&Config) -> Result<Config, ConfigError>,
) -> Result<(), InstanceError> {
    let started = Instant::now();
    // Before it is read what they change.
    let host = HostChanges::open();
    let kept = keep_forwarded_families(&mut config, &[]);
    // Also if it does not start: they say why the other family would not do.
    config.log_warnings();
    let waiting = kept?;

    let (lock, nftables, predecessor) = name::take(&config, signals)?;
    let clients = Clients::new(&config.name, lock)?;
    let begins = predecessor.is_none().then_some(started);
    let mut health = Health::new(&config, None)?;
    let down = health::take_over(&config, health.as_mut());
    let rules = install(&nftables, signals, &config, &down, predecessor)?;
    clients.refresh_credentials()?;
    let report = begin(&mut config, started, signals);
    if let Err(error) = capability::keep_net_admin_only() {
        let causes = with_causes(&error);
        warn!("keeping privileges that are not needed: {causes}");
    }

    let file = file.filter(|_| config.watch);
    let file = file.and_then(|file| file.inspect_err(FileWatch::warn).ok());
    let names = Names::new(&config);
    let mut events = Events::new(signals, clients, rules, host, file, health, names);
    let served = serve(&mut events, &mut config, waiting, report, read_again);
    if matches!(served, Ok(Event::Signal)) {
        signals.wait()?;
    }
    notify::stopping(config.drain);
    let successor = match served {
        Ok(Event::Replaced(process)) => Some(process),
        _ if config.drain.is_zero() => None,
        _ => drain(&mut events, &config, begins),
    };
    match successor {
        Some(process) => hand_over(process, &config)?,
        None => stop(&nftables, &config)?,
    }
    served.map(|_| ()).map_err(InstanceError::Keep)
}

/// Deletes what would bypass the new rules, says that they are in the kernel, and looks around.
fn begin(config: &mut Config, started: Instant, signals: &Signals) -> ForwardingReport {
    delete_stale_flows(config, &flows::can_be_stale(config), signals);
    let ends = signals.have_come();
    if !ends {
        announce(config, started);
    }
    // What is switched off from now on is said, also if that is while the check looks.
    let report = ForwardingReport::new(config);
    if !ends {
        delete_stale_flows(config, &flows::can_be_half_open(config), signals);
        check::warn(config, signals.flag());
    }
    report
}

/// Says that the rules are in the kernel.
fn announce(config: &Config, started: Instant) {
    let summary = in_table(config);
    let table = config.name.table();
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    info!(table = table.as_str(), milliseconds; "ready: {summary} after {milliseconds:.3} ms");
    notify::ready(&summary);
}

/// Forwards of families that this host does not forward now.
type Waiting = Vec<(Family, Vec<Forward>)>;

/// Waits for what ends the instance, and follows the changes of this host and of the options until then.
fn serve(
    events: &mut Events<'_>,
    config: &mut Config,
    mut waiting: Waiting,
    mut report: ForwardingReport,
    read_again: &dyn Fn(&Config) -> Result<Config, ConfigError>,
) -> Result<Event, RulesError> {
    let signals = events.signals();
    loop {
        match events.next(None)? {
            Event::Host(HostChange::ForwardingOn) => {
                if take_in(config, &mut waiting, events) {
                    report.tell(config, events);
                    delete_all_stale_flows(config, signals);
                }
            }
            Event::Host(HostChange::Forwarding) => report.update(config, events),
            Event::Host(HostChange::Addresses) => {
                events.follow_interfaces(config);
                delete_all_stale_flows(config, signals);
            }
            Event::Host(HostChange::Interfaces) => events.follow_interfaces(config),
            Event::Health => {
                if health::apply(config, events) {
                    report.tell(config, events);
                }
            }
            Event::Names => {
                if names::apply(config, &mut waiting, events) {
                    // The destinations are others, and a family that is off may be left out now.
                    report.update(config, events);
                    report.tell(config, events);
                }
            }
            // HUP would have ended it.
            Event::Reload if signals.reloads().is_none() => {
                events.answer_reload(Err("it was started without NODEFWD_ENV_FILE (--env-file)"));
            }
            Event::Reload => {
                if reload(config, &mut waiting, events, read_again) {
                    report.renew(config);
                    check::warn(config, signals.flag());
                }
            }
            event => return Ok(event),
        }
    }
}

/// Installs the rules, in place of the predecessor's if there is one, which then ends.
fn install<'a>(
    nftables: &'a Nftables,
    signals: &'a Signals,
    config: &Config,
    down: &Down,
    predecessor: Option<Predecessor>,
) -> Result<Rules<'a>, InstanceError> {
    let install = |if_exists| Rules::install(nftables, signals, config, down, if_exists);
    let Some(predecessor) = predecessor else {
        return Ok(install(IfExists::Fail)?);
    };
    let waits = || predecessor.waits();
    match install(IfExists::Replace(&waits)) {
        // Whatever has failed: it uses the socket again, and may have read the kernel's replies to this process.
        Err(_) if !predecessor.waits() => Err(predecessor.error(ReplaceProblem::Cancelled).into()),
        rules => {
            let rules = rules?;
            predecessor.commit(signals)?;
            info!("replaced the instance that ran");
            Ok(rules)
        }
    }
}

/// Lets running connections end. Whatever fails here must not keep the rules from being removed. Gives
/// the process that has replaced this one meanwhile, if one has.
///
/// What an instance that was killed has left, nobody ends: of connections from before it `begins`, if that is known, those
/// that have had no packet since are not waited for.
fn drain(events: &mut Events<'_>, config: &Config, begins: Option<Instant>) -> Option<Holder> {
    let mut wait = || {
        let addresses = Addresses::read_of(config.listen.interfaces())?;
        let matcher = FlowMatcher::new(config, &addresses);
        let wanted = flows::can_be_forwarded(config);
        let is_forwarded = |flow: &Flow| matcher.is_forwarded(flow);
        let mut left = HashSet::new();
        if let Some(begins) = begins {
            left = Conntrack::open()?.idle(&wanted, &is_forwarded, begins.elapsed())?;
        }
        if !left.is_empty() {
            info!(
                "not waiting for {} connections that idle since before the start",
                left.len()
            );
        }
        let running = || {
            let running = Conntrack::open()?.running(&wanted, &is_forwarded)?;
            Ok(&running - &left)
        };
        events.close()?;
        if config.wants_fast_path() {
            let conntrack = Conntrack::open()?;
            let done = conntrack.accept_resets(&wanted, &is_forwarded);
            done.unwrap_or_else(|error| {
                info!(
                    "connections that are reset may be waited for: {}",
                    with_causes(&error)
                )
            });
        }
        drain::wait(events, config.drain, running)
    };
    match wait() {
        Ok(successor) => successor,
        Err(error) => {
            warn!("not draining: {}", with_causes(&error));
            None
        }
    }
}

/// Removes the rules, and deletes the conntrack entries of the connections that they have forwarded.
fn stop(nftables: &Nftables, config: &Config) -> Result<(), InstanceError> {
    let table = config.name.table();
    nftables.remove(&table).map_err(InstanceError::Remove)?;
    let wanted = flows::can_be_forwarded(config);
    let ended = delete_flows(config, &wanted, &|matcher, flow| matcher.is_forwarded(flow));
    let ended = deleted(ended);
    notify::status(
        ended,
        format_args!(
            "stopped: removed table inet {table}, and deleted the conntrack entries of {ended} running connections"
        ),
    );
    Ok(())
}

/// Leaves the rules to the process that has replaced them, and deletes the conntrack entries of
/// connections that this instance has forwarded and no instance forwards any more.
fn hand_over(successor: Holder, config: &Config) -> Result<(), InstanceError> {
    let ended = delete_abandoned_flows(config)?;
    let table = config.name.table();
    notify::status(
        ended,
        format_args!(
            "replaced by {successor}, which now has table inet {table}; deleted the conntrack entries of {ended} running connections to ports that are no longer forwarded"
        ),
    );
    Ok(())
}

/// Drops the forwards of families that this host does not forward, each with a warning. Fails if there is
/// one with `strict`, or if no family remains of which packets are forwarded. Gives what was dropped. Nothing
/// new is to be said of `known` families.
fn keep_forwarded_families(
    config: &mut Config,
    known: &[Family],
) -> Result<Waiting, InstanceError> {
    let forwarding = Forwarding::of(config);
    if !forwarding.suffices(config.strict) {
        return Err(InstanceError::Forwarding(forwarding.off));
    }
    let drop = |error: ForwardingError| {
        let family = error.family();
        let level = if known.contains(&family) {
            Level::Debug
        } else {
            Level::Warn
        };
        log!(level, "{}; going on without {family}", with_causes(&error));
        (family, config.drop_family(family))
    };
    Ok(forwarding.off.into_iter().map(drop).collect())
}
