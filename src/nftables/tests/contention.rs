//! Listings and events while other processes change the ruleset.

use super::super::list::{self, Table};
use super::super::{Installation, Nftables, NftablesError};
use crate::config::{Config, Options};
use crate::netlink::{MAX_DUMP_RETRIES, Overrun, Socket};
use crate::netns::in_own_namespace;
use crate::ruleset::Ruleset;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use std::cell::Cell;

/// One whose rules the kernel sends in many parts.
fn large_ruleset() -> Ruleset {
    let forwards = (1..=2000).map(|port| format!("udp/{port}=10.2.0.1,10.2.0.2"));
    let options = Options {
        forwards: forwards.map(Into::into).collect(),
        ..Options::default()
    };
    Ruleset::new(&Config::new(&options).unwrap())
}

fn install(ruleset: &Ruleset) -> Nftables {
    let nftables = Nftables::open().unwrap();
    nftables
        .commit(&Installation::new(ruleset, false, None))
        .unwrap();
    nftables
}

/// Changes the ruleset, and takes that back.
fn change(other: &Nftables) {
    other.add_table("other", false).unwrap();
    other.remove("other").unwrap();
}

#[test]
fn a_listing_that_is_interrupted_again_and_again_is_given_up() {
    let ruleset = large_ruleset();
    in_own_namespace(|| {
        let nftables = install(&ruleset);
        let other = Nftables::open().unwrap();
        // A change between two parts of a dump has the kernel mark what follows (NLM_F_DUMP_INTR).
        let first = Cell::new(0);
        let changes = Cell::new(0);
        let listed = nftables.list(|socket| {
            let request = list::dump_request(libc::NFT_MSG_GETRULE, list::TableFamily::Inet);
            socket.list(&request, |message| {
                let rule = list::rule(message, &ruleset.table)?;
                if first.get() == 0 {
                    first.set(rule.handle);
                }
                if first.get() == rule.handle {
                    changes.set(changes.get() + 1);
                    change(&other);
                }
                Some(rule.handle)
            })
        });
        assert!(matches!(
            listed,
            Err(NftablesError::Contended(MAX_DUMP_RETRIES))
        ));
        assert_eq!(changes.get(), MAX_DUMP_RETRIES);
        let listed =
            nftables.list(|socket| list::rules(socket, &Table::inet(&ruleset.table), None));
        assert!(listed.unwrap().len() > 2000);
    });
}

#[test]
fn a_listing_that_is_interrupted_once_has_each_rule_once() {
    let ruleset = large_ruleset();
    in_own_namespace(|| {
        let nftables = install(&ruleset);
        let other = Nftables::open().unwrap();
        let handles = |change: &dyn Fn()| -> Vec<u64> {
            let listed = nftables.list(|socket| {
                let request = list::dump_request(libc::NFT_MSG_GETRULE, list::TableFamily::Inet);
                socket.list(&request, |message| {
                    change();
                    Some(list::rule(message, &ruleset.table)?.handle)
                })
            });
            listed.unwrap()
        };
        let undisturbed = handles(&|| ());
        assert!(undisturbed.len() > 2000);
        let messages = Cell::new(0);
        let interrupted = handles(&|| {
            if messages.replace(messages.get() + 1) == 0 {
                change(&other);
            }
        });
        assert!(
            messages.get() > undisturbed.len(),
            "the listing was not interrupted"
        );
        assert_eq!(interrupted, undisturbed);
    });
}

#[test]
fn after_an_overrun_every_batch_of_events_is_lossy_until_the_queue_is_empty() {
    let ruleset = large_ruleset();
    in_own_namespace(|| {
        let socket = Socket::subscribe(&[libc::NFNLGRP_NFTABLES]).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).unwrap();
        for _ in 0..10 {
            install(&ruleset).remove(&ruleset.table).unwrap();
        }
        let mut batches = 0;
        loop {
            let mut received = false;
            let overrun = socket.events(|_| received = true).unwrap();
            if !received {
                break;
            }
            assert_eq!(overrun, Overrun(true));
            batches += 1;
        }
        assert!(batches > 1);
        let overrun = socket.events(|_| panic!("another event")).unwrap();
        assert_eq!(overrun, Overrun(false));
    });
}
