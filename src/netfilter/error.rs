//! Why the kernel did not do what it was told, in words that help.

use super::ATTEMPTS;
use super::batch::{Step, Transaction};
use super::message::Attributes;
use super::socket::{Failure, Refusal};
use super::table::TableInfo;
use crate::lock::Holder;
use crate::ruleset::{Claim, Ruleset};
use crate::status::owner;
use nix::errno::Errno;
use std::io;
use thiserror::Error;

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
    /// No chains of type nat.
    #[error(
        "this kernel lacks nftables' chains of type nat: load the module with modprobe nft_chain_nat, or use a kernel with CONFIG_NFT_NAT"
    )]
    NoNat,
    /// An expression is missing.
    #[error(
        "this kernel lacks the nftables expression '{expression}', which {step} needs: load the module with modprobe {}, or use a kernel that has it",
        module(expression)
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
        "others keep changing the ruleset: {ATTEMPTS} attempts between two changes have failed; try again later"
    )]
    Restless,
    /// The table of this name must not be replaced any more.
    #[error("the table that is there already must not be replaced any more")]
    Withdrawn,
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

/// What a refused step of an installation means.
pub(super) fn explain(
    ruleset: &Ruleset,
    transaction: &Transaction,
    refusal: Refusal,
) -> NetfilterError {
    let Some(step) = transaction.step(refusal.sequence) else {
        return before_the_first_step(refusal);
    };
    match (step, refusal.errno) {
        (_, Errno::EPERM) => NetfilterError::NotPermitted,
        // nft_chain_parse_hook: no such type of chain.
        (Step::Chain(_), Errno::ENOENT) => NetfilterError::NoNat,
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

pub(super) fn flows_failed(failure: Failure) -> NetfilterError {
    match failure {
        Failure::Refused(refusal) => NetfilterError::Flows(refusal.errno),
        failure => plain(failure),
    }
}

pub(super) fn plain(failure: Failure) -> NetfilterError {
    match failure {
        Failure::Socket(error) => NetfilterError::Socket(error),
        Failure::Refused(refusal) => before_the_first_step(refusal),
        Failure::NoAnswer => NetfilterError::NoAnswer,
        Failure::Restless => NetfilterError::Restless,
    }
}

/// Why the kernel does not tell of changes.
pub(super) fn unheard(error: io::Error) -> NetfilterError {
    match error.raw_os_error().map(Errno::from_raw) {
        // netlink_bind in net/netlink/af_netlink.c
        Some(Errno::EPERM) => NetfilterError::NotPermitted,
        _ => NetfilterError::Socket(error),
    }
}

/// Why the kernel did not do this to a table.
pub(super) fn refused(failure: Failure, what: &str, table: &str) -> NetfilterError {
    match failure {
        Failure::Refused(refusal) => NetfilterError::Refused {
            step: format!("{what} table inet {table}"),
            errno: refusal.errno,
        },
        failure => plain(failure),
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

/// The module that brings an expression to tables of family inet.
fn module(expression: &str) -> String {
    match expression {
        "fib" => "nft_fib_inet".into(),
        _ => format!("nft_{expression}"),
    }
}

/// As much of a rule as fits into a message; it may list a thousand chains.
const SHOWN_CHARACTERS: usize = 160;

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
            let rule = statements.join(" ");
            let words: Vec<&str> = rule.split_whitespace().collect();
            let shown: String = words.join(" ").chars().take(SHOWN_CHARACTERS).collect();
            format!("rule '{shown}' in chain {}", chain.name)
        }
    }
}

/// Who has a table, and what can be done about it. If the kernel knows no owner, `holder` is whoever
/// holds the lock of its name.
pub(super) fn whose(table: &TableInfo, holder: Holder) -> String {
    let (how, holder) = match table.owner {
        Some(port) => {
            let process = owner::find(port).pid;
            ("owned", process.map_or(Holder::Unseen, Holder::Process))
        }
        None => ("held", holder),
    };
    let name = match holder {
        Holder::Nobody => {
            let table = &table.name;
            return format!("without an owner: remove it with nft delete table inet {table}");
        }
        Holder::Process(process) => owner::name(process),
        Holder::Unseen => None,
    };
    let name = name.map_or(String::new(), |name| format!(" ({name})"));
    format!("{how} by {holder}{name}: stop that one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_gone_is_not_taken_for_a_kernel_without_nat() {
        let refusal = Refusal {
            sequence: 1,
            errno: Errno::ENOENT,
            offset: None,
        };
        let error = refused(Failure::Refused(refusal), "close", "nodefwd-web");
        assert_eq!(
            error.to_string(),
            "the kernel refused to close table inet nodefwd-web"
        );
    }

    #[test]
    fn a_table_without_an_owner_may_still_have_a_holder() {
        let table = TableInfo {
            name: "nodefwd-web".into(),
            owner: None,
            handle: None,
        };
        assert_eq!(
            whose(&table, Holder::Nobody),
            "without an owner: remove it with nft delete table inet nodefwd-web"
        );
        assert_eq!(
            whose(&table, Holder::Process(u32::MAX)),
            format!("held by process {}: stop that one", u32::MAX)
        );
        assert_eq!(
            whose(&table, Holder::Unseen),
            "held by a process that cannot be seen from here: stop that one"
        );
    }
}
