//! The socket to nf_tables, and what a ruleset goes through on it: installed, closed, removed.

use super::batch::{Batch, Step, Transaction};
use super::encode::{self, Counts};
use super::error::{NftablesError, describe, explain, refused};
use super::list::{self, Table, TableInfo};
use crate::netlink::{Failure, Socket};
use crate::ruleset::{Flowtable, Ruleset, Statement};
use log::{debug, trace};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A socket to nf_tables of this network namespace. A table with an owner that it installs belongs to
/// it, and is gone at the latest when the socket is closed, or its process ends.
///
/// Everything that it does, reading too, takes CAP_NET_ADMIN in the namespace (nfnetlink_rcv in
/// net/netfilter/nfnetlink.c), and fails with the kernel's reason.
pub struct Nftables {
    socket: Socket,
}

/// A transaction that installs a ruleset.
pub struct Installation<'a> {
    ruleset: &'a Ruleset,
    transaction: Transaction,
    replaces: bool,
    generation: Option<u32>,
}

impl<'a> Installation<'a> {
    /// Encodes the ruleset. With `replaces` it takes the place of a table of the same name, which must
    /// be there. With a generation, the kernel refuses it ([`NftablesError::Changed`]) if any process has
    /// changed the ruleset since.
    pub fn new(ruleset: &'a Ruleset, replaces: bool, generation: Option<u32>) -> Self {
        Installation {
            ruleset,
            transaction: encode::install(ruleset, replaces, generation),
            replaces,
            generation,
        }
    }
}

impl Nftables {
    /// Opens a socket. Needs no privileges.
    pub fn open() -> Result<Self, NftablesError> {
        // Without the module nfnetlink there is not even the protocol.
        let socket = Socket::netfilter().map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::EPROTONOSUPPORT as i32 => NftablesError::NoNftables,
            _ => NftablesError::Socket(error),
        })?;
        Ok(Nftables { socket })
    }

    /// Takes over a socket that another process has passed on, with the tables that belong to it. Fails
    /// if it is no socket to nf_tables of the namespace of this one.
    pub fn adopt(&self, passed: &OwnedFd) -> Result<Self, NftablesError> {
        let socket = Socket::adopt(passed, &self.socket)?;
        Ok(Nftables { socket })
    }

    /// Drops replies to requests of another process that has used this socket too.
    pub fn discard_replies(&self) -> Result<(), NftablesError> {
        Ok(self.socket.discard_replies()?)
    }

    /// The socket's netlink port, by which the kernel names the owner of a table.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Installs a ruleset, all of it or nothing. An existing table is replaced if that was asked for,
    /// and else refused.
    ///
    /// Gives the generation afterwards, as long as no other process changes anything: reckoned, not
    /// read, so that no change can slip in between. `None` where the kernel has no such number.
    pub fn commit(&self, installation: &Installation<'_>) -> Result<Option<u32>, NftablesError> {
        let Installation {
            ruleset,
            transaction,
            replaces,
            generation,
        } = installation;
        for (sequence, step) in (1..).zip(transaction.steps()) {
            trace!("message {sequence}: {}", describe(ruleset, *step));
        }
        self.transact(transaction)
            .map_err(|failure| match failure {
                Failure::Refused(refusal) => explain(ruleset, transaction, refusal),
                failure => failure.into(),
            })?;
        let committed = generation.map(next_generation);
        if *replaces && self.end_overlap(ruleset)? {
            return Ok(committed.map(next_generation));
        }
        Ok(committed)
    }

    /// Says whether there was anything to end.
    fn end_overlap(&self, ruleset: &Ruleset) -> Result<bool, NftablesError> {
        match self.transact(&encode::end_overlap(ruleset)) {
            Ok(()) => Ok(true),
            // Without an owner, another process may have removed the chains.
            Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(false),
            Err(failure) => Err(refused(failure, "finish", &ruleset.table)),
        }
    }

    /// Has the kernel check a ruleset, under another name, and throw it away: the last message of the
    /// transaction is one that it must refuse, so it undoes all before any process sees them
    /// (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c). Missing modules are loaded, as for an
    /// installation.
    pub fn dry_run(&self, ruleset: &Ruleset) -> Result<(), NftablesError> {
        let transaction = encode::dry_run(ruleset);
        match self.transact(&transaction) {
            Err(Failure::Refused(refusal))
                if refusal.sequence == transaction.last_sequence()
                    && refusal.errno == Errno::ENOENT =>
            {
                Ok(())
            }
            Err(Failure::Refused(refusal)) => Err(explain(ruleset, &transaction, refusal)),
            Err(failure) => Err(failure.into()),
            // It cannot succeed.
            Ok(()) => Err(NftablesError::NoReply),
        }
    }

    /// Whether this kernel knows tables with an owner: has it make one, in a transaction that it must
    /// undo, as in [`dry_run`](Self::dry_run).
    pub fn supports_owner(&self, table: &str) -> bool {
        let probe = format!("{table}.probe");
        self.could_own(&probe)
    }

    /// Whether this kernel knows tables with an owner, and would make this one. It does not if there is one
    /// that it does not show (5.12 to 5.14).
    pub fn could_own(&self, table: &str) -> bool {
        let mut batch = Batch::new(None);
        batch.push(Step::Table, encode::add_table(table, true));
        let missing = format!("{table}.none");
        batch.push(Step::Table, encode::delete_table(&missing));
        let transaction = batch.finish();
        matches!(self.transact(&transaction), Err(Failure::Refused(refusal))
            if refusal.sequence == transaction.last_sequence())
    }

    /// Adds an empty table, which belongs to this socket if it gets an owner.
    pub fn add_table(&self, table: &str, owner: bool) -> Result<(), NftablesError> {
        let mut batch = Batch::new(None);
        batch.push(Step::Table, encode::add_table(table, owner));
        let done = self.transact(&batch.finish());
        done.map_err(|failure| refused(failure, "add", table))
    }

    /// Turns the chains of one ruleset, which is in the kernel, into those of another, which has the same sets. The
    /// counters of what differs go on; a packet between the look at them and the transaction is not counted.
    pub fn change(&self, before: &Ruleset, after: &Ruleset) -> Result<(), NftablesError> {
        let table = Table::inet(&before.table);
        let mut counts = Counts::default();
        for chain in encode::changed_chains(before, after) {
            if chain
                .rules
                .iter()
                .flatten()
                .any(|it| *it == Statement::Counter)
            {
                let rules = self.list(|socket| list::rules(socket, &table, Some(&chain.name)))?;
                let count = |rule: &list::Rule| rule.count();
                counts.add(chain, &rules.iter().map(count).collect::<Vec<_>>());
            }
        }
        match encode::change(before, after, counts) {
            None => Ok(()),
            Some(transaction) => {
                let done = self.transact(&transaction);
                done.map_err(|failure| refused(failure, "change", &after.table))
            }
        }
    }

    /// Adds the interfaces of a flowtable to the one of its name that is there.
    pub fn add_interfaces(&self, table: &str, flowtable: &Flowtable) -> Result<(), NftablesError> {
        let done = self.transact(&encode::add_interfaces(table, flowtable));
        done.map_err(|failure| refused(failure, "add interfaces to the fast path of", table))
    }

    /// Empties the chains that new connections come in through, and deletes the fast path. Running connections go
    /// on.
    pub fn close(&self, ruleset: &Ruleset) -> Result<(), NftablesError> {
        let done = self.transact(&encode::close(ruleset));
        done.map_err(|failure| refused(failure, "close", &ruleset.table))
    }

    /// Removes a table with all that is in it, if it is there.
    pub fn remove(&self, table: &str) -> Result<(), NftablesError> {
        let mut batch = Batch::new(None);
        batch.push(Step::Table, encode::delete_table(table));
        match self.transact(&batch.finish()) {
            Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(()),
            done => done.map_err(|failure| refused(failure, "remove", table)),
        }
    }

    /// The generation of the ruleset, which every commit of any process changes.
    pub fn generation(&self) -> Result<Option<u32>, NftablesError> {
        self.list(list::generation)
    }

    /// The tables of family `inet` in this network namespace.
    pub fn tables(&self) -> Result<Vec<TableInfo>, NftablesError> {
        self.list(list::tables)
    }

    /// This table of family `inet`; `None` if it is not there.
    pub fn table(&self, table: &str) -> Result<Option<TableInfo>, NftablesError> {
        let mut tables = self.tables()?.into_iter();
        Ok(tables.find(|found| found.name == table))
    }

    /// Reads with the functions of [`list`].
    pub fn list<T>(
        &self,
        read: impl FnOnce(&Socket) -> Result<T, Failure>,
    ) -> Result<T, NftablesError> {
        Ok(read(&self.socket)?)
    }

    /// The socket, for tests that send requests of their own.
    #[cfg(test)]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    fn transact(&self, transaction: &Transaction) -> Result<(), Failure> {
        let bytes = transaction.bytes().len();
        let last_sequence = transaction.last_sequence();
        debug!("sending a transaction of {last_sequence} messages in {bytes} bytes");
        self.socket.transact(transaction.bytes(), last_sequence)
    }
}

impl AsFd for Nftables {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The generation after a commit (nf_tables_commit in net/netfilter/nf_tables_api.c).
fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}
