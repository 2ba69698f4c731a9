//! What the kernel must have and allow.

use super::{Finding, Level};
use crate::capability;
use crate::config::{Config, Family, first_few};
use crate::lock::{self, LockError};
use crate::logging::with_causes;
use crate::nftables::list::TableInfo;
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::{Routes, RtnetlinkError};
use crate::ruleset::Ruleset;
use crate::siblings::{self, Claims};
use crate::sysctl::{Forwarding, ForwardingError, TURN_ON, accept_advertisements, is_on};

const FORWARDING: &str = "forwarding";

/// Whether this process may change nftables.
pub fn capability() -> Finding {
    const SUBJECT: &str = "privileges";
    match capability::check_net_admin() {
        Ok(()) => Finding::new(Level::Ok, SUBJECT, "this process has CAP_NET_ADMIN"),
        Err(error) => Finding::new(Level::Failure, SUBJECT, error.to_string()),
    }
}

/// Whether this host forwards each family. Drops those that it does not, unless none remains.
pub fn forwarding(config: &mut Config, findings: &mut Vec<Finding>) {
    let forwarding = Forwarding::of(config);
    if !forwarding.on.is_empty() {
        let text = format!("on for {}", first_few(forwarding.on.iter()));
        findings.push(Finding::new(Level::Ok, FORWARDING, text));
    }
    let level = if forwarding.suffices(config.strict) {
        Level::Warning
    } else {
        Level::Failure
    };
    for error in &forwarding.off {
        findings.push(forwarding_off(level, error));
    }
    if forwarding.can_forward {
        for error in &forwarding.off {
            config.drop_family(error.family());
        }
    }
}

/// That it is off, with the command that turns it on.
pub fn forwarding_off(level: Level, error: &ForwardingError) -> Finding {
    let text = with_causes(error);
    let command = error.fix();
    match command.as_ref().and_then(|_| text.rsplit_once(TURN_ON)) {
        None => Finding::new(level, FORWARDING, text),
        Some((why, _)) => {
            let why = why.trim_end_matches([' ', ';', ':']);
            let how = format!("; {TURN_ON}");
            Finding::new(level, FORWARDING, why).mended(how.trim_end_matches(": "), command)
        }
    }
}

/// Interfaces on which the kernel ignores router advertisements, since it forwards IPv6: the default route
/// that they announce is missing, or will expire.
pub fn ignored_advertisements(config: &Config) -> Result<Option<Finding>, RtnetlinkError> {
    if !config.forwards_family(Family::Ipv6) || !is_on(Family::Ipv6) {
        return Ok(None);
    }
    let routes = Routes::open()?;
    // An address of an advertisement has a lifetime.
    let own = routes.own_addresses()?.into_iter();
    let advertised = own.filter(|own| !own.is_permanent && Family::of(own.address) == Family::Ipv6);
    let mut interfaces: Vec<u32> = advertised.map(|own| own.interface).collect();
    if interfaces.is_empty() {
        return Ok(None);
    }
    let defaults = routes.defaults(Family::Ipv6)?;
    interfaces.retain(|index| {
        let mut ours = defaults.iter().filter(|route| route.interface == *index);
        defaults.is_empty() || ours.any(|route| route.advertised)
    });
    interfaces.dedup();
    for index in interfaces {
        let Some(interface) = routes.interface(index)? else {
            continue;
        };
        if let Some(command) = accept_advertisements(&interface.name) {
            let text = format!(
                "{} ignores router advertisements, as this host forwards IPv6: the default route that they announce is missing, or will be",
                interface.name
            );
            let finding = Finding::new(Level::Failure, FORWARDING, text);
            let command = Some(format!("sysctl -w {command}"));
            return Ok(Some(finding.mended("; accept them with", command)));
        }
    }
    Ok(None)
}

/// Whether the kernel accepts the rules, all of them. If so, gives the socket for further questions, and
/// the ruleset as it would be installed.
pub fn rules(
    opened: Result<Nftables, NftablesError>,
    config: &Config,
    findings: &mut Vec<Finding>,
) -> Option<(Nftables, Ruleset)> {
    const SUBJECT: &str = "rules";
    let mut ruleset = Ruleset::new(config);
    let mut dry_run = |nftables: Nftables| {
        match nftables.dry_run(&ruleset) {
            Err(error @ NftablesError::NoOwner) => {
                let text = format!(
                    "{error}: other processes can remove the rules, which are then installed again"
                );
                findings.push(Finding::new(Level::Warning, SUBJECT, text));
                ruleset.owner = false;
                nftables.dry_run(&ruleset)?;
            }
            result => result?,
        }
        Ok(nftables)
    };
    let accepted = opened.and_then(&mut dry_run);
    let (level, text) = match &accepted {
        Ok(_) => {
            let count: usize = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
            (Level::Ok, format!("the kernel accepts all {count}"))
        }
        Err(error) => (Level::Failure, with_causes(error)),
    };
    findings.push(Finding::new(level, SUBJECT, text));
    accepted.ok().map(|nftables| (nftables, ruleset))
}

/// Whether another instance has the name, or a part of what is to be forwarded.
pub fn conflicts(nftables: &Nftables, ruleset: &Ruleset, config: &Config) -> Finding {
    const SUBJECT: &str = "instances";
    let look = lock::look(nftables, &config.name, ruleset.owner);
    let replace = config.replace && matches!(look, Err(LockError::Running { .. }));
    let name = match look {
        Ok(peer) => Ok(peer),
        Err(_) if replace => Ok(None),
        Err(error) => Err(with_causes(&error)),
    };
    let unclaimed = |peer| {
        let may_replace = |table: &TableInfo| replace || !ruleset.owner && table.owner.is_none();
        let checked =
            siblings::check_conflicts(nftables, &ruleset.table, &Claims::of(config), may_replace);
        let checked = checked.map_err(|error| with_causes(&error));
        checked.map(|others| (peer, others.unread))
    };
    match name.and_then(unclaimed) {
        Ok((_, unread)) if !unread.is_empty() => {
            let texts: Vec<String> = unread.iter().map(|table| siblings::unread(table)).collect();
            Finding::new(Level::Unseen, SUBJECT, texts.join("; "))
        }
        Ok((Some(peer), _)) => {
            let text = lock::irreplaceable(&config.name, peer);
            Finding::new(Level::Warning, SUBJECT, text)
        }
        Ok((None, _)) if replace => {
            let text =
                "the running instance of this name can be replaced; no other forwards these ports";
            Finding::new(Level::Ok, SUBJECT, text)
        }
        Ok((None, _)) => {
            let text = "no other instance has this name or forwards these ports";
            Finding::new(Level::Ok, SUBJECT, text)
        }
        Err(text) => Finding::new(Level::Failure, SUBJECT, text),
    }
}
