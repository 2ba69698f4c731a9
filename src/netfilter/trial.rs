//! Would the kernel take a ruleset, and would anybody object? Asked without changing anything.

use super::error::{explain, plain};
use super::socket::Failure;
use super::{Connection, NetfilterError, Ownership, encode};
use crate::ruleset::Ruleset;
use nix::errno::Errno;

impl Connection {
    /// Has the kernel look through the ruleset, under another name, and throw it away: the last
    /// message of the transaction is one that it must refuse, so all are undone before anybody sees
    /// them (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c). Modules that are missing are loaded, as for an
    /// installation.
    pub fn try_install(
        &self,
        ruleset: &Ruleset,
        ownership: Ownership,
    ) -> Result<(), NetfilterError> {
        let transaction = encode::trial(ruleset, ownership);
        match self.transact(&transaction) {
            Err(Failure::Refused(refusal))
                if refusal.sequence == transaction.last_sequence()
                    && refusal.errno == Errno::ENOENT =>
            {
                Ok(())
            }
            Err(Failure::Refused(refusal)) => Err(explain(ruleset, &transaction, refusal)),
            Err(failure) => Err(plain(failure)),
            // It cannot succeed.
            Ok(()) => Err(NetfilterError::NoAnswer),
        }
    }

    /// Fails as [`install`](Connection::install) does if somebody else has a part of what the
    /// ruleset claims, or its name, unless the instance of that name is to be replaced.
    pub fn look_for_rivals(
        &self,
        ruleset: &Ruleset,
        ownership: Ownership,
        replace: bool,
    ) -> Result<(), NetfilterError> {
        self.look_around(ruleset, &ruleset.claims(), |table| {
            replace || ownership == Ownership::Nobody && table.owner.is_none()
        })?;
        Ok(())
    }
}
