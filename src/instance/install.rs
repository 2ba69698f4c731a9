//! The installation of a ruleset beside other instances, which may come and go meanwhile.

use crate::nftables::list::TableInfo;
use crate::nftables::{Installation, Nftables, NftablesError};
use crate::ruleset::Ruleset;
use crate::siblings::{self, Claims, SiblingError};
use log::warn;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why a ruleset was not installed.
#[derive(Debug, Error)]
pub enum InstallError {
    #[error(transparent)]
    Sibling(#[from] SiblingError),
    /// The predecessor goes on.
    #[error("the table that is there already must not be replaced any more")]
    ReplaceCancelled,
}

impl From<NftablesError> for InstallError {
    fn from(error: NftablesError) -> Self {
        InstallError::Sibling(error.into())
    }
}

/// What becomes of a table of the same name that is there already.
#[derive(Clone, Copy)]
pub enum IfExists<'a> {
    /// The installation fails, unless both the ruleset and the table have no owner: then the table was
    /// left by an instance that died, and is replaced.
    Fail,
    /// It is this instance's own, or its predecessor's: replace it, as long as this function permits.
    Replace(&'a dyn Fn() -> bool),
}

/// A transaction that other processes' changes forestall is sent again until it was sent so often, and for so long:
/// on a busy machine the others may run a hundred times before this process does once.
const MIN_ATTEMPTS: usize = 100;
const MIN_PERSISTENCE: Duration = Duration::from_secs(5);

/// Installs the ruleset, all of it or nothing. Fails if another instance claims a part of `claims`.
/// Gives the generation afterwards (see [`Nftables::commit`]).
/// `before_commit` is called when something is about to change.
///
/// No lock keeps other instances from changing anything meanwhile: the kernel refuses the transaction
/// if the ruleset is of another generation than when the others were looked at, and then all is done
/// again.
pub fn install(
    nftables: &Nftables,
    ruleset: &Ruleset,
    claims: &Claims,
    if_exists: IfExists<'_>,
    before_commit: &dyn Fn(),
) -> Result<Option<u32>, InstallError> {
    let port = nftables.port();
    let (begin, mut attempts) = (Instant::now(), 0);
    loop {
        attempts += 1;
        let generation = nftables.generation()?;
        let may_replace = |table: &TableInfo| match if_exists {
            IfExists::Fail => !ruleset.owner && table.owner.is_none(),
            IfExists::Replace(_) => table.owner.is_none_or(|owner| owner == port),
        };
        let others = siblings::check_conflicts(nftables, &ruleset.table, claims, may_replace)?;
        let installation = Installation::new(ruleset, others.replaceable, generation);
        match if_exists {
            IfExists::Replace(permitted) if !permitted() => {
                return Err(InstallError::ReplaceCancelled);
            }
            _ => {}
        }
        before_commit();
        match nftables.commit(&installation) {
            Err(NftablesError::Changed)
                if attempts >= MIN_ATTEMPTS && begin.elapsed() >= MIN_PERSISTENCE =>
            {
                return Err(NftablesError::Contended(attempts).into());
            }
            Err(NftablesError::Changed) => continue,
            Err(error @ (NftablesError::Socket(_) | NftablesError::NoReply)) => {
                // It is not known whether it was done, and without an owner the table would stay.
                if matches!(if_exists, IfExists::Fail) {
                    let _ = nftables.remove(&ruleset.table);
                }
                return Err(error.into());
            }
            result => {
                for table in others.unread {
                    warn!("{}", siblings::unread(&table));
                }
                return Ok(result?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Options};
    use crate::netns::in_own_namespace;
    use std::thread;

    /// Installs something while another process changes the ruleset between each look and the transaction, after a
    /// pause. Gives how many attempts it gave up after, and how long they took.
    fn give_up(pause: Duration) -> (usize, Duration) {
        let options = Options {
            forwards: vec!["tcp/80=10.0.0.5".into()],
            ..Options::default()
        };
        let config = Config::new(&options).unwrap();
        in_own_namespace(|| {
            let [nftables, other] = [(); 2].map(|()| Nftables::open().unwrap());
            let change = || {
                thread::sleep(pause);
                other.add_table("other", false).unwrap();
                other.remove("other").unwrap();
            };
            let (ruleset, claims) = (Ruleset::new(&config), Claims::of(&config));
            let begin = Instant::now();
            let done = install(&nftables, &ruleset, &claims, IfExists::Fail, &change);
            let error = done.unwrap_err().to_string();
            let attempts = error.split(' ').find_map(|word| word.parse().ok());
            assert!(nftables.table(&ruleset.table).unwrap().is_none());
            (attempts.expect(&error), begin.elapsed())
        })
    }

    #[test]
    fn changes_without_a_pause_forestall_it_for_a_while_and_slow_ones_often() {
        let (fast, slow) = thread::scope(|scope| {
            let slow = scope.spawn(|| give_up(MIN_PERSISTENCE / 90));
            (give_up(Duration::ZERO), slow.join().unwrap())
        });
        assert!(
            fast.1 >= MIN_PERSISTENCE && fast.0 >= MIN_ATTEMPTS,
            "{fast:?}"
        );
        assert_eq!(slow.0, MIN_ATTEMPTS);
    }
}
