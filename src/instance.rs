//! One running forwarder: check, install, wait, remove.

use crate::config::{Config, Family, Forward};
use crate::netfilter::{Connection, NetfilterError};
use crate::ruleset::Ruleset;
use crate::signals::Signals;
use crate::sysctl::{self, ForwardingError};
use log::{debug, info, warn};
use sd_notify::NotifyState;
use std::io;
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
    /// No signals.
    #[error("cannot wait for signals")]
    Signals(#[from] io::Error),
}

/// Forwards until TERM, INT, HUP or QUIT comes. When it returns, nothing is left in the kernel.
pub fn run(mut config: Config) -> Result<(), InstanceError> {
    let started = Instant::now();
    let mut signals = Signals::register()?;
    keep_forwarded_families(&mut config)?;

    let ruleset = Ruleset::new(&config);
    let connection = Connection::open().map_err(InstanceError::Install)?;
    connection
        .install(&ruleset)
        .map_err(InstanceError::Install)?;
    let Ruleset { table, .. } = ruleset;
    info!(
        "ready: {} in table inet {table} after {:.1?}",
        summary(&config.forwards),
        started.elapsed()
    );
    notify(NotifyState::Ready);
    drop(config);

    signals.wait()?;
    notify(NotifyState::Stopping);
    connection.remove(&table).map_err(InstanceError::Remove)?;
    info!("stopped: table inet {table} is removed");
    Ok(())
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

/// The first forwards in full; how many more there are.
fn summary(forwards: &[Forward]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = forwards
        .iter()
        .take(SHOWN)
        .map(Forward::to_string)
        .collect();
    let more = match forwards.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("forwarding {}{more}", shown.join(" "))
}

/// Tells a service manager that asked for it (sd_notify(3)).
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!("cannot notify the service manager: {error}");
    }
}
