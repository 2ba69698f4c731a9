//! How an instance gets its name, and with it the socket that its table is to belong to.

use super::InstanceError;
use super::replace::{AskError, Predecessor, ReplaceError, ReplaceProblem};
use super::signals::Signals;
use crate::config::Config;
use crate::lock::{self, Lock, LockError, Peer, Standing};
use crate::nftables::Nftables;
use log::warn;
use std::time::{Duration, Instant};

/// How long an instance is asked again that hangs up, as one does that is just being replaced, or that has
/// many clients.
const MAX_ASKING: Duration = Duration::from_secs(10);

/// How often the name is tried again whose holder is no instance yet, or no more: for a second each time that it
/// comes to that, as the name may go from one instance to the next.
const MAX_CHANGE_RETRIES: usize = 20;

/// After how long both are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// What an instance begins with: its lock, the socket that its table is to belong to, and the running
/// instance that is to be replaced, whose the two then are.
pub type Beginning = (Option<Lock>, Nftables, Option<Predecessor>);

/// Locks the instance's name, or takes it over from the running instance. Without a name that another
/// process has, it can begin where the table itself is a lock.
pub fn take(config: &Config, signals: &Signals) -> Result<Beginning, InstanceError> {
    let name = &config.name;
    let nftables = Nftables::open()?;
    let begin = Instant::now();
    let mut problem = None;
    let mut retries = 0;
    loop {
        if let Some(lock) = Lock::take(name)? {
            return Ok((Some(lock), nftables, None));
        }
        if !config.replace {
            break;
        }
        let peer = Peer::with_name(&name.table()).unwrap_or(Peer::GONE);
        let is_over = match lock::standing(&nftables, name, config.owner, peer) {
            Ok(Standing::Stranger) => break,
            Ok(Standing::Changing) => {
                retries += 1;
                retries > MAX_CHANGE_RETRIES || begin.elapsed() >= MAX_ASKING
            }
            // Without the capability it can prove nothing either.
            Err(error) => {
                let unproved = ReplaceProblem::from(AskError::Proof(error));
                problem = Some(ReplaceError::new(name, peer.process, unproved));
                break;
            }
            Ok(Standing::Instance) => match Predecessor::ask(name, peer.process, config.owner) {
                Ok(Some((predecessor, lock, nftables))) => {
                    return Ok((Some(lock), nftables, Some(predecessor)));
                }
                Ok(None) => {
                    retries = 0;
                    begin.elapsed() >= MAX_ASKING
                }
                Err(error) => {
                    problem = Some(error);
                    break;
                }
            },
        };
        if is_over {
            break;
        }
        signals.sleep(RETRY_INTERVAL)?;
    }
    // Not known if it has just ended.
    let peer = Peer::with_name(&name.table()).unwrap_or(Peer::GONE);
    match lock::go_without(&nftables, name, config.owner, peer) {
        Ok(peer) => {
            warn!("{}", lock::irreplaceable(name, peer));
            Ok((None, nftables, None))
        }
        Err(LockError::Running { holder, .. }) if config.replace => {
            let refused = || ReplaceError::new(name, holder, ReplaceProblem::Refused);
            Err(problem.unwrap_or_else(refused).into())
        }
        Err(LockError::Nftables(error)) => Err(problem.map_or(error.into(), Into::into)),
        Err(error) => Err(error.into()),
    }
}
