//! Names among the destinations: looked up again when their answers are over. Another answer changes the rules
//! as a reload does; without one they stay.

use super::Waiting;
use super::events::Events;
use super::reload::{ReloadError, follow_names};
use crate::config::{Answer, Config, HostName, first_few, going_on};
use crate::logging::with_causes;
use crate::resolver::{Lookup, MAX_TIME, RETRY_PAUSE, Resolver, failed};
use log::{debug, info, warn};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Names whose answers are over within this time are looked up together.
const TICK: Duration = Duration::from_secs(1);

/// The names of an instance, and when they are looked up again.
pub struct Names {
    _resolver: Resolver,
    expiries: Vec<(HostName, Instant)>,
    /// The one that runs.
    lookup: Option<Lookup>,
    /// What has come of the last one, until it is taken.
    answers: Vec<Answer>,
    /// Why the last answers could not be carried out.
    refused: Option<String>,
}

impl Names {
    /// `None` if there are no names.
    pub fn new(config: &Config) -> Option<Self> {
        let expiries = config.answers.iter();
        let expiries = expiries.map(|answer| (answer.name.clone(), answer.expires));
        let names = Names {
            _resolver: Resolver::new()?,
            expiries: expiries.collect(),
            lookup: None,
            answers: Vec::new(),
            refused: None,
        };
        (!names.expiries.is_empty()).then_some(names)
    }

    /// Readable when a look-up is over; `None` while none runs.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.lookup.as_ref().map(AsFd::as_fd)
    }

    /// When the next look-up begins; `None` while one runs.
    pub fn deadline(&self) -> Option<Instant> {
        let expiries = self.expiries.iter().map(|(_, expires)| *expires);
        expiries.min().filter(|_| self.lookup.is_none())
    }

    /// Begins a look-up that is due, and takes up what has come of the last one, if it `is_over`. Gives whether
    /// there are answers to take.
    pub fn step(&mut self, is_over: bool, now: Instant) -> bool {
        if let Some(lookup) = self.lookup.take_if(|_| is_over) {
            self.answers = lookup.answers();
        } else if self.deadline().is_some_and(|deadline| deadline <= now) {
            let due = self.due(now);
            match Lookup::begin(&due, MAX_TIME) {
                Ok(lookup) => self.lookup = Some(lookup),
                Err(error) => self.answers = failed(&due, error),
            }
        }
        !self.answers.is_empty()
    }

    /// The names whose answers are over, or soon will be.
    fn due(&self, now: Instant) -> Vec<HostName> {
        let due = self.expiries.iter().filter(|(_, at)| *at <= now + TICK);
        due.map(|(name, _)| name.clone()).collect()
    }

    /// The answers of the last look-up.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Looks the names of these answers up again when those are over.
    pub fn schedule(&mut self, answers: &[Answer]) {
        for (name, expires) in &mut self.expiries {
            let mut answers = answers.iter();
            if let Some(answer) = answers.find(|answer| answer.name == *name) {
                *expires = answer.expires;
            }
        }
    }

    /// Remembers why answers could not be carried out, and says whether that is new.
    pub fn refuse(&mut self, reason: Option<String>) -> bool {
        let is_new = self.refused != reason;
        self.refused = reason;
        is_new
    }
}

/// Carries out what a look-up has found, and says what has changed. Gives whether the rules have.
pub fn apply(config: &mut Config, waiting: &mut Waiting, events: &mut Events<'_>) -> bool {
    let Some(answers) = events.take_answers() else {
        return false;
    };
    let updated = config.updated(&answers);
    say(&config.answers, &updated);
    let moved = config.answers.iter().zip(&updated);
    let moved = moved.filter(|(before, now)| before.addresses != now.addresses);
    let moved: Vec<String> = moved.map(|(before, now)| leads(before, now)).collect();
    if moved.is_empty() {
        config.answers = updated;
        events.schedule(&config.answers);
        return false;
    }
    let failures: Vec<_> = updated
        .iter()
        .map(|answer| answer.failure.clone())
        .collect();
    let wanted = config.answered(updated).map_err(ReloadError::from);
    match wanted.and_then(|wanted| follow_names(config, waiting, events, wanted)) {
        Ok(()) => {
            moved.iter().for_each(|moved| info!("{moved}"));
            true
        }
        Err(error) => {
            let (moved, causes) = (first_few(moved.iter()), with_causes(&error));
            let text = format!("{moved}, but the rules stay as they are: {causes}");
            events.refuse_answers(&answers, Instant::now() + RETRY_PAUSE, text);
            // They have been said.
            for (answer, failure) in config.answers.iter_mut().zip(failures) {
                answer.failure = failure;
            }
            false
        }
    }
}

/// `home.example.org now leads to 10.0.0.6 (before: 10.0.0.5), as 10.9.0.53 says`
fn leads(before: &Answer, now: &Answer) -> String {
    let list = |answer: &Answer| match answer.addresses.len() {
        0 => "nowhere".into(),
        _ => first_few(answer.addresses.iter()),
    };
    let (name, source) = (&now.name, &now.source);
    let (to, from) = (list(now), list(before));
    format!("{name} now leads to {to} (before: {from}), as {source} says")
}

/// Says which names can be resolved no longer, or again.
fn say(before: &[Answer], now: &[Answer]) {
    for (before, now) in before.iter().zip(now) {
        match (before.problem(), now.problem()) {
            (None, Some(problem)) => warn!("{problem}; {}", going_on(now)),
            (Some(_), Some(problem)) => debug!("{problem}; {}", going_on(now)),
            (Some(_), None) => info!("{} is resolved again, by {}", now.name, now.source),
            (None, None) => {}
        }
    }
}

#[cfg(all(test, feature = "names"))]
mod tests {
    use super::*;
    use crate::config::Options;

    /// Each look-up with other answers is a change of the rules: names that are over almost at once are one.
    #[test]
    fn names_whose_answers_are_over_soon_are_looked_up_together() {
        let now = Instant::now();
        let answer = |(name, after): (&HostName, u64)| Answer {
            addresses: vec![[10, 2, 0, 11].into()],
            failure: None,
            ..Answer::failed(name, "", now + Duration::from_millis(after))
        };
        let look_up = |names: &[HostName]| names.iter().zip([0, 900, 1100]).map(answer).collect();
        let options = Options {
            forwards: vec!["tcp/80=a.example,b.example,c.example".into()],
            ..Options::default()
        };
        let config = Config::with_names(&options, &look_up).unwrap();
        let names = Names::new(&config).unwrap();
        assert_eq!(names.deadline(), Some(now));
        let due: Vec<String> = names.due(now).iter().map(HostName::to_string).collect();
        assert_eq!(due, ["a.example", "b.example"]);
    }
}
