//! Forwarding that is switched off or on while the instance runs: said once, and a family that was off at
//! the start is taken in.

use super::events::Events;
use super::notify;
use crate::config::{Config, Family, Forward, summary};
use crate::logging::with_causes;
use crate::sysctl::{ForwardingError, Needs, is_on};
use log::{debug, info, warn};

/// What the log and the service manager know of forwarding.
pub struct ForwardingReport {
    /// Why packets were not forwarded when it was looked at last.
    unmet: Vec<String>,
    /// Whether the service manager was told that.
    told: bool,
}

impl ForwardingReport {
    /// For an instance that has just started: its families were on then, and a check has said what is
    /// wrong with interfaces.
    pub fn new(config: &Config) -> Self {
        let of_interface =
            |error: &ForwardingError| matches!(error, ForwardingError::Interface { .. });
        ForwardingReport {
            unmet: unmet(config, of_interface).unwrap_or_default(),
            told: false,
        }
    }

    /// Says what has changed.
    pub fn update(&mut self, config: &Config, events: &Events<'_>) {
        let Some(unmet) = unmet(config, |_| true) else {
            return;
        };
        for reason in unmet.iter().filter(|reason| !self.unmet.contains(reason)) {
            warn!("not ready: {reason}");
        }
        if unmet == self.unmet {
            return;
        }
        self.unmet = unmet;
        self.told = !self.unmet.is_empty();
        let summary = events.summary(config);
        if self.unmet.is_empty() {
            info!("ready again: {summary}");
            notify::ready(&summary);
        } else {
            notify::not_forwarding(&self.unmet.join("; "));
        }
    }

    /// After a reload, which tells the service manager what is forwarded, and whose check says what is wrong with
    /// interfaces: if that was known before, it is told again.
    pub fn renew(&mut self, config: &Config) {
        let told = self.told;
        *self = Self::new(config);
        self.told = told && !self.unmet.is_empty();
        if self.told {
            notify::not_forwarding(&self.unmet.join("; "));
        }
    }

    /// Tells the service manager what is forwarded after a change of the rules, unless it is to know of worse.
    pub fn tell(&self, config: &Config, events: &Events<'_>) {
        if !self.told {
            notify::forwarding(&events.summary(config));
        }
    }
}

/// `forwarding tcp/80=10.0.0.5:8080 in table inet nodefwd-tcp-80`
pub fn in_table(config: &Config) -> String {
    let table = config.name.table();
    format!("{} in table inet {table}", summary(&config.forwards))
}

/// `None` if it cannot be told.
fn unmet(config: &Config, counts: impl Fn(&ForwardingError) -> bool) -> Option<Vec<String>> {
    match Needs::of(config).unmet() {
        Ok(unmet) => {
            let counted = unmet.iter().filter(|error| counts(error));
            Some(counted.map(ToString::to_string).collect())
        }
        Err(error) => {
            debug!("cannot tell what is forwarded: {}", with_causes(&error));
            None
        }
    }
}

/// Takes in the families that are on now, of those that were off: in one transaction each. Gives whether
/// there were any. A family that cannot be taken in waits on.
pub fn take_in(
    config: &mut Config,
    waiting: &mut Vec<(Family, Vec<Forward>)>,
    events: &mut Events<'_>,
) -> bool {
    let before = waiting.len();
    waiting.retain(|(family, forwards)| {
        if !config.listen.accepts(*family) || !is_on(*family) {
            return true;
        }
        let mut wider = config.clone();
        wider.add_forwards(forwards.iter().cloned());
        if let Err(error) = events.change_rules(&wider, events.has_failed_reload()) {
            let causes = with_causes(&error);
            warn!("{family} forwarding is on now, but {family} is still left out: {causes}");
            return true;
        }
        *config = wider;
        let summary = events.summary(config);
        info!("ready: {summary}, now over {family} too, as its forwarding was switched on");
        false
    });
    waiting.len() < before
}
