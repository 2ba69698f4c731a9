//! What the kernel must have and allow.

use super::{Finding, Level, list};
use crate::config::{Config, Family};
use crate::lock::{Lock, LockError};
use crate::logging::with_causes;
use crate::netfilter::{Connection, NetfilterError, Ownership};
use crate::ruleset::Ruleset;
use crate::sysctl;
use caps::{CapSet, Capability};
use std::fs;

pub fn capability() -> Finding {
    const SUBJECT: &str = "privileges";
    match caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN) {
        Ok(true) => Finding::new(Level::Ok, SUBJECT, "CAP_NET_ADMIN is there"),
        _ => Finding::new(
            Level::Failure,
            SUBJECT,
            NetfilterError::NotPermitted.to_string(),
        ),
    }
}

/// Whether each family is forwarded, as an instance judges it. Gives the families that an instance
/// would forward; all, if it would not start.
pub fn forwarding(mut config: Config, findings: &mut Vec<Finding>) -> Config {
    const SUBJECT: &str = "forwarding";
    let wanted = |family: &Family| config.forwards_family(*family);
    let (on, off): (Vec<Family>, Vec<_>) = Family::ALL
        .into_iter()
        .filter(wanted)
        .partition(|family| sysctl::forwarding(*family).is_ok());
    if !on.is_empty() {
        let text = format!("on for {}", list(on.iter()));
        findings.push(Finding::new(Level::Ok, SUBJECT, text));
    }
    let starts = on.iter().any(|family| config.takes(*family));
    let level = match config.strict || !starts {
        true => Level::Failure,
        false => Level::Warning,
    };
    for error in off
        .iter()
        .filter_map(|family| sysctl::forwarding(*family).err())
    {
        findings.push(Finding::new(level, SUBJECT, with_causes(&error)));
    }
    if starts {
        config
            .forwards
            .retain(|forward| on.contains(&forward.family));
    }
    config
}

/// Whether the kernel takes the rules, all of them. If so, gives the connection for further
/// questions, and who would keep others from changing the table.
pub fn rules(
    opened: Result<Connection, NetfilterError>,
    config: &Config,
    findings: &mut Vec<Finding>,
) -> Option<(Connection, Ownership)> {
    const SUBJECT: &str = "rules";
    let ruleset = Ruleset::new(config);
    let taken =
        opened.and_then(
            |connection| match connection.try_install(&ruleset, config.ownership) {
                Err(error @ NetfilterError::NoOwnership) => {
                    let text = format!(
                        "{error}: others can remove the rules, which are then installed again"
                    );
                    findings.push(Finding::new(Level::Warning, SUBJECT, text));
                    connection.try_install(&ruleset, Ownership::Nobody)?;
                    Ok((connection, Ownership::Nobody))
                }
                answer => answer.map(|()| (connection, config.ownership)),
            },
        );
    let (level, text) = match &taken {
        Ok(_) => {
            let count: usize = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
            (Level::Ok, format!("the kernel takes all {count}"))
        }
        Err(error) => (Level::Failure, with_causes(error)),
    };
    findings.push(Finding::new(level, SUBJECT, text));
    taken.ok()
}

/// Whether another instance has the name, or a part of what is to be forwarded.
pub fn rivals(connection: &Connection, ownership: Ownership, config: &Config) -> Finding {
    const SUBJECT: &str = "instances";
    let taken = Lock::look(&config.name);
    let replace = config.replace && taken.is_err();
    let free = match replace {
        true => Ok(()),
        false => taken.map_err(|error: LockError| with_causes(&error)),
    };
    let ruleset = Ruleset::new(config);
    let unclaimed = || connection.look_for_rivals(&ruleset, ownership, replace);
    match free.and_then(|()| unclaimed().map_err(|error| with_causes(&error))) {
        Ok(()) if replace => {
            let text = "the one that has the name can be replaced, and no other has the ports";
            Finding::new(Level::Ok, SUBJECT, text)
        }
        Ok(()) => Finding::new(Level::Ok, SUBJECT, "no other has the name or the ports"),
        Err(text) => Finding::new(Level::Failure, SUBJECT, text),
    }
}

/// Whether there is room for more connections.
pub fn connections() -> Finding {
    const SUBJECT: &str = "connections";
    let read = |name: &str| {
        let file = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    };
    let (Some(count), Some(most)) = (read("count"), read("max")) else {
        return Finding::new(Level::Ok, SUBJECT, "the kernel tracks none yet");
    };
    let text = format!("{count} of at most {most} are tracked");
    // 0 stands for no limit (nf_conntrack_alloc in net/netfilter/nf_conntrack_core.c).
    if most == 0 || count <= most / 10 * 9 {
        return Finding::new(Level::Ok, SUBJECT, text);
    }
    let text = format!(
        "{text}, and the kernel drops what comes beyond: raise the limit on the host with: sysctl -w net.netfilter.nf_conntrack_max={}",
        most * 2
    );
    Finding::new(Level::Warning, SUBJECT, text)
}
