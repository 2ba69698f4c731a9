//! The kernel's side: netlink, and the only unsafe code of the program.
//!
//! A [`Connection`] installs a [`Ruleset`] in one transaction and removes it. Below it, `encode`
//! turns the ruleset into messages (`load`, `expression`, `elements`, `set`, `table`), `batch` puts them together,
//! `socket` sends them and reads the answers, and `message` takes those apart.

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

pub use conntrack::FlowEvents;
pub use error::NetfilterError;
pub use firewall::{
    BaseChain, Fate, FilterHook, Firewall, Interface, Packet, Place, Table, TableFamily,
};
pub use route::{Arrival, Ports, Route, Routes};
pub use socket::Lost;
pub use watch::{Changed, TableEvents};

use crate::flow::Flow;
use crate::ruleset::{Claims, Ruleset};
use crate::status::ForwardStatus;
use batch::{Batch, Step, Transaction};
use error::{explain, flows_failed, plain, whose};
use log::debug;
use nftnl::MsgType;
use nix::errno::Errno;
use socket::{Failure, Socket};
use std::collections::HashSet;
use std::ffi::CString;
use std::net::IpAddr;
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

    /// Installs the ruleset, all of it or nothing. Refuses if another instance has a part of what
    /// it claims, or if somebody has a table of its name: with [`Ownership::Kernel`] any table, with
    /// [`Ownership::Nobody`] one that has an owner; another is a dead instance's, and replaced.
    pub fn install(&self, ruleset: &Ruleset, ownership: Ownership) -> Result<(), NetfilterError> {
        let claims = ruleset.claims();
        for _ in 0..ATTEMPTS {
            // The kernel refuses the transaction if anybody has changed anything since: what was
            // found out about the others then still holds, without a lock that all would have to
            // keep.
            let generation = table::generation(&self.socket).map_err(plain)?;
            let replaced = self.look_around(ruleset, &claims, ownership)?;
            let transaction = encode::install(ruleset, ownership, replaced, generation);
            match self.transact(&transaction) {
                Ok(()) => return Ok(()),
                Err(Failure::Refused(refusal)) if refusal.errno == Errno::ERESTART => continue,
                Err(Failure::Refused(refusal)) => {
                    return Err(explain(ruleset, &transaction, refusal));
                }
                Err(failure) => return Err(plain(failure)),
            }
        }
        Err(NetfilterError::Restless)
    }

    /// Whether there is a dead instance's table to be replaced.
    fn look_around(
        &self,
        ruleset: &Ruleset,
        claims: &Claims,
        ownership: Ownership,
    ) -> Result<bool, NetfilterError> {
        let mut replaced = false;
        for other in sibling::instances(&self.socket).map_err(plain)? {
            if other.name == ruleset.table {
                if ownership == Ownership::Nobody && other.owner.is_none() {
                    replaced = true;
                    continue;
                }
                return Err(NetfilterError::TableExists {
                    whose: whose(&other),
                    owner: other.owner,
                    table: other.name,
                });
            }
            let theirs = sibling::claims(&self.socket, &other.name).map_err(plain)?;
            if let Some(claim) = claims.conflict(&theirs) {
                return Err(NetfilterError::Claimed {
                    claim,
                    whose: whose(&other),
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
            Err(Failure::Refused(refusal)) if refusal.errno != Errno::ENOENT => {
                Err(NetfilterError::Refused {
                    step: format!("remove table inet {table}"),
                    errno: refusal.errno,
                })
            }
            Ok(()) | Err(Failure::Refused(_)) => Ok(()),
            Err(failure) => Err(plain(failure)),
        }
    }

    /// Takes no new connections any more. Those that run go on as they are.
    pub fn close(&self, ruleset: &Ruleset) -> Result<(), NetfilterError> {
        let transaction = encode::close(ruleset);
        self.transact(&transaction)
            .map_err(|failure| match failure {
                Failure::Refused(refusal) => explain(ruleset, &transaction, refusal),
                failure => plain(failure),
            })
    }

    /// The numbers of the running flows that `wanted` says so of.
    pub fn running_flows(
        &self,
        wanted: impl Fn(&Flow) -> bool,
    ) -> Result<HashSet<u32>, NetfilterError> {
        conntrack::running(&self.socket, wanted).map_err(flows_failed)
    }

    /// Ends the flows that `condemned` says so of; says how many.
    pub fn end_flows(&self, condemned: impl Fn(&Flow) -> bool) -> Result<usize, NetfilterError> {
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
