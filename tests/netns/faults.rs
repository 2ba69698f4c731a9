//! Faults around the program, each tried as often as the table in tests/README.md says: nothing is
//! lost, and nothing is left.

mod any_input;
mod event_overrun;
mod exhausted;
mod netlink_sockets;
mod rejected;
mod restarts;
mod signals;
mod slow_starts;
mod spoiled_input;
mod spoofed_netlink;
mod syscall_faults;
mod trace;
mod valid_input;

pub use netlink_sockets::{Socket, sockets};

use std::process::Command;
use std::thread;

use crate::conntrack::{FLOOD, FLOWS, FOREIGN_FLOWS, OTHERS};
use crate::fixture::{Namespace, Process};
use crate::lifecycle::{HIDDEN, KILLS, KINDS, WAYS};
use crate::replace::{ATTEMPTS, CLAIMS, CONNECTIONS, HANG_UPS, IDLE, REFUSALS, REPLACEMENTS};
use crate::{check, coexistence, output};

/// The page with the table of faults.
const FAULT_TABLE: &str = include_str!("../README.md");

/// How many threads work at the same time: the kernel takes a while to remove a table, and does it for
/// all of them at once.
const THREADS: usize = 8;

/// Deals out the numbers from 0 to `count` to threads.
fn in_parallel(count: usize, work: impl Fn(std::iter::StepBy<std::ops::Range<usize>>) + Sync) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (work, numbers) = (&work, (thread..count).step_by(THREADS));
            scope.spawn(move || work(numbers));
        }
    });
}

/// An nft that makes one change after the other, without a pause.
fn nft_with_input(node: &Namespace, changes: &str) -> Process {
    let mut nft = Command::new("nft");
    nft.arg("--interactive");
    node.run(|| Process::spawn(nft, changes))
}

/// The table has the figures of the tests: how often each fault is tried.
#[test]
fn the_fault_table_has_the_figures_of_the_tests() {
    let page = FAULT_TABLE.replace(',', "");
    for (fault, tried) in [
        ("any input", any_input::INPUTS as usize),
        ("as many chains at a hook", rejected::CHAINS_OF_A_HOOK),
        ("another program adds and deletes", rejected::COLLISIONS),
        (
            "another program changes the ruleset",
            event_overrun::STARTS.into(),
        ),
        ("a message to or from the kernel", syscall_faults::CALLS),
        ("another process sends", spoofed_netlink::DATAGRAMS),
        ("more events", event_overrun::EVENTS.into()),
        ("starts and stops beside", restarts::RESTARTS),
        ("SIGKILL from its start on", KILLS as usize),
        ("bursts of", 2 * signals::STARTS),
        ("bursts of", signals::SIGNALS),
        ("TERM at each call", signals::CALLS),
        ("TERM in a start", slow_starts::FORWARDS.into()),
        ("TERM in a start", slow_starts::PAUSES.len()),
        ("`--replace` under running", REPLACEMENTS as usize),
        ("a process without CAP_NET_ADMIN", ATTEMPTS),
        ("connections to the lock", CONNECTIONS),
        ("connections that send nothing", IDLE),
        ("connections that ask and claim", CLAIMS),
        ("an instance's name goes", HANG_UPS),
        ("no descriptor is free", REFUSALS),
        ("100000 conntrack entries", FOREIGN_FLOWS),
        ("sockets of other processes", check::SOCKETS),
        ("a table like an instance's", coexistence::SERVICES),
        ("a table like an instance's", coexistence::DESTINATIONS),
        ("tables like an instance's", coexistence::TABLES),
        ("tables like an instance's", coexistence::FORWARDS),
        ("tables that only have", coexistence::NAMES),
        ("a table like an instance's with as", coexistence::ELEMENTS),
        ("more tables like an instance's", check::INSTANCES),
        ("chains that lead to each other", check::READINGS),
        ("tables and chains with names", check::TABLES),
        ("interfaces with names", check::INTERFACES),
        ("chains whose rules", check::CHAINS),
        ("chains whose rules", check::DESTINATIONS),
        ("connections of others while it drains", FLOOD),
        ("connections of others while it drains", OTHERS),
        ("TERM with little memory", FLOWS),
        ("standard error is full", KINDS.len()),
        ("standard error is full", WAYS.len()),
        ("standard output or error", output::CALLS),
        ("a part of /proc is hidden", HIDDEN.len()),
    ] {
        let start = format!("| {fault}");
        let row = page.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("the fault table has no row '{fault} …'"));
        // Without the last column, the outcome.
        let (tries, _) = row.rsplit_once(" | ").expect("columns");
        let figure = tried.to_string();
        let is_there = tries.split(' ').any(|word| word == figure);
        assert!(is_there, "the tests try it {figure} times, unlike: {row}");
    }
}
