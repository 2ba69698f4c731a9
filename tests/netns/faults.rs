//! What can go wrong around it, tried as often as the README's table says, and that nothing is lost.

mod any_input;
mod event_overrun;
mod netlink_sockets;
mod rejected;
mod restarts;
mod signals;
mod spoiled_input;
mod spoofed_netlink;
mod syscall_faults;
mod valid_input;

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

/// README's table has the figures of the tests.
#[test]
fn the_readme_has_these_figures() {
    let readme = include_str!("../../README.md").replace(',', "");
    for (fault, tried) in [
        ("any input", any_input::INPUTS as usize),
        ("as many chains at a hook", rejected::FULL),
        ("somebody makes and removes", rejected::COLLISIONS),
        ("others change the ruleset", event_overrun::STARTS.into()),
        ("a message to or from the kernel", syscall_faults::CALLS),
        ("another process sends", spoofed_netlink::DATAGRAMS),
        ("more news", event_overrun::NEWS.into()),
        ("bursts of", 2 * signals::STARTS),
        ("TERM at each call", signals::CALLS),
        ("starts and stops beside", restarts::RESTARTS),
    ] {
        let start = format!("| {fault}");
        let row = readme.lines().find(|line| line.starts_with(&start));
        let figures = row.and_then(|row| row.split(" | ").nth(1));
        let tried = tried.to_string();
        let found = figures.is_some_and(|text| text.split(' ').any(|word| word == tried));
        assert!(found, "{fault}: {tried}, not {figures:?}");
    }
}
