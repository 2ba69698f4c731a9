//! What an instance that has just started logs of its surroundings: it must be quick, and say only what is sure.

use super::surroundings::{Scope, surroundings};
use super::{Finding, Level};
use crate::config::Config;
use crate::netlink::give_up_when;
use crate::nftables::Nftables;
use log::{debug, info, warn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many chains and rules, and how many forwards, an instance that has just started looks at.
const MAX_RULES_AT_START: usize = 10_000;
const MAX_FORWARDS_AT_START: usize = 256;

/// How long it looks, and how many warnings of a kind it logs.
const MAX_TIME_AT_START: Duration = Duration::from_secs(1);
const MAX_WARNINGS_AT_START: usize = 8;

/// Logs what is surely wrong around an instance whose rules are installed. Ends at once when the flag is
/// set. The config is the same afterwards.
pub fn warn(config: &mut Config, flag: &Arc<AtomicBool>) {
    let looked_at = config.forwards.len().min(MAX_FORWARDS_AT_START);
    let rest = config.forwards.split_off(looked_at);
    look(config, rest.len(), flag);
    config.forwards.extend(rest);
}

/// The same for these forwards, which are not all.
fn look(config: &Config, more: usize, flag: &Arc<AtomicBool>) {
    let scope = Scope {
        max_rules: MAX_RULES_AT_START,
        installed: true,
        at_start: true,
        from: None,
    };
    let mut findings = Vec::new();
    give_up_when(flag, Some(MAX_TIME_AT_START), || {
        // One of its own, as the search may be given up in the middle of a reply.
        let nftables = Nftables::open();
        findings = surroundings(nftables.as_ref().ok(), config.clone(), &scope);
    });
    if flag.load(Ordering::SeqCst) {
        return;
    }
    let mut unseen = Vec::new();
    if more > 0 {
        let all = config.forwards.len() + more;
        unseen.push(format!("{more} of {all} forwards"));
    }
    let mut warnings: BTreeMap<&str, usize> = BTreeMap::new();
    for Finding {
        level,
        subject,
        text,
        ..
    } in findings
    {
        match level {
            Level::Ok | Level::Doubt => debug!("{subject}: {text}"),
            Level::Unseen => unseen.push(subject.to_owned()),
            Level::Warning | Level::Failure => {
                let count = warnings.entry(subject).or_default();
                *count += 1;
                if *count <= MAX_WARNINGS_AT_START {
                    warn!("{subject}: {text}");
                }
            }
        }
    }
    for (subject, count) in warnings {
        if let Some(more) = count
            .checked_sub(MAX_WARNINGS_AT_START)
            .filter(|more| *more > 0)
        {
            warn!("{subject}: {more} more such warnings: nodefwd check shows them");
        }
    }
    if !unseen.is_empty() {
        unseen.dedup();
        info!(
            "not looked at: {}; nodefwd check looks at all",
            unseen.join(", ")
        );
    }
    debug!("checked routes, other tables and sockets");
}
