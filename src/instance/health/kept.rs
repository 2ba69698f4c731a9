//! What stays known of destinations when the rules change, or another process takes them over.

use super::{Health, Target, event};
use crate::config::{Destination, Down};
use crate::tcp::Attempt;

impl Health {
    /// Goes on with the round where it was: else the last destinations never have their turn while others come and go.
    pub fn go_on(&mut self, before: &Self) {
        let next = before.targets[before.next].to;
        self.round = before.round;
        self.next = self.targets.partition_point(|target| target.to < next);
        if self.next == self.targets.len() {
            (self.round, self.next) = (before.round + self.interval, 0);
        }
    }

    /// Takes up the attempts that run: a destination is silent only if one lasts.
    ///
    /// Those that wait keep their places: else they never have their turn while the rules change.
    pub fn take_attempts(&mut self, before: Self) {
        let index = |targets: &[Target], to: Destination| {
            let place = targets.binary_search_by_key(&to, |target| target.to);
            place.ok()
        };
        for place in before.waiting {
            if let Some(index) = index(&self.targets, before.targets[place].to) {
                self.enqueue(index);
            }
        }
        for mut known in before.targets {
            let Some(index) = index(&self.targets, known.to) else {
                continue;
            };
            let own = &mut self.targets[index];
            (own.began, own.again) = (known.began, known.again);
            let attempt = known.attempt.take();
            let watched = |attempt: &Attempt| self.attempts.add(attempt, event(index)).is_ok();
            own.attempt = attempt.filter(watched);
            self.running += usize::from(own.attempt.is_some());
        }
        self.timer = self.next_timer();
    }

    /// Takes these destinations, of those that are tried, for failed.
    pub fn assume(&mut self, down: &Down) {
        for target in &mut self.targets {
            target.is_up &= !down.contains(&target.to);
        }
        self.applied = self.down();
    }
}
