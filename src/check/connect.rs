//! `check --connect`: whether the TCP destinations accept connections that this host makes to them.

use super::{Finding, Level};
use crate::config::{Config, Destination, Protocol, first_few};
use crate::tcp::{Attempt, Begun, Outcome};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How many are tried at the same time.
const AT_ONCE: usize = 10;

/// How long a destination may take: longer than the kernel needs to find that no host has the address, which
/// it asks for three times, once a second (`mcast_solicit` and `retrans_time` in arp(7)).
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long all of them may take.
const MAX_TIME: Duration = Duration::from_secs(30);

const SUBJECT: &str = "connect";

/// Why a connection was not made. In order of what is said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Problem {
    Refused,
    TimedOut,
    Unreachable(i32),
    Other(i32),
}

impl From<Errno> for Problem {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ECONNREFUSED => Problem::Refused,
            Errno::ETIMEDOUT => Problem::TimedOut,
            Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN => {
                Problem::Unreachable(error as i32)
            }
            _ => Problem::Other(error as i32),
        }
    }
}

impl Problem {
    /// After the destinations.
    fn text(self) -> String {
        match self {
            Problem::Refused => {
                "refused: no server listens there, or a firewall rejects connections of this host"
                    .into()
            }
            Problem::TimedOut => format!(
                "timed out, as no answer came within {} s: is that host up, does it have a route back to this one, and does no firewall drop the packets?",
                TIMEOUT.as_secs()
            ),
            Problem::Unreachable(error) => format!(
                "unreachable ({}): the address is wrong, its host is down, or a router has no route to it",
                Errno::from_raw(error).desc()
            ),
            Problem::Other(error) => format!("failed: {}", Errno::from_raw(error).desc()),
        }
    }
}

/// Tries each TCP destination once; of a range of ports the first.
pub fn findings(config: &Config) -> Vec<Finding> {
    let tcp = config.reachable_forwards();
    let tcp = tcp.filter(|forward| forward.service.protocol == Protocol::Tcp);
    let destinations = tcp.flat_map(|forward| &forward.destinations);
    let all: BTreeSet<SocketAddr> = destinations.map(Destination::socket_address).collect();
    if all.is_empty() {
        let text = "not looked at: only TCP destinations can be tried, and there are none";
        return vec![Finding::new(Level::Unseen, SUBJECT, text)];
    }
    let count = all.len();
    let (problems, untried) = try_all(all.into_iter().collect());
    let mut findings: Vec<Finding> = problems
        .into_iter()
        .map(|(problem, to)| {
            let text = format!("{}: {}", first_few(to.iter()), problem.text());
            Finding::new(Level::Failure, SUBJECT, text)
        })
        .collect();
    if untried > 0 {
        let text = format!(
            "not looked at: {untried} of {count} destinations, as {} s are over",
            MAX_TIME.as_secs()
        );
        findings.push(Finding::new(Level::Unseen, SUBJECT, text));
    }
    if findings.is_empty() {
        let text = format!("TCP destinations that accept connections of this host: all {count}");
        findings.push(Finding::new(Level::Ok, SUBJECT, text));
    }
    findings
}

/// The destinations that do not accept, by what is wrong, and how many there was no time for.
fn try_all(mut left: VecDeque<SocketAddr>) -> (BTreeMap<Problem, Vec<SocketAddr>>, usize) {
    let mut problems: BTreeMap<Problem, Vec<SocketAddr>> = BTreeMap::new();
    let mut attempts: Vec<(SocketAddr, Attempt)> = Vec::new();
    let end = Instant::now() + MAX_TIME;
    loop {
        while attempts.len() < AT_ONCE && Instant::now() < end {
            let Some(to) = left.pop_front() else { break };
            match Attempt::begin(to, end.min(Instant::now() + TIMEOUT)) {
                Ok(Begun::Runs(attempt)) => attempts.push((to, attempt)),
                Ok(Begun::Over(Ok(()))) => {}
                Ok(Begun::Over(Err(error))) | Err(error) => {
                    problems.entry(error.into()).or_default().push(to);
                }
            }
        }
        if attempts.is_empty() {
            return (problems, left.len());
        }
        wait(&attempts);
        attempts.retain(|(to, attempt)| match outcome(attempt) {
            None => true,
            Some(Ok(())) => false,
            Some(Err(error)) => {
                problems.entry(error.into()).or_default().push(*to);
                false
            }
        });
    }
}

/// Waits until one of them has an outcome, or its time is over.
fn wait(attempts: &[(SocketAddr, Attempt)]) {
    let deadlines = attempts.iter().map(|(_, attempt)| attempt.deadline);
    let left = deadlines.min().map_or(Duration::ZERO, |deadline| {
        deadline.saturating_duration_since(Instant::now())
    });
    let mut files: Vec<PollFd<'_>> = attempts
        .iter()
        .map(|(_, attempt)| PollFd::new(attempt.as_fd(), PollFlags::POLLOUT))
        .collect();
    // A millisecond more, as poll(2) knows no smaller part. What a signal interrupts is looked at again.
    let left = left + Duration::from_millis(1);
    let _ = poll(
        &mut files,
        PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
    );
}

/// How it went; `None` if that is not known yet.
fn outcome(attempt: &Attempt) -> Option<Outcome> {
    let mut files = [PollFd::new(attempt.as_fd(), PollFlags::POLLOUT)];
    let is_over = poll(&mut files, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    if is_over {
        return Some(attempt.outcome());
    }
    (attempt.deadline <= Instant::now()).then_some(Err(Errno::ETIMEDOUT))
}
