//! The order in which a name is looked up: where, under which names, with which servers.

use super::conf::{self, Conf};
use super::exchange::{ask, describe};
use super::message::{Query, Reply};
use super::{RETRY_PAUSE, hosts};
use crate::config::{Answer, Failure, Family, HostName, check_unicast};
use crate::netlink::random;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How many names are looked up at the same time.
const THREADS: usize = 8;

/// How long an answer holds, whatever its server says.
const MIN_TTL: Duration = Duration::from_secs(5);
const MAX_TTL: Duration = Duration::from_secs(60 * 60);

/// How long what /etc/hosts says holds.
const HOSTS_TTL: Duration = Duration::from_secs(60);

/// Looks up all names, until the deadline.
pub fn all(names: &[HostName], deadline: Instant) -> Vec<Answer> {
    let resolver = match Resolver::new(deadline) {
        Ok(resolver) => resolver,
        Err(reason) => return super::failed(names, reason),
    };
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let work = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = resolver.resolve(name);
            answers
                .lock()
                .unwrap_or_else(|lock| lock.into_inner())
                .push(answer);
        }
    };
    thread::scope(|scope| {
        for _ in 1..names.len().min(THREADS) {
            // Those that there can be do the work of the others.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut answers = answers
        .into_inner()
        .unwrap_or_else(|lock| lock.into_inner());
    answers.sort_by(|one, other| one.name.cmp(&other.name));
    answers
}

struct Resolver {
    hosts: String,
    conf: Conf,
    deadline: Instant,
    /// The server that has answered last, which is asked first.
    preferred: AtomicUsize,
}

/// The addresses of one family, from whom, and how long that holds.
struct Found {
    addresses: Vec<IpAddr>,
    source: String,
    ttl: Duration,
}

/// Why there are none, and whether the next name may be asked for.
struct Missing {
    reason: String,
    is_certain: bool,
}

impl Resolver {
    fn new(deadline: Instant) -> Result<Self, String> {
        let read = |path: &str| hosts::read(path).map_err(|error| format!("{path}: {error}"));
        Ok(Resolver {
            hosts: read(hosts::PATH)?,
            conf: Conf::parse(&read(conf::PATH)?),
            deadline,
            preferred: AtomicUsize::new(0),
        })
    }

    /// Looks up one name. What /etc/hosts has of it counts alone, as with "hosts: files dns" in nsswitch.conf(5).
    fn resolve(&self, name: &HostName) -> Answer {
        let in_hosts = hosts::addresses(&self.hosts, name);
        if !in_hosts.is_empty() {
            let of_family = |family| {
                let addresses = in_hosts.iter().filter(|ip| Family::of(**ip) == family);
                check(Found {
                    addresses: addresses.copied().collect(),
                    source: hosts::PATH.into(),
                    ttl: HOSTS_TTL,
                })
            };
            return answer(name, Family::ALL.map(of_family));
        }
        let mut last = None;
        for candidate in self.conf.candidates(name) {
            let found = Family::ALL.map(|family| self.ask(&candidate, family).and_then(check));
            let has_address = |found: &Result<Found, Missing>| found.is_ok();
            let is_certain = |found: &Result<Found, Missing>| {
                found
                    .as_ref()
                    .err()
                    .is_some_and(|missing| missing.is_certain)
            };
            // An error of a server ends the search: the next name may be another host's.
            if found.iter().any(has_address) || !found.iter().all(is_certain) {
                return answer(name, found);
            }
            last = Some(found);
        }
        match last {
            Some(found) => answer(name, found),
            None => Answer::failed(name, "no name to ask for", Instant::now() + RETRY_PAUSE),
        }
    }

    /// Asks the servers in turn until one has an answer.
    fn ask(&self, name: &str, family: Family) -> Result<Found, Missing> {
        let servers = &self.conf.servers;
        let mut reasons: Vec<String> = Vec::new();
        let first = self.preferred.load(Ordering::Relaxed);
        for turn in 0..servers.len() * self.conf.attempts {
            let index = (first + turn) % servers.len();
            let server = servers[index];
            let now = Instant::now();
            // Each of the others gets its turn before the time is up, however many are silent.
            let left = self.deadline.saturating_duration_since(now);
            let share = left / (servers.len() - turn % servers.len()) as u32;
            let deadline = now + share.min(self.conf.timeout);
            let reply = random().and_then(|[high, low, ..]| {
                let query = Query::new(u16::from_be_bytes([high, low]), name, family);
                ask(server, &query, deadline)
            });
            let source = server.ip().to_string();
            let certain = |reason: &str| {
                Err(Missing {
                    reason: format!("{source} says that {reason}"),
                    is_certain: true,
                })
            };
            let problem = match reply {
                Ok(Reply::Error(code)) => format!("{source} answers with {code}"),
                Err(error) => format!("{source}: {}", describe(&error)),
                Ok(reply) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return match reply {
                        Reply::Found(addresses, ttl) => Ok(Found {
                            addresses,
                            source,
                            ttl: holds(ttl),
                        }),
                        Reply::NoSuchName => certain("there is no such name (NXDOMAIN)"),
                        Reply::NoAddress => certain("it has no address"),
                        _ => Err(Missing {
                            reason: format!("{source} gives too many addresses"),
                            is_certain: false,
                        }),
                    };
                }
            };
            if !reasons.contains(&problem) {
                reasons.push(problem);
            }
            if self.deadline <= Instant::now() {
                break;
            }
        }
        Err(Missing {
            reason: reasons.join("; "),
            is_certain: false,
        })
    }
}

/// How long an answer holds whose server says so many seconds: zero and 2^31 too.
fn holds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into()).clamp(MIN_TTL, MAX_TTL)
}

/// Refuses addresses that no destination can have, as if there were none. A wrong rule is worse than none.
fn check(found: Found) -> Result<Found, Missing> {
    for address in &found.addresses {
        if let Err(error) = check_unicast(*address) {
            return Err(Missing {
                reason: format!("{} says {address}, which {error}", found.source),
                is_certain: false,
            });
        }
    }
    Ok(found)
}

/// Puts both families together.
fn answer(name: &HostName, found: [Result<Found, Missing>; 2]) -> Answer {
    let now = Instant::now();
    let mut answer = Answer {
        failure: None,
        ..Answer::failed(name, "", now + MAX_TTL)
    };
    let mut reasons: Vec<(Family, String, bool)> = Vec::new();
    for (family, found) in Family::ALL.into_iter().zip(found) {
        match found {
            Ok(found) => {
                answer.addresses.extend(found.addresses);
                answer.expires = answer.expires.min(now + found.ttl);
                answer.source = found.source;
            }
            Err(missing) => reasons.push((family, missing.reason, missing.is_certain)),
        }
    }
    answer.addresses.sort();
    answer.addresses.dedup();
    if !answer.addresses.is_empty() {
        // No address of one family is no error if there is one of the other.
        reasons.retain(|(.., is_certain)| !is_certain);
    }
    if reasons.is_empty() {
        return answer;
    }
    let families = reasons.iter().map(|(family, ..)| *family).collect();
    let mut texts: Vec<String> = reasons.into_iter().map(|(_, reason, _)| reason).collect();
    texts.dedup();
    answer.failure = Some(Failure {
        families,
        reason: texts.join("; "),
    });
    answer.expires = answer.expires.min(now + RETRY_PAUSE);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_time_within_bounds() {
        for (ttl, seconds) in [
            (0, 5),
            (4, 5),
            (6, 6),
            (3599, 3599),
            (3601, 3600),
            (1 << 31, 3600),
            (u32::MAX, 3600),
        ] {
            assert_eq!(holds(ttl), Duration::from_secs(seconds), "{ttl}");
        }
    }
}
