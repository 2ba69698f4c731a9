//! HUP where the options come from a file, or `nodefwd reload`: the file is read again, and the rules change
//! in place, in one transaction. Whatever fails, the rules from before stay.

mod request;

pub use request::{RequestError, request};

use super::deletion::{delete_abandoned_flows, delete_all_stale_flows};
use super::events::Events;
use super::{InstanceError, Waiting, keep_forwarded_families, notify};
use crate::config::{Config, ConfigError};
use crate::logging::with_causes;
use log::{info, warn};
use thiserror::Error;

/// Why the rules have not changed.
#[derive(Debug, Error)]
pub enum ReloadError {
    #[error(transparent)]
    Input(#[from] ConfigError),
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

/// Reads the options again with `read`, which gets the config that runs now, and changes the rules.
/// Running TCP connections stay with their destinations, as with `--replace`. Says whether it has
/// succeeded.
pub fn reload(
    config: &mut Config,
    waiting: &mut Waiting,
    events: &mut Events<'_>,
    read: &dyn Fn(&Config) -> Result<Config, ConfigError>,
) -> bool {
    notify::reloading();
    match read_again(config, waiting, events, read) {
        Ok(()) => {
            let summary = events.summary(config);
            info!("reloaded: {summary}");
            notify::ready(&summary);
            events.answer_reload(Ok(()));
            true
        }
        Err(error) => {
            let causes = with_causes(&error);
            // Before it is said: whoever reads that may look at the status.
            let marked = events.mark_failed_reload();
            warn!("not reloaded, going on with the rules as they are: {causes}");
            if let Err(error) = marked {
                warn!("status does not show that: {}", with_causes(&error));
            }
            notify::not_reloaded(&causes);
            events.answer_reload(Err(&causes));
            false
        }
    }
}

fn read_again(
    config: &mut Config,
    waiting: &mut Waiting,
    events: &mut Events<'_>,
    read: &dyn Fn(&Config) -> Result<Config, ConfigError>,
) -> Result<(), ReloadError> {
    let mut wanted = read(config)?;
    let kept = keep_forwarded_families(&mut wanted, &[]);
    wanted.log_warnings();
    let wanted = (wanted, kept?);
    change(config, waiting, events, wanted, false)
}

/// Changes the rules to those for other answers for the same names. What was said of the families when the
/// options were read holds on, and that the last reload has failed.
pub fn follow_names(
    config: &mut Config,
    waiting: &mut Waiting,
    events: &mut Events<'_>,
    mut wanted: Config,
) -> Result<(), ReloadError> {
    let kept = keep_forwarded_families(&mut wanted, &config.not_forwarded)?;
    let reload_failed = events.has_failed_reload();
    change(config, waiting, events, (wanted, kept), reload_failed)
}

/// Changes the rules to those for another config, with the forwards that it waits for, and goes on with that.
fn change(
    config: &mut Config,
    waiting: &mut Waiting,
    events: &mut Events<'_>,
    (wanted, now_waiting): (Config, Waiting),
    reload_failed: bool,
) -> Result<(), ReloadError> {
    let changed = events.change_rules(&wanted, reload_failed);
    changed.map_err(InstanceError::Install)?;
    *waiting = now_waiting;
    let before = std::mem::replace(config, wanted);
    delete_all_stale_flows(config, events.signals());
    match delete_abandoned_flows(&before) {
        Ok(0) => {}
        Ok(ended) => info!(
            "deleted the conntrack entries of {ended} running connections to ports that are no longer forwarded"
        ),
        Err(error) => warn!(
            "conntrack entries of ports that are no longer forwarded stay: {}",
            with_causes(&error)
        ),
    }
    Ok(())
}
