//! Names among the destinations: the forwards that they make with the answers that there are for them.

use super::forward::ForwardSpec;
use super::{Answer, Balance, Config, ConfigError, Family, Forward, HostName, Service};
use super::{check_reachable, first_few, forwards};
use log::warn;
use std::collections::HashSet;

/// How many names an instance may have: each is looked up by itself.
const MAX_NAMES: usize = 256;

/// Looks names up: gives an answer for each.
pub type LookUp<'a> = &'a dyn Fn(&[HostName]) -> Vec<Answer>;

impl Config {
    /// Looks up the names in the forwards as they are written, and makes the forwards of all. Keeps the
    /// addresses that are known of a name that cannot be looked up now, and logs a warning for it.
    pub(super) fn set_forwards(
        &mut self,
        written: Vec<ForwardSpec>,
        look_up: LookUp<'_>,
        known: &[Answer],
    ) -> Result<(), ConfigError> {
        if !cfg!(feature = "names") {
            self.forwards = self.forwards_of(&written)?;
            return Ok(());
        }
        let mut names: Vec<HostName> = written
            .iter()
            .flat_map(ForwardSpec::names)
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        if names.len() > MAX_NAMES {
            return Err(ConfigError::TooManyNames(names.len(), MAX_NAMES));
        }
        if !names.is_empty() {
            self.answers = look_up(&names);
        }
        for answer in &mut self.answers {
            keep(answer, known);
        }
        self.forwards = self.forwards_of(&written)?;
        for answer in &self.answers {
            if let Some(problem) = answer.problem() {
                warn!("{problem}; {}", going_on(answer));
            }
        }
        if !names.is_empty() {
            self.written = written;
        }
        Ok(())
    }

    /// The answers for all names, with these in the place of those from before.
    pub fn updated(&self, answers: &[Answer]) -> Vec<Answer> {
        let latest = |before: &Answer| {
            let answer = answers.iter().find(|answer| answer.name == before.name);
            let mut answer = answer.unwrap_or(before).clone();
            answer.keep(before);
            answer
        };
        self.answers.iter().map(latest).collect()
    }

    /// The same config with these answers for all names.
    pub fn answered(&self, answers: Vec<Answer>) -> Result<Self, ConfigError> {
        let mut config = Config {
            answers,
            not_forwarded: Vec::new(),
            ..self.clone()
        };
        config.forwards = config.forwards_of(&self.written)?;
        Ok(config)
    }

    fn forwards_of(&self, written: &[ForwardSpec]) -> Result<Vec<Forward>, ConfigError> {
        let mut forwards = forwards(written, &self.answers)?;
        if cfg!(feature = "names") && forwards.is_empty() {
            let problems = self.answers.iter().filter_map(Answer::problem);
            let problems: Vec<String> = problems.collect();
            return Err(ConfigError::Unresolved(first_few(problems.iter())));
        }
        if self.balance == Balance::Source {
            // So that nodes that list them in another order send a client to the same destination.
            forwards
                .iter_mut()
                .for_each(|forward| forward.destinations.sort());
        }
        check_reachable(&forwards, &self.listen)?;
        Ok(forwards)
    }

    /// Reports forwards that are none now, since their destinations are names without an address.
    pub(super) fn without_destination(&self) -> impl Iterator<Item = String> {
        let written = self.written.iter();
        let written = written.filter(|_| cfg!(feature = "names"));
        let none = written.filter(|spec| spec.by_family(&self.answers).next().is_none());
        none.map(|spec| {
            format!(
                "{}/{} is not forwarded until one of its destinations can be resolved",
                spec.protocol, spec.ports
            )
        })
    }
}

impl ForwardSpec {
    /// One forward for each family among the destinations, of which names have these answers. Destinations of
    /// several names count once.
    pub fn by_family(&self, answers: &[Answer]) -> impl Iterator<Item = Forward> + use<> {
        let mut forwards = Family::ALL.map(|_| None);
        let mut seen = HashSet::new();
        // An answer has each address once.
        let is_single = self.destinations.len() == 1;
        let all = self.destinations.iter();
        let all = all.flat_map(|destination| destination.resolved(answers));
        for destination in all.filter(|to| is_single || seen.insert(*to)) {
            let family = Family::of(destination.address);
            match &mut forwards[family as usize] {
                Some(Forward { destinations, .. }) => destinations.push(destination),
                none => {
                    let service = Service {
                        family,
                        protocol: self.protocol,
                        ports: self.ports,
                    };
                    *none = Some(Forward {
                        service,
                        destinations: vec![destination],
                    });
                }
            }
        }
        forwards.into_iter().flatten()
    }
}

fn keep(answer: &mut Answer, known: &[Answer]) {
    let mut known = known.iter();
    if let Some(before) = known.find(|before| before.name == answer.name) {
        answer.keep(before);
    }
}

/// What is done about a name that cannot be resolved, or not wholly.
pub fn going_on(answer: &Answer) -> String {
    if answer.addresses.is_empty() {
        "going on without it".into()
    } else {
        format!("going on with {}", first_few(answer.addresses.iter()))
    }
}

#[cfg(all(test, feature = "names"))]
mod tests {
    use super::super::{Failure, Family, Options};
    use super::*;
    use std::time::Instant;

    fn options(forwards: &str) -> Options {
        Options {
            forwards: vec![forwards.into()],
            ..Options::default()
        }
    }

    fn answer(name: &HostName, addresses: &[&str]) -> Answer {
        Answer {
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            failure: None,
            ..Answer::failed(name, "", Instant::now())
        }
    }

    /// Each name has these addresses; none: it cannot be looked up.
    fn config(forwards: &str, known: &[(&str, &[&str])]) -> Result<Config, ConfigError> {
        let look_up = |names: &[HostName]| {
            let of = |name: &HostName| {
                let found = known.iter().find(|(known, _)| *known == name.as_str());
                let failed = || Answer::failed(name, "no such name", Instant::now());
                found.map_or_else(failed, |(_, addresses)| answer(name, addresses))
            };
            names.iter().map(of).collect()
        };
        Config::with_names(&options(forwards), &look_up)
    }

    fn shown(config: &Config) -> Vec<String> {
        config.forwards.iter().map(Forward::to_string).collect()
    }

    #[test]
    fn a_name_stands_for_its_addresses_of_both_families() {
        let known: [(&str, &[&str]); 2] = [
            ("a.example", &["10.0.0.5", "10.0.0.7", "fd00::5"]),
            ("b.example", &["10.0.0.7"]),
        ];
        let config = config("tcp/80=A.example,10.0.0.4:81,b.example", &known).unwrap();
        assert_eq!(
            shown(&config),
            [
                "tcp/80=10.0.0.5:80,10.0.0.7:80,10.0.0.4:81",
                "tcp/80=[fd00::5]:80"
            ]
        );
        let same: [(&str, &[&str]); 2] = [("a.example", &["10.0.0.7"]), known[1]];
        let same = self::config("tcp/80=a.example,b.example", &same).unwrap();
        assert_eq!(shown(&same), ["tcp/80=10.0.0.7:80"]);
    }

    #[test]
    fn names_without_an_address_are_left_out_and_none_at_all_is_an_error() {
        let known: [(&str, &[&str]); 1] = [("a.example", &["10.0.0.5"])];
        let partial = config("tcp/80=a.example,b.example tcp/81=b.example", &known).unwrap();
        assert_eq!(shown(&partial), ["tcp/80=10.0.0.5:80"]);
        let warnings: Vec<String> = partial.warnings().collect();
        assert_eq!(
            warnings,
            ["tcp/81 is not forwarded until one of its destinations can be resolved"]
        );
        let error = config("tcp/80=b.example", &known).unwrap_err();
        assert!(error.is_unresolved(), "{error:?}");
        let said = error.to_string();
        assert!(
            said.ends_with("cannot resolve b.example: no such name"),
            "{said}"
        );
        assert!(
            Config::new(&options("tcp/80=a.example"))
                .unwrap_err()
                .is_unresolved()
        );
    }

    fn answered(before: &Config, answer: Answer) -> Config {
        let answers = before.updated(&[answer]);
        before.answered(answers).unwrap()
    }

    #[test]
    fn what_cannot_be_looked_up_stays() {
        let known: [(&str, &[&str]); 1] = [("a.example", &["10.0.0.5", "fd00::5"])];
        let before = config("tcp/80=a.example", &known).unwrap();
        let name = before.answers[0].name.clone();
        let failed = Answer::failed(&name, "no answer", Instant::now());
        let kept = answered(&before, failed.clone());
        assert_eq!(kept.forwards, before.forwards);
        let only_ipv6_failed = Answer {
            addresses: vec!["10.0.0.6".parse().unwrap()],
            failure: Some(Failure {
                families: vec![Family::Ipv6],
                reason: "SERVFAIL".into(),
            }),
            ..failed
        };
        let problem = only_ipv6_failed.problem();
        assert_eq!(
            problem.as_deref(),
            Some("cannot resolve a.example over IPv6: SERVFAIL")
        );
        let moved = answered(&before, only_ipv6_failed);
        assert_eq!(shown(&moved), ["tcp/80=10.0.0.6:80", "tcp/80=[fd00::5]:80"]);
        // Now nothing is wrong with the name.
        let gone = answered(&before, answer(&name, &["10.0.0.6"]));
        assert_eq!(shown(&gone), ["tcp/80=10.0.0.6:80"]);
    }

    #[test]
    fn a_conflict_of_answers_is_one_of_forwards() {
        let known: [(&str, &[&str]); 1] = [("a.example", &["10.0.0.5"])];
        assert!(config("tcp/80=a.example tcp/80=fd00::5", &known).is_ok());
        let error = config("tcp/80=a.example tcp/80=10.0.0.6", &known).unwrap_err();
        assert!(matches!(error, ConfigError::Conflict { .. }), "{error:?}");
    }
}
