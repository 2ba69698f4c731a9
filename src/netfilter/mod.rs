//! The kernel's side: netlink, and the only unsafe code of the program.
//!
//! A [`Connection`] installs a [`Ruleset`] in one transaction and removes it. Below it, `encode`
//! turns the ruleset into messages (`load`, `expression`, `elements`, `set`, `table`), `batch` puts them together,
//! `socket` sends them and reads the answers, and `message` takes those apart.

mod addresses;
mod batch;
mod conntrack;
mod counters;
mod elements;
mod encode;
mod error;
mod expression;
mod firewall;
#[cfg(test)]
mod genuine;
#[cfg(test)]
mod hostile;
mod load;
mod message;
pub mod pass;
#[cfg(test)]
mod refusals;
mod route;
mod rule;
#[cfg(test)]
mod sandbox;
mod set;
mod sibling;
mod socket;
mod table;
mod trial;
mod watch;

pub use addresses::Addresses;
pub use conntrack::FlowEvents;
pub use error::NetfilterError;
pub use firewall::{
    BaseChain, Fate, FilterHook, Firewall, Interface, Packet, Place, Table, TableFamily,
};
pub use route::{Arrival, Ports, Route, Routes};
pub use socket::Lost;
pub use watch::{Changed, TableEvents};

use crate::flow::Flow;
use crate::lock::Holder;
use crate::ruleset::{Claims, Ruleset};
use crate::status::ForwardStatus;
use batch::{Batch, Step, Transaction};
use error::{explain, flows_failed, plain, refused, whose};
use log::debug;
use nftnl::MsgType;
use nix::errno::Errno;
use socket::{Failure, Socket};
use std::collections::HashSet;
use std::ffi::CString;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use table::TableMessage;

pub use table::TableInfo;

/// A connection to nf_tables of this network namespace. A ruleset that it installs belongs to it,
/// and is gone at the latest when it is dropped or its process ends.
///
/// All that it does, reading too, takes CAP_NET_ADMIN in the namespace (nfnetlink_rcv in
/// net/netfilter/nfnetlink.c), and fails with what the kernel said.
pub struct Connection {
    socket: Socket,
}

/// Who keeps others from changing a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The kernel: the table belongs to the connection and goes with it (Linux 5.12 and later).
    Kernel,
    /// Nobody.
    Nobody,
}

/// What is to become of a table of the same name that is there already.
#[derive(Clone, Copy)]
pub enum Existing<'a> {
    /// It is somebody else's, or a dead instance's.
    Refuse,
    /// It is this instance's own, or its predecessor's: replace it, as long as this says that it may
    /// be.
    Replace(&'a dyn Fn() -> bool),
}

/// How often an installation is tried anew because others changed the ruleset meanwhile.
const ATTEMPTS: usize = 100;

impl Connection {
    /// Connects. Needs no privileges.
    pub fn open() -> Result<Self, NetfilterError> {
        // Without the module nfnetlink there is not even the protocol.
        let socket = Socket::open().map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::EPROTONOSUPPORT as i32 => NetfilterError::NoNftables,
            _ => NetfilterError::Socket(error),
        })?;
        Ok(Connection { socket })
    }

    /// Takes over a connection that another process has passed on. What belongs to it belongs to it
    /// still.
    pub fn adopt(passed: &OwnedFd) -> Result<Self, NetfilterError> {
        let socket = Socket::adopt(passed).map_err(NetfilterError::Socket)?;
        Ok(Connection { socket })
    }

    /// Drops what is left of the answers to another process that has used this connection too.
    pub fn discard_answers(&self) -> Result<(), NetfilterError> {
        self.socket
            .discard_answers()
            .map_err(NetfilterError::Socket)
    }

    /// Installs the ruleset, all of it or nothing, in one transaction. Refuses if another instance
    /// has a part of what it claims.
    ///
    /// With [`Existing::Refuse`] it refuses too if somebody has a table of its name: with
    /// [`Ownership::Kernel`] any table, with [`Ownership::Nobody`] one that has an owner; another is
    /// a dead instance's, and replaced.
    ///
    /// Gives the ruleset's generation for as long as nobody else changes anything: reckoned, not read
    /// afterwards, so that no change can slip in between. Nothing where the kernel has no such number.
    pub fn install(
        &self,
        ruleset: &Ruleset,
        ownership: Ownership,
        existing: Existing<'_>,
    ) -> Result<Option<u32>, NetfilterError> {
        let claims = ruleset.claims();
        let port = self.socket.port();
        for _ in 0..ATTEMPTS {
            // The kernel refuses the transaction if anybody has changed anything since: what was
            // found out about the others then still holds, without a lock that all would have to
            // keep.
            let generation = table::generation(&self.socket).map_err(plain)?;
            let replaced = self.look_around(ruleset, &claims, |table| match existing {
                Existing::Refuse => ownership == Ownership::Nobody && table.owner.is_none(),
                Existing::Replace(_) => table.owner.is_none_or(|owner| owner == port),
            })?;
            let transaction = encode::install(ruleset, ownership, replaced, generation);
            match existing {
                Existing::Replace(permitted) if !permitted() => {
                    return Err(NetfilterError::Withdrawn);
                }
                _ => {}
            }
            match self.transact(&transaction) {
                Ok(()) => {
                    let installed = generation.map(table::next_generation);
                    return Ok(match replaced && self.end_overlap(ruleset)? {
                        true => installed.map(table::next_generation),
                        false => installed,
                    });
                }
                Err(Failure::Refused(refusal)) if refusal.errno == Errno::ERESTART => continue,
                Err(Failure::Refused(refusal)) => {
                    return Err(explain(ruleset, &transaction, refusal));
                }
                Err(failure) => {
                    // Nobody knows whether it was done, and without an owner it would stay.
                    if matches!(existing, Existing::Refuse) {
                        let _ = self.remove(&ruleset.table);
                    }
                    return Err(plain(failure));
                }
            }
        }
        Err(NetfilterError::Restless)
    }

    /// Says whether there was anything to end.
    fn end_overlap(&self, ruleset: &Ruleset) -> Result<bool, NetfilterError> {
        match self.transact(&encode::end_overlap(ruleset)) {
            Ok(()) => Ok(true),
            // Where nobody protects them, others may have removed them all.
            Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(false),
            Err(failure) => Err(refused(failure, "finish", &ruleset.table)),
        }
    }

    /// Whether there is a table of this name that may be replaced.
    fn look_around(
        &self,
        ruleset: &Ruleset,
        claims: &Claims,
        may_be_replaced: impl Fn(&TableInfo) -> bool,
    ) -> Result<bool, NetfilterError> {
        let mut replaced = false;
        for other in sibling::instances(&self.socket).map_err(plain)? {
            if other.name == ruleset.table {
                if may_be_replaced(&other) {
                    replaced = true;
                    continue;
                }
                return Err(NetfilterError::TableExists {
                    // Its lock is this instance's own.
                    whose: whose(&other, Holder::Nobody),
                    owner: other.owner,
                    table: other.name,
                });
            }
            let theirs = sibling::claims(&self.socket, &other.name).map_err(plain)?;
            if let Some(claim) = claims.conflict(&theirs) {
                return Err(NetfilterError::Claimed {
                    claim,
                    whose: whose(&other, Holder::of(&other.name)),
                    table: other.name,
                });
            }
        }
        Ok(replaced)
    }

    /// Whether this kernel knows tables with an owner: makes one and deletes it, in one transaction
    /// that nobody sees.
    pub fn supports_ownership(&self, table: &str) -> bool {
        let probe = CString::new(format!("{table}.probe")).unwrap_or_default();
        let message = TableMessage::new(&probe, Ownership::Kernel);
        let mut batch = Batch::new(None);
        batch.add(Step::Table, &message, MsgType::Add);
        batch.add(Step::Table, &message, MsgType::Del);
        self.transact(&batch.finish()).is_ok()
    }

    /// Removes a table with all that is in it, if it is there.
    pub fn remove(&self, table: &str) -> Result<(), NetfilterError> {
        let mut batch = Batch::new(None);
        let name = CString::new(table).unwrap_or_default();
        batch.add(
            Step::Table,
            &TableMessage::new(&name, Ownership::Nobody),
            MsgType::Del,
        );
        match self.transact(&batch.finish()) {
            Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(()),
            done => done.map_err(|failure| refused(failure, "remove", table)),
        }
    }

    /// Takes no new connections any more. Those that run go on as they are.
    pub fn close(&self, ruleset: &Ruleset) -> Result<(), NetfilterError> {
        let done = self.transact(&encode::close(ruleset));
        done.map_err(|failure| refused(failure, "close", &ruleset.table))
    }

    /// The numbers of the running flows that `wanted` says so of.
    pub fn running_flows(
        &self,
        wanted: impl Fn(&Flow) -> bool,
    ) -> Result<HashSet<u32>, NetfilterError> {
        conntrack::running(&self.socket, wanted).map_err(flows_failed)
    }

    /// Ends the flows that `condemned` says so of; says how many of them still ran.
    pub fn end_flows(&self, condemned: &dyn Fn(&Flow) -> bool) -> Result<usize, NetfilterError> {
        conntrack::end_flows(&self.socket, condemned).map_err(flows_failed)
    }

    /// The tables of the instances in this network namespace, whoever runs them.
    pub fn instances(&self) -> Result<Vec<TableInfo>, NetfilterError> {
        sibling::instances(&self.socket).map_err(plain)
    }

    /// Whether an instance's table takes new connections; not so while they drain.
    pub fn takes_connections(&self, table: &str) -> Result<bool, NetfilterError> {
        counters::takes_connections(&self.socket, table).map_err(plain)
    }

    /// What the instances in this network namespace claim, all together.
    pub fn claims(&self) -> Result<Vec<Claims>, NetfilterError> {
        let mut claims = Vec::new();
        for table in self.instances()? {
            claims.push(sibling::claims(&self.socket, &table.name).map_err(plain)?);
        }
        Ok(claims)
    }

    /// The kernel's number for this table, if it is there.
    pub fn handle(&self, table: &str) -> Result<Option<u64>, NetfilterError> {
        let mut tables = self.instances()?.into_iter();
        Ok(tables
            .find(|found| found.name == table)
            .and_then(|found| found.handle))
    }

    /// The forwards in a table, with their counters. Nothing if there is no such table.
    pub fn forwards(&self, table: &str) -> Result<Vec<ForwardStatus>, NetfilterError> {
        counters::forwards(&self.socket, table).map_err(plain)
    }

    /// The addresses that the instance with this table listens on; none stands for all.
    pub fn listen_addresses(&self, table: &str) -> Result<Vec<IpAddr>, NetfilterError> {
        let claims = sibling::claims(&self.socket, table).map_err(plain)?;
        Ok(claims.addresses)
    }

    /// A number that every change of the ruleset raises, whoever makes it.
    pub fn generation(&self) -> Result<Option<u32>, NetfilterError> {
        table::generation(&self.socket).map_err(plain)
    }

    /// The connections that the kernel has given another destination.
    pub fn translated_flows(&self) -> Result<Vec<Flow>, NetfilterError> {
        conntrack::translated_flows(&self.socket).map_err(flows_failed)
    }

    fn transact(&self, transaction: &Transaction) -> Result<(), Failure> {
        let bytes = transaction.bytes().len();
        debug!(
            "sending a transaction of {} messages in {bytes} bytes",
            transaction.last_sequence()
        );
        self.socket
            .transact(transaction.bytes(), transaction.last_sequence())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
