//! What can go wrong around it, tried as often as the README's table says, and that nothing is lost.

mod floods;
mod forgery;
mod input;
mod netlink;
mod options;
mod right;
mod signals;

use std::thread;

/// How many threads work side by side: the kernel takes its time to remove a table, and does it for
/// all of them at once.
const LANES: usize = 8;

/// Deals out the numbers from 0 to `count` to threads.
fn lanes(count: usize, work: impl Fn(std::iter::StepBy<std::ops::Range<usize>>) + Sync) {
    thread::scope(|scope| {
        for lane in 0..LANES {
            let (work, numbers) = (&work, (lane..count).step_by(LANES));
            scope.spawn(move || work(numbers));
        }
    });
}
