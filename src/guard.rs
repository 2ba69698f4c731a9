//! Keeping rules that nobody protects: on kernels before 5.12, where a table has no owner.

use crate::config::Config;
use crate::netfilter::{Changed, Connection, NetfilterError, Ownership, TableEvents};
use crate::ruleset::Ruleset;
use crate::signals::Signals;
use log::{info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why the rules cannot be kept.
#[derive(Debug, Error)]
pub enum GuardError {
    /// The kernel tells nothing of changes.
    #[error("cannot wait for the kernel's news of changes to nftables")]
    Events(#[from] io::Error),
    /// The rules cannot be installed again.
    #[error("cannot install the rules again")]
    Install(#[from] NetfilterError),
}

/// The rules are installed again at most this often, lest two programs fight at full speed.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sleeps until a signal comes, and leaves it to be waited for. Whenever somebody else has changed the table, installs it anew.
pub fn wait(connection: &Connection, config: &Config, signals: &Signals) -> Result<(), GuardError> {
    let table = config.name.table();
    let ruleset = Ruleset::new(config);
    let events = TableEvents::open(&table, connection)?;
    let mut installed: Option<Instant> = None;
    loop {
        let mut sources = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut sources, PollTimeout::NONE) {
            Ok(_) if sources[0].any().unwrap_or(false) => return Ok(()),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        match events.changed()? {
            Changed::No => continue,
            Changed::Yes => {
                warn!("somebody else has changed table inet {table}: installing it again");
            }
            Changed::Unknown => warn!(
                "the kernel had more news of nftables than it could keep: installing table inet {table} again, in case it was changed"
            ),
        }
        let pause = installed.map_or(Duration::ZERO, |at| INTERVAL.saturating_sub(at.elapsed()));
        if signals.arrive_within(pause)? {
            return Ok(());
        }
        connection.install(&ruleset, Ownership::Nobody)?;
        installed = Some(Instant::now());
        info!("installed table inet {table} again");
    }
}
