//! Network namespaces for tests that talk to the kernel.

use nix::sched::{CloneFlags, unshare};
use std::{panic, thread};

/// Runs `work` in a thread with an empty network namespace of its own, which goes with the thread.
pub fn in_own_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        let entered = unshare(CloneFlags::CLONE_NEWNET);
        entered.expect("a network namespace, which takes root: run tests/run.sh as root");
        work()
    };
    let thread = thread::scope(|scope| scope.spawn(inside).join());
    thread.unwrap_or_else(|cause| panic::resume_unwind(cause))
}

/// How many namespaces are used at once: the kernel waits for a grace period when it undoes a
/// transaction, and several can wait together.
pub const LANES: usize = 8;

/// Runs `work` in [`LANES`] such threads, each of which gets its number, and gives what they give.
pub fn in_own_namespaces<T: Send>(work: impl Fn(usize) -> T + Sync) -> [T; LANES] {
    let work = &work;
    thread::scope(|scope| {
        std::array::from_fn(|lane| scope.spawn(move || in_own_namespace(|| work(lane)))).map(
            |thread| {
                thread
                    .join()
                    .unwrap_or_else(|cause| panic::resume_unwind(cause))
            },
        )
    })
}
