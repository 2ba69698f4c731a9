//! Giving up what takes too long: a table of the kernel's may have any length.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

thread_local! {
    /// When to give up: each of what is under way, the outer ones first.
    static LIMITS: RefCell<Vec<Limit>> = const { RefCell::new(Vec::new()) };
}

struct Limit {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

/// Runs `work`. Once the flag is set, or this time is over, what it requests fails at the next datagram,
/// with [`std::io::ErrorKind::Interrupted`]. The sockets must not be used afterwards, as the kernel goes on
/// with the reply.
pub fn give_up_when(flag: &Arc<AtomicBool>, time: Option<Duration>, work: impl FnOnce()) {
    let limit = Limit {
        flag: flag.clone(),
        deadline: time.map(|time| Instant::now() + time),
    };
    LIMITS.with_borrow_mut(|limits| limits.push(limit));
    work();
    LIMITS.with_borrow_mut(Vec::pop);
}

/// Whether work that reads or evaluates much must end here.
pub fn gives_up() -> bool {
    let is_over = |limit: &Limit| {
        let mut deadline = limit.deadline.into_iter();
        limit.flag.load(Ordering::Relaxed) || deadline.any(|deadline| deadline <= Instant::now())
    };
    LIMITS.with_borrow(|limits| limits.iter().any(is_over))
}
