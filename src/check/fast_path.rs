//! `NODEFWD_FAST_PATH`: would connections take it here, and what would they bypass?

use super::{Finding, Level};
use crate::config::{Config, FastPath, OptionName, TABLE_PREFIX, first_few};
use crate::fast_path;
use crate::logging::with_causes;
use crate::nftables::list::{self, BaseChain, Hook};
use crate::nftables::{Nftables, NftablesError};
use crate::ruleset::Ruleset;

const SUBJECT: &str = "fast path";

/// What can be said of it; nothing if it is not asked for. `ruleset` is what the kernel accepts without it.
pub fn findings(nftables: &Nftables, ruleset: &Ruleset, config: &Config) -> Vec<Finding> {
    if !config.wants_fast_path() {
        return Vec::new();
    }
    let plan = fast_path::plan(config, Some(nftables));
    let mut findings = Vec::new();
    if !plan.missing.is_empty() {
        let missing = first_few(plan.missing.iter());
        let text = format!(
            "{}: there is no interface {missing}; the fast path takes its packets when it comes",
            OptionName::FAST_PATH
        );
        findings.push(Finding::new(Level::Warning, SUBJECT, text));
    }
    findings.extend(unlisted(config));
    findings
        .extend(fast_path::risk(config).map(|risk| Finding::new(Level::Warning, SUBJECT, risk)));
    if let Some(reason) = &plan.without {
        let text = format!("connections would not take it: {reason}");
        findings.push(Finding::new(Level::Warning, SUBJECT, text));
    }
    let names: Vec<_> = plan.names().collect();
    if names.is_empty() {
        return findings;
    }
    let mut ruleset = ruleset.clone();
    ruleset.add_fast_path(config, names.clone());
    let taken = first_few(names.iter());
    let (level, text) = match nftables.dry_run(&ruleset) {
        Ok(()) => (Level::Ok, bypassed(nftables, &taken)),
        Err(error) if error.is_of_fast_path() => refused(config, &error),
        Err(error) => (Level::Doubt, with_causes(&error)),
    };
    findings.push(Finding::new(level, SUBJECT, text));
    findings
}

/// Up to Linux 6.12 the flowtable takes packets of one direction then, later none.
fn unlisted(config: &Config) -> Option<Finding> {
    let names = fast_path::unlisted(config).ok()?;
    let names = (!names.is_empty()).then(|| first_few(names.iter()))?;
    let text = format!(
        "connections to destinations that are reached over {names} would not take it, or in one direction only: list them in {} too",
        OptionName::FAST_PATH
    );
    Some(Finding::new(Level::Warning, SUBJECT, text))
}

/// With `auto` connections are forwarded all the same.
fn refused(config: &Config, error: &NftablesError) -> (Level, String) {
    match config.fast_path {
        FastPath::Auto => (
            Level::Warning,
            format!("connections would not take it: {}", with_causes(error)),
        ),
        _ => (Level::Failure, with_causes(error)),
    }
}

/// What packets of established connections do not meet any more.
fn bypassed(nftables: &Nftables, taken: &str) -> String {
    let chains = || -> Result<Vec<String>, NftablesError> {
        let (chains, _) = nftables.list(list::base_chains)?;
        let met = chains.iter().filter(|chain| is_bypassed(chain));
        Ok(met
            .map(|chain| format!("chain {} of table {}", chain.name, chain.table))
            .collect())
    };
    let what = match chains() {
        Ok(chains) if !chains.is_empty() => first_few(chains.iter()),
        _ => "the rules of other programs".into(),
    };
    format!(
        "on {taken}: packets of established connections then bypass {what}, so that a rule that is added there later ends only new ones"
    )
}

fn is_bypassed(chain: &BaseChain) -> bool {
    let hooks = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];
    !chain.is_nat && hooks.contains(&chain.hook) && !chain.table.name.starts_with(TABLE_PREFIX)
}
