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
mod expression;
mod load;
mod message;
mod rule;
mod set;
mod sibling;
mod socket;
mod table;
mod watch;

pub use conntrack::FlowEvents;
pub use watch::TableEvents;

use crate::flow::Flow;
use crate::ruleset::{Claim, Claims, Ruleset};
use crate::status::ForwardStatus;
use batch::{Batch, Step, Transaction};
use log::debug;
use message::Attributes;
use nftnl::MsgType;
use nix::errno::Errno;
use socket::{Failure, Refusal, Socket};
use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use table::TableMessage;
use thiserror::Error;

pub use table::TableInfo;

/// A connection to nf_tables of this network namespace. A ruleset that it installs belongs to it,
/// and is gone at the latest when it is dropped or its process ends.
pub struct Connection {
    socket: Socket,
}

/// Why the kernel did not do what it was told.
#[derive(Debug, Error)]
pub enum NetfilterError {
    /// No socket, or it broke.
    #[error("cannot talk to nf_tables over netlink")]
    Socket(#[source] io::Error),
    /// EPERM
    #[error(
        "not permitted to read or change nftables: CAP_NET_ADMIN is missing; run as root, or grant it: in a container with --cap-add=NET_ADMIN (Kubernetes: securityContext.capabilities.add: [NET_ADMIN]), in a systemd unit with AmbientCapabilities=CAP_NET_ADMIN"
    )]
    NotPermitted,
    /// No nf_tables at all.
    #[error(
        "this kernel has no nf_tables: load the module with modprobe nf_tables, or use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET (Linux 5.6 or later)"
    )]
    NoNftables,
    /// An expression is missing.
    #[error(
        "this kernel lacks the nftables expression '{expression}', which {step} needs: load the module with modprobe nft_{expression}, or use a kernel that has it"
    )]
    MissingExpression {
        /// its name
        expression: String,
        /// what it is needed for
        step: String,
    },
    /// A table of this name is there already.
    #[error(
        "table inet {table} is already there, {whose}, or give this instance another name with NODEFWD_NAME (--name)"
    )]
    TableExists {
        /// its name
        table: String,
        /// the netlink port of its owner, if it has one
        owner: Option<u32>,
        /// who has it, and what to do
        whose: String,
    },
    /// Another instance forwards the same.
    #[error(
        "{claim} is already forwarded by table inet {table}, {whose}, or forward other ports, or listen on other addresses with NODEFWD_LISTEN (--listen)"
    )]
    Claimed {
        /// what both want
        claim: Claim,
        /// the other's table
        table: String,
        /// who has it, and what to do
        whose: String,
    },
    /// Others change the ruleset all the time.
    #[error(
        "others keep changing the ruleset: {ATTEMPTS} attempts to install between two changes have failed; try again later"
    )]
    Restless,
    /// The kernel does not know tables with an owner.
    #[error("this kernel knows no tables with an owner (Linux 5.12 or later does)")]
    NoOwnership,
    /// Something else.
    #[error("the kernel refused to {step}")]
    Refused {
        /// what it was told
        step: String,
        /// what it said
        #[source]
        errno: Errno,
    },
    /// The table of connections is out of reach.
    #[error(
        "cannot read the kernel's table of connections: load the module with modprobe nf_conntrack_netlink"
    )]
    Flows(#[source] Errno),
    /// The kernel did not answer.
    #[error("the kernel did not say whether it did what it was told")]
    NoAnswer,
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
        let socket = Socket::open().map_err(NetfilterError::Socket)?;
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
                    return Err(Self::explain(ruleset, &transaction, refusal));
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
                Failure::Refused(refusal) => Self::explain(ruleset, &transaction, refusal),
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

    fn explain(ruleset: &Ruleset, transaction: &Transaction, refusal: Refusal) -> NetfilterError {
        let Some(step) = transaction.step(refusal.sequence) else {
            return before_the_first_step(refusal);
        };
        match (step, refusal.errno) {
            (_, Errno::EPERM) => NetfilterError::NotPermitted,
            // nf_tables_newtable: a flag that this kernel does not know, by old and new kernels.
            (Step::Table, Errno::EINVAL | Errno::EOPNOTSUPP) => NetfilterError::NoOwnership,
            (step, errno) => {
                let name = || missing_expression(transaction, refusal);
                let missing = errno == Errno::ENOENT && matches!(step, Step::Rule(..));
                let step = describe(ruleset, step);
                match missing.then(name).flatten() {
                    Some(expression) => NetfilterError::MissingExpression { expression, step },
                    None => NetfilterError::Refused {
                        step: format!("make {step}"),
                        errno,
                    },
                }
            }
        }
    }
}

fn flows_failed(failure: Failure) -> NetfilterError {
    match failure {
        Failure::Refused(refusal) => NetfilterError::Flows(refusal.errno),
        failure => plain(failure),
    }
}

fn plain(failure: Failure) -> NetfilterError {
    match failure {
        Failure::Socket(error) => NetfilterError::Socket(error),
        Failure::Refused(refusal) => before_the_first_step(refusal),
        Failure::NoAnswer => NetfilterError::NoAnswer,
    }
}

/// A refusal of a batch as such, or of a question.
fn before_the_first_step(refusal: Refusal) -> NetfilterError {
    match refusal.errno {
        Errno::EPERM => NetfilterError::NotPermitted,
        // net/netfilter/nfnetlink.c: no subsystem of that number.
        Errno::EOPNOTSUPP | Errno::EINVAL => NetfilterError::NoNftables,
        errno => NetfilterError::Refused {
            step: "begin a transaction".into(),
            errno,
        },
    }
}

/// The name of the expression that the kernel points at: nf_tables_newrule in
/// net/netfilter/nf_tables_api.c marks the list element whose expression it could not set up.
fn missing_expression(transaction: &Transaction, refusal: Refusal) -> Option<String> {
    // linux/netfilter/nf_tables.h: NFTA_LIST_ELEM, NFTA_EXPR_NAME
    const ELEMENT: u16 = 1;
    const NAME: u16 = 1;
    let element = transaction.message_from(refusal.sequence, refusal.offset?)?;
    let name = Attributes(element).nested(ELEMENT).text(NAME)?;
    Some(name.to_owned())
}

fn describe(ruleset: &Ruleset, step: Step) -> String {
    match step {
        Step::Table => format!("table inet {}", ruleset.table),
        Step::Chain(chain) => format!("chain {}", ruleset.chains[chain].name),
        Step::Set(set) => format!("set {}", ruleset.sets[set].name),
        Step::Elements(set) => format!("the elements of set {}", ruleset.sets[set].name),
        Step::Rule(chain, rule) => {
            let chain = &ruleset.chains[chain];
            let statements: Vec<String> =
                chain.rules[rule].iter().map(ToString::to_string).collect();
            format!("rule '{}' in chain {}", statements.join(" "), chain.name)
        }
    }
}

/// Who has a table, and what can be done about it.
fn whose(table: &TableInfo) -> String {
    match table.owner {
        Some(owner) => format!(
            "owned by process {owner}{}: stop that one",
            process_name(owner)
        ),
        None => format!(
            "without an owner: remove it with nft delete table inet {}",
            table.name
        ),
    }
}

/// ` (nodefwd)`, if the process can be seen from here.
fn process_name(process: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{process}/comm")) {
        Ok(name) => format!(" ({})", name.trim()),
        Err(_) => String::new(),
    }
}
