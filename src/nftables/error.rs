//! Why the kernel refused what it was asked for, and what to do about it.

use super::batch::{Step, Transaction};
use crate::capability::MissingNetAdmin;
use crate::config::{OptionName, shown};
use crate::netlink::{Attributes, Failure, MAX_DUMP_RETRIES, Refusal, TooLong};
use crate::ruleset::{FAST_PATH, Ruleset};
use crate::uapi::{NFTA_EXPR_NAME, NFTA_LIST_ELEM};
use nix::errno::Errno;
use std::io;
use thiserror::Error;

/// Why the kernel did not do what it was asked for.
#[derive(Debug, Error)]
pub enum NftablesError {
    #[error("cannot talk to nf_tables over netlink")]
    Socket(#[source] io::Error),
    #[error("too many rules for one message")]
    TooLong(#[source] TooLong),
    #[error(transparent)]
    NotPermitted(#[from] MissingNetAdmin),
    #[error(
        "this kernel has no nf_tables: load the module with modprobe nf_tables, or use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET (Linux 5.8 or later)"
    )]
    NoNftables,
    #[error(
        "this kernel lacks nftables' chains of type nat: load the module with modprobe nft_chain_nat, or use a kernel with CONFIG_NFT_NAT"
    )]
    NoNat,
    #[error(
        "this kernel lacks the nftables expression '{expression}', which {step} needs: load the module with modprobe {}, or use a kernel that has it",
        module(expression)
    )]
    MissingExpression { expression: String, step: String },
    /// Also if an interface has gone meanwhile.
    #[error(
        "this kernel has no flowtables, which {} needs: load the modules with modprobe -a nf_flow_table_inet nft_flow_offload, or use a kernel with CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD",
        OptionName::FAST_PATH
    )]
    NoFlowtable(#[source] Errno),
    #[error("this kernel has no tables with an owner (Linux 5.12 or later has)")]
    NoOwner,
    #[error(
        "table inet {0} belongs to another process, which this kernel (5.12 to 5.14) does not show: end the instance that runs already, or give this one another name with NODEFWD_NAME (--name)"
    )]
    HiddenTable(String),
    #[error("the kernel refused to {step}")]
    Refused {
        step: String,
        #[source]
        errno: Errno,
    },
    /// The ruleset is of another generation than the transaction.
    #[error("another process has changed the ruleset meanwhile")]
    Changed,
    /// After so many attempts.
    #[error(
        "other processes keep changing the ruleset: {0} attempts between two changes have failed; try again later"
    )]
    Contended(usize),
    #[error("the kernel did not say whether it did what it was asked for")]
    NoReply,
}

impl NftablesError {
    /// Whether the kernel takes the rules without the fast path.
    pub fn is_of_fast_path(&self) -> bool {
        match self {
            NftablesError::NoFlowtable(_) => true,
            NftablesError::MissingExpression { expression, .. } => expression == "flow_offload",
            _ => false,
        }
    }
}

impl From<io::Error> for NftablesError {
    fn from(error: io::Error) -> Self {
        match error.downcast() {
            Ok(too_long) => NftablesError::TooLong(too_long),
            Err(error) => NftablesError::Socket(error),
        }
    }
}

impl From<Failure> for NftablesError {
    /// A failure of a request that is no step of an installation.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Socket(error) => error.into(),
            Failure::Refused(refusal) => before_the_first_step(refusal),
            Failure::NoReply => NftablesError::NoReply,
            Failure::Contended => NftablesError::Contended(MAX_DUMP_RETRIES),
        }
    }
}

/// What a refused step of an installation means.
pub(super) fn explain(
    ruleset: &Ruleset,
    transaction: &Transaction,
    refusal: Refusal,
) -> NftablesError {
    let Some(step) = transaction.step(refusal.sequence) else {
        return before_the_first_step(refusal);
    };
    match (step, refusal.errno) {
        // nft_table_lookup: one of that name has an owner. Without the capability there is no first step.
        (Step::Table, Errno::EPERM) => NftablesError::HiddenTable(ruleset.table.clone()),
        (_, Errno::EPERM) => MissingNetAdmin::find().into(),
        (_, Errno::ERESTART) => NftablesError::Changed,
        // nft_chain_parse_hook: no such type of chain.
        (Step::Chain(_), Errno::ENOENT) => NftablesError::NoNat,
        // nf_tables_newtable: a flag that this kernel does not know, by old and new kernels.
        (Step::Table, Errno::EINVAL | Errno::EOPNOTSUPP) => NftablesError::NoOwner,
        (Step::Flowtable, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EINVAL) => {
            NftablesError::NoFlowtable(refusal.errno)
        }
        // Old kernels have it in a module of its own, which each element that counts needs.
        (Step::Set(set), Errno::ENOENT) if ruleset.sets[set].counter => {
            NftablesError::MissingExpression {
                expression: "counter".into(),
                step: describe(ruleset, step),
            }
        }
        (step, errno) => {
            let name = || missing_expression(transaction, refusal);
            let missing = errno == Errno::ENOENT && matches!(step, Step::Rule(..));
            let step = describe(ruleset, step);
            match missing.then(name).flatten() {
                Some(expression) => NftablesError::MissingExpression { expression, step },
                None => NftablesError::Refused {
                    step: format!("make {step}"),
                    errno,
                },
            }
        }
    }
}

/// Why the kernel did not do this to a table: `what` is a verb.
pub(super) fn refused(failure: Failure, what: &str, table: &str) -> NftablesError {
    match failure {
        Failure::Refused(refusal) if refusal.sequence > 0 => NftablesError::Refused {
            step: format!("{what} table inet {table}"),
            errno: refusal.errno,
        },
        failure => failure.into(),
    }
}

/// A refusal of a batch as such, or of a listing.
fn before_the_first_step(refusal: Refusal) -> NftablesError {
    match refusal.errno {
        Errno::ERESTART => NftablesError::Changed,
        Errno::EPERM => MissingNetAdmin::find().into(),
        // net/netfilter/nfnetlink.c: no subsystem of that number.
        Errno::EOPNOTSUPP | Errno::EINVAL => NftablesError::NoNftables,
        errno => NftablesError::Refused {
            step: "begin a transaction".into(),
            errno,
        },
    }
}

/// The name of the expression that the kernel points at: nf_tables_newrule in
/// net/netfilter/nf_tables_api.c marks the list element whose expression it could not set up.
fn missing_expression(transaction: &Transaction, refusal: Refusal) -> Option<String> {
    let element = transaction.message_from(refusal.sequence, refusal.offset?)?;
    let name = Attributes(element)
        .nested(NFTA_LIST_ELEM)
        .text(NFTA_EXPR_NAME)?;
    Some(name.to_owned())
}

/// The module that brings an expression to tables of family inet.
fn module(expression: &str) -> String {
    match expression {
        "fib" => "nft_fib_inet".into(),
        _ => format!("nft_{expression}"),
    }
}

/// Names what a step of an installation adds or deletes.
pub(super) fn describe(ruleset: &Ruleset, step: Step) -> String {
    match step {
        Step::Table => format!("table inet {}", ruleset.table),
        Step::Chain(chain) => format!("chain {}", ruleset.chains[chain].name),
        Step::Set(set) => format!("set {}", ruleset.sets[set].name),
        Step::Flowtable => format!("flowtable {FAST_PATH}"),
        Step::Elements(set) => format!("the elements of set {}", ruleset.sets[set].name),
        Step::Rule(chain, rule) => {
            let chain = &ruleset.chains[chain];
            let statements: Vec<String> =
                chain.rules[rule].iter().map(ToString::to_string).collect();
            let rule = statements.join(" ");
            let words: Vec<&str> = rule.split_whitespace().collect();
            format!("rule '{}' in chain {}", shown(&words.join(" ")), chain.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_table_is_not_mistaken_for_a_kernel_without_nat() {
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
}
