//! `NODEFWD_HEALTH`: which destinations fail. Each is tried once in an interval, and sooner after a failure, by a TCP
//! connection that is given up as soon as it would be there; all of them spread over the interval, without a thread.

mod kept;
mod left_out;
#[cfg(test)]
mod tests;

pub use left_out::{apply, take_over};

use crate::config::{Config, Destination, Down};
use crate::tcp::{Attempt, Begun, Outcome, Room, Spare};
use log::{info, warn};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How many failures in a row leave a destination out, and how many successes bring it back.
const FALL: u32 = 3;
const RISE: u32 = 2;

/// How long an attempt may take: the kernel sends three SYNs meanwhile (tcp_syn_retries in tcp(7)).
const MAX_TIMEOUT: Duration = Duration::from_secs(5);

/// The attempts of an interval begin in this many steps, those of a step together: the fewer, the less often the
/// process wakes up, and the first of a step cost the most.
const STEPS: usize = 10;

/// After a failure it is tried again this part of the interval later, until it is clear whether it fails.
const RETRIES_PER_INTERVAL: u32 = 4;

/// As many results are taken at once.
const MAX_EVENTS: usize = 64;

/// The destinations that are tried, and what has come of it.
pub struct Health {
    interval: Duration,
    targets: Vec<Target>,
    /// Readable when an attempt is over. Its events have indexes of targets.
    attempts: Epoll,
    spare: Spare,
    /// How many run, and may run.
    running: usize,
    room: Room,
    /// Those whose attempt is due: they begin in this order, when there is room.
    waiting: VecDeque<usize>,
    /// No attempt has failed, and none follows a failure, before this.
    timer: Option<Instant>,
    /// When the round began in which each is tried once, and which is the next one.
    round: Instant,
    next: usize,
    /// Those that failed when that was last carried out, and whether others may do so now.
    applied: Down,
    changed: bool,
    /// When it is tried again to carry it out.
    retry: Option<Instant>,
    /// When an attempt could not even begin last.
    hindered: Option<Instant>,
}

/// A destination.
struct Target {
    to: Destination,
    is_up: bool,
    /// How many attempts in a row have contradicted that.
    contradictions: u32,
    attempt: Option<Attempt>,
    /// Whether it is among those that wait.
    waits: bool,
    /// When the last attempt began, and when the next one does if not in its turn.
    began: Instant,
    again: Option<Instant>,
}

impl Health {
    /// For the destinations of a config that are tried. What is known of them from `before` stays known; others
    /// are taken for up. `None` if there are none.
    pub fn new(config: &Config, before: Option<&Self>) -> io::Result<Option<Self>> {
        let known = before.map_or(&[][..], |before| &before.targets);
        let now = Instant::now();
        let target = |to| {
            let place = known.binary_search_by_key(&to, |target| target.to);
            let known = place.ok().map(|place| &known[place]);
            Target {
                to,
                is_up: known.is_none_or(|known| known.is_up),
                contradictions: known.map_or(0, |known| known.contradictions),
                attempt: None,
                waits: false,
                began: now,
                again: None,
            }
        };
        let targets: Vec<Target> = config.tried().into_iter().map(target).collect();
        if targets.is_empty() {
            return Ok(None);
        }
        let room = Room::make(targets.len());
        // Once, not with each reload.
        if room.is_short() && before.is_none_or(|before| !before.room.is_short()) {
            warn_of_room(&room, targets.len());
        }
        let mut health = Health {
            interval: config.health,
            targets,
            attempts: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            spare: Spare::default(),
            running: 0,
            room,
            waiting: VecDeque::new(),
            timer: None,
            round: now,
            next: 0,
            applied: Down::default(),
            changed: false,
            retry: None,
            hindered: None,
        };
        health.applied = health.down();
        if let Some(before) = before.filter(|before| before.interval == health.interval) {
            health.go_on(before);
        }
        Ok(Some(health))
    }

    /// The destinations that fail.
    pub fn down(&self) -> Down {
        let down = self.targets.iter().filter(|target| !target.is_up);
        down.map(|target| target.to).collect()
    }

    /// Those of them that are left out already.
    pub fn applied(&self) -> &Down {
        &self.applied
    }

    /// Remembers that they are left out; gives those that were before.
    pub fn set_applied(&mut self, down: Down) -> Down {
        (self.retry, self.changed) = (None, false);
        std::mem::replace(&mut self.applied, down)
    }

    /// Has [`step`](Self::step) tell again later what has changed.
    pub fn retry_later(&mut self) {
        self.retry = Some(Instant::now() + self.interval);
    }

    /// When [`step`](Self::step) has something to do though nothing is readable.
    pub fn deadline(&self) -> Instant {
        let due = self.due();
        self.timer.map_or(due, |timer| timer.min(due))
    }

    /// When the first attempt has failed, or follows a failure.
    fn next_timer(&self) -> Option<Instant> {
        let times = self.targets.iter().flat_map(|target| {
            let end = target.attempt.as_ref().map(|attempt| attempt.deadline);
            [end, target.again].into_iter().flatten()
        });
        times.min()
    }

    fn set_timer(&mut self, time: Instant) {
        self.timer = self.timer.into_iter().chain([time]).min();
    }

    /// When the next destination is tried.
    fn due(&self) -> Instant {
        let step = self.next * STEPS / self.targets.len();
        self.round + self.interval * step as u32 / STEPS as u32
    }

    /// Takes up what has come of attempts, and begins those that are due. Gives whether other destinations are
    /// to be left out now.
    pub fn step(&mut self, now: Instant) -> io::Result<bool> {
        self.take_outcomes()?;
        if self.timer.is_some_and(|timer| timer <= now) {
            self.follow_timer(now);
        }
        while self.due() <= now {
            self.enqueue(self.next);
            self.next += 1;
            if self.next == self.targets.len() {
                self.next = 0;
                // Not a round for each that a suspended machine has missed.
                self.round = now.max(self.round + self.interval);
            }
        }
        self.begin_waiting(now);
        Ok(self.changed && self.retry.is_none_or(|retry| retry <= now))
    }

    /// Takes attempts that last too long for failed; those that follow a failure are due.
    fn follow_timer(&mut self, now: Instant) {
        for index in 0..self.targets.len() {
            let attempt = self.targets[index].attempt.as_ref();
            if attempt.is_some_and(|attempt| attempt.deadline <= now) {
                self.judge(index, Err(Errno::ETIMEDOUT));
            }
            if self.targets[index].again.is_some_and(|again| again <= now) {
                self.enqueue(index);
            }
        }
        self.timer = self.next_timer();
    }

    fn take_outcomes(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); MAX_EVENTS];
        loop {
            let count = match self.attempts.wait(&mut events, EpollTimeout::ZERO) {
                Err(Errno::EINTR) => continue,
                count => count?,
            };
            for event in &events[..count] {
                let index = event.data() as usize;
                let Some(attempt) = self.end(index) else {
                    continue;
                };
                let outcome = attempt.outcome();
                if outcome.is_ok() {
                    self.spare.keep(attempt);
                }
                self.judge(index, outcome);
            }
            if count < MAX_EVENTS {
                return Ok(());
            }
        }
    }

    /// Has a destination tried in its turn, unless that is under way.
    fn enqueue(&mut self, index: usize) {
        let target = &mut self.targets[index];
        target.again = None;
        if target.attempt.is_none() && !target.waits {
            target.waits = true;
            self.waiting.push_back(index);
        }
    }

    /// Begins the attempts that are due, as long as there is room.
    fn begin_waiting(&mut self, now: Instant) {
        while self.running < self.room.attempts {
            let Some(index) = self.waiting.pop_front() else {
                return;
            };
            self.targets[index].waits = false;
            self.begin(index, now);
        }
    }

    /// The attempt that has run, if one has.
    fn end(&mut self, index: usize) -> Option<Attempt> {
        let attempt = self.targets.get_mut(index)?.attempt.take();
        self.running -= usize::from(attempt.is_some());
        attempt
    }

    fn begin(&mut self, index: usize, now: Instant) {
        let target = &mut self.targets[index];
        target.began = now;
        let deadline = now + self.interval.min(MAX_TIMEOUT);
        let to = target.to.socket_address();
        let spare = self.spare.take(&to);
        let is_spare = spare.is_some();
        if !is_spare && self.running + self.spare.count() >= self.room.attempts {
            self.spare.close_one();
        }
        let begun = match spare {
            Some(spare) => spare.begin_again(to, deadline),
            None => Attempt::begin(to, deadline),
        };
        let begun = begun.and_then(|begun| {
            if let Begun::Runs(attempt) = &begun {
                // The kernel may have no room for more (fs.epoll.max_user_watches).
                if is_spare {
                    self.attempts.modify(attempt, &mut event(index))?;
                } else {
                    self.attempts.add(attempt, event(index))?;
                }
            }
            Ok(begun)
        });
        match begun {
            Ok(Begun::Runs(attempt)) => {
                target.attempt = Some(attempt);
                self.running += 1;
                self.set_timer(deadline);
            }
            Ok(Begun::Over(outcome)) => self.judge(index, outcome),
            Err(errno) => {
                // Not for each of many, of which some can be tried.
                let last = self.hindered.replace(now);
                if last.is_none_or(|last| last + 2 * self.interval < now) {
                    warn!(
                        "cannot try whether destinations answer, so those that fail are not left out: {}",
                        errno.desc()
                    );
                }
            }
        }
    }

    fn judge(&mut self, index: usize, outcome: Outcome) {
        // Closes its socket.
        self.end(index);
        let target = &mut self.targets[index];
        target.again = None;
        if outcome.is_ok() == target.is_up {
            target.contradictions = 0;
            return;
        }
        target.contradictions += 1;
        let needed = if target.is_up { FALL } else { RISE };
        if target.contradictions < needed {
            let retry = target.began + self.interval / RETRIES_PER_INTERVAL;
            if target.is_up {
                target.again = Some(retry);
                self.set_timer(retry);
            }
            return;
        }
        target.is_up = outcome.is_ok();
        self.changed = true;
        target.contradictions = 0;
        let destination = target.to;
        match outcome {
            Ok(()) => info!("destination {destination} is up again: {RISE} connections in a row"),
            Err(errno) => warn!(
                "destination {destination} is down: {FALL} connections in a row have failed, the last one with: {}",
                errno.desc()
            ),
        }
    }
}

/// Says that not all destinations can be tried at the same time.
fn warn_of_room(room: &Room, targets: usize) {
    let Room {
        attempts,
        limit,
        needed,
    } = room;
    warn!(
        "of {targets} destinations, {attempts} are tried at a time, as this process may open {limit} files: where more do not answer, that is noticed later; raise its hard limit to {needed}: LimitNOFILE={needed} in the unit, or ulimit -n {needed} in the shell that starts it"
    );
}

/// That the attempt of a target is over; once, so that nothing is said of a socket that is kept.
fn event(index: usize) -> EpollEvent {
    let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
    EpollEvent::new(flags, index as u64)
}

impl AsFd for Health {
    /// Readable when attempts are over.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.attempts.0.as_fd()
    }
}
