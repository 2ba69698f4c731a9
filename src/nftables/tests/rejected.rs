//! The kernel refuses each message of a real transaction in turn: nothing is installed, and the error names
//! what was refused.

use super::super::batch::Transaction;
use super::super::error::explain;
use super::super::list::TableInfo;
use super::super::{Installation, Nftables, NftablesError, encode};
use crate::config::{Config, Options};
use crate::netlink::{Attributes, Failure, Message, Refusal, messages};
use crate::netns::{LANES, in_own_namespace, in_own_namespaces};
use crate::ruleset::Ruleset;
use crate::uapi::*;
use nix::errno::Errno;
use nix::libc;

/// How many messages the transaction has at least, and how many expressions its rules.
const MESSAGES: usize = 100;
const EXPRESSIONS: usize = 200;

/// Every kind of set, chain and rule.
fn ruleset() -> Ruleset {
    let forwards = "tcp/80=10.2.0.11:8080,10.2.0.12:8080,[fd00:2::11]:8080 \
        tcp/8000-8100=10.2.0.11,fd00:2::11,fd00:2::12 udp/53=10.2.0.11:5353,fd00:2::11 \
        udp/7000-7010=10.2.0.11:9000-9010,10.2.0.12:9000-9010,[fd00:2::11]:9000-9010 \
        sctp/90=10.2.0.13";
    let options = Options {
        forwards: vec![forwards.into()],
        src_ranges: Some("10.1.0.0/24,192.168.0.0/16,fd00:1::/64".into()),
        listen: Some("10.1.0.1,fd00:1::1".into()),
        output: Some("true".into()),
        balance: Some("source".into()),
        name: Some("refused".into()),
        ..Options::default()
    };
    Ruleset::new(&Config::new(&options).unwrap())
}

/// A socket to an empty namespace, and what is to be installed there.
struct Attempt {
    nftables: Nftables,
    ruleset: Ruleset,
    transaction: Transaction,
}

impl Attempt {
    fn new(ruleset: Ruleset) -> Self {
        Attempt {
            nftables: Nftables::open().unwrap(),
            transaction: encode::install(&ruleset, false, None),
            ruleset,
        }
    }

    /// The transaction's messages, without the first and the last, which enclose it.
    fn messages(&self) -> Vec<Message<'_>> {
        let mut messages: Vec<_> = messages(self.transaction.bytes()).collect();
        messages.pop();
        messages.remove(0);
        messages
    }

    /// The generation, which every change raises, also one that is undone; and the tables.
    fn state(&self) -> (Option<u32>, Vec<TableInfo>) {
        let tables = self.nftables.tables().unwrap();
        (self.nftables.generation().unwrap(), tables)
    }

    fn transact(&self, bytes: &[u8]) -> Result<(), Failure> {
        let last = self.transaction.last_sequence();
        self.nftables.socket().transact(bytes, last)
    }

    /// Sends these bytes instead. They must be refused, and nothing must have changed.
    fn refusal(&self, bytes: &[u8]) -> Refusal {
        let before = self.state();
        let Err(Failure::Refused(refusal)) = self.transact(bytes) else {
            panic!("not refused");
        };
        assert_eq!(self.state(), before);
        refusal
    }

    fn error(&self, refusal: Refusal) -> NftablesError {
        explain(&self.ruleset, &self.transaction, refusal)
    }
}

/// Where this part of the transaction is in it.
fn offset(transaction: &Transaction, part: &[u8]) -> usize {
    part.as_ptr() as usize - transaction.bytes().as_ptr() as usize
}

/// What a message adds, as an error names it.
fn made_by(message: &Message<'_>) -> String {
    let text = |attribute| message.attributes().text(attribute).unwrap();
    match i32::from(message.kind & 0xff) {
        libc::NFT_MSG_NEWTABLE => format!("table inet {}", text(NFTA_TABLE_NAME)),
        libc::NFT_MSG_NEWCHAIN => format!("chain {}", text(NFTA_CHAIN_NAME)),
        libc::NFT_MSG_NEWSET => format!("set {}", text(NFTA_SET_NAME)),
        libc::NFT_MSG_NEWSETELEM => {
            format!("the elements of set {}", text(NFTA_SET_ELEM_LIST_SET))
        }
        libc::NFT_MSG_NEWRULE => format!("in chain {}", text(NFTA_RULE_CHAIN)),
        other => panic!("message {other}"),
    }
}

#[test]
fn a_refused_message_is_named_and_nothing_is_installed() {
    let tried = in_own_namespaces(|lane| {
        let attempt = Attempt::new(ruleset());
        let messages = (1..).zip(attempt.messages());
        let tried = messages
            .skip(lane)
            .step_by(LANES)
            .map(|(sequence, message)| {
                let mut bytes = attempt.transaction.bytes().to_vec();
                // A header's bytes 4 and 5 hold the kind: message 255 of nf_tables is none.
                let kind = offset(&attempt.transaction, message.payload) - 16 + 4;
                bytes[kind..kind + 2].copy_from_slice(&(message.kind | 0xff).to_ne_bytes());
                let refusal = attempt.refusal(&bytes);
                assert_eq!((refusal.sequence, refusal.errno), (sequence, Errno::EINVAL));
                // For some messages that errno has a meaning of its own.
                let errno = Errno::ENOMEM;
                let error = attempt.error(Refusal { errno, ..refusal }).to_string();
                let made = made_by(&message);
                assert!(error.starts_with("the kernel refused to make "), "{error}");
                assert!(error.ends_with(&made), "'{made}' is not in: {error}");
            });
        let tried = tried.count();
        // As it is, it is not refused.
        attempt.transact(attempt.transaction.bytes()).unwrap();
        assert_eq!(attempt.state().1.len(), 1);
        tried
    });
    assert!(tried.iter().sum::<usize>() >= MESSAGES, "{tried:?}");
}

#[test]
fn a_missing_expression_is_named_with_the_rule_that_needs_it() {
    let tried = in_own_namespaces(|lane| {
        let attempt = Attempt::new(ruleset());
        let messages = attempt.messages().into_iter();
        let rule = |message: &Message<'_>| i32::from(message.kind & 0xff) == libc::NFT_MSG_NEWRULE;
        let expressions = messages.filter(rule).flat_map(|message| {
            let list = message.attributes().nested(NFTA_RULE_EXPRESSIONS);
            let list: Vec<_> = list.iter().collect();
            let name = |(_, expression)| Attributes(expression).get(NFTA_EXPR_NAME).unwrap();
            list.into_iter().map(move |entry| (message, name(entry)))
        });
        let tried = expressions
            .skip(lane)
            .step_by(LANES)
            .map(|(message, name)| {
                let mut bytes = attempt.transaction.bytes().to_vec();
                bytes[offset(&attempt.transaction, name)] = b'x';
                let error = attempt.error(attempt.refusal(&bytes));
                let NftablesError::MissingExpression { expression, step } = error else {
                    panic!("{error}");
                };
                // It is looked up in the transaction as it should have been.
                assert_eq!(
                    expression.as_bytes(),
                    name.strip_suffix(&[0]).unwrap_or(name)
                );
                assert!(step.ends_with(&made_by(&message)), "{step}");
            });
        tried.count()
    });
    assert!(tried.iter().sum::<usize>() >= EXPRESSIONS, "{tried:?}");
}

/// The kernel refuses every message of it, which overruns the receive queue.
#[test]
fn of_very_many_refusals_the_first_one_is_reported() {
    const FORWARDS: u16 = 2000;
    let forwards = (1..=FORWARDS).map(|port| format!("tcp/{port}=10.2.0.11"));
    let forwards: Vec<_> = forwards.map(Into::into).collect();
    let options = Options {
        forwards,
        ..Options::default()
    };
    let ruleset = Ruleset::new(&Config::new(&options).unwrap());
    in_own_namespace(|| {
        let owner = Nftables::open().unwrap();
        let installation = Installation::new(&ruleset, false, None);
        owner.commit(&installation).unwrap();
        let attempt = Attempt::new(ruleset.clone());
        let refusal = attempt.refusal(attempt.transaction.bytes());
        // nft_table_lookup in nf_tables_api.c: the table is another socket's.
        assert_eq!((refusal.sequence, refusal.errno), (1, Errno::EPERM));
    });
}

/// One without an owner, which no socket would keep others from.
#[test]
fn a_table_that_is_there_is_not_taken_over() {
    let ruleset = Ruleset {
        owner: false,
        ..ruleset()
    };
    in_own_namespace(|| {
        let nftables = Nftables::open().unwrap();
        nftables.add_table(&ruleset.table, false).unwrap();
        let attempt = Attempt::new(ruleset.clone());
        let refusal = attempt.refusal(attempt.transaction.bytes());
        assert_eq!((refusal.sequence, refusal.errno), (1, Errno::EEXIST));
    });
}

/// The table of faults has the figures of these tests.
#[test]
fn the_table_of_faults_has_these_figures() {
    let document = include_str!("../../../tests/README.md").replace(',', "");
    for (fault, tried) in [
        ("the kernel refuses a message", MESSAGES),
        ("the kernel lacks an expression", EXPRESSIONS),
    ] {
        let start = format!("| {fault}");
        let row = document.lines().find(|line| line.starts_with(&start));
        let figures = row.and_then(|row| row.split(" | ").nth(1));
        let tried = tried.to_string();
        let found = figures.is_some_and(|text| text.split(' ').any(|word| word == tried));
        assert!(found, "{fault}: {tried}, not {figures:?}");
    }
}
