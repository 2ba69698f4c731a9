//! What is checked, in words.

use super::{Finding, Level};
use crate::config::{Allowed, Answer, Balance, Config, Listen, first_few, going_on, summary};

/// What is forwarded, and what the config itself warns of.
pub fn findings(config: &Config) -> Vec<Finding> {
    let to = match &config.listen {
        Listen::Local => "an address of this host".into(),
        Listen::Any => "any address".into(),
        Listen::Only {
            addresses,
            interfaces,
        } => {
            let addresses = addresses.iter().map(ToString::to_string);
            let interfaces = interfaces.iter();
            let interfaces = interfaces.map(|name| format!("this host on {name}"));
            let all: Vec<String> = addresses.chain(interfaces).collect();
            first_few(all.iter())
        }
    };
    let mut what = format!("{}, sent to {to}", summary(&config.forwards));
    for family in config.families() {
        what += &match config.sources.of(family) {
            Allowed::All => String::new(),
            Allowed::None => format!(", from no {family} address"),
            Allowed::Ranges(ranges) => format!(", from {}", first_few(ranges.iter())),
        };
    }
    let mut forwards = config.reachable_forwards();
    let several = forwards.any(|forward| forward.destinations.len() > 1);
    for (differs, option) in [
        (config.output, ", also from this host"),
        (!config.masquerade, ", without masquerading"),
        (config.hairpin, ", also from destinations"),
        (config.clamp_mss, ", with the MSS clamped"),
        (
            config.masquerade && !config.fully_random,
            ", with the client's port where it is free",
        ),
        (several && config.balance == Balance::Source, ", by client"),
        (
            several && config.balance == Balance::RoundRobin,
            ", in turn",
        ),
    ] {
        what += if differs { option } else { "" };
    }
    let mut findings = vec![Finding::new(Level::Ok, "input", what)];
    let warnings = config.warnings();
    findings.extend(warnings.map(|text| Finding::new(Level::Warning, "input", text)));
    findings
}

/// What a name stands for, and who says so.
pub fn name(answer: &Answer) -> Finding {
    if let Some(problem) = answer.problem() {
        let text = format!("{problem}; {}", going_on(answer));
        return Finding::new(Level::Failure, "names", text);
    }
    let addresses = first_few(answer.addresses.iter());
    let text = format!("{} is {addresses}, as {} says", answer.name, answer.source);
    Finding::new(Level::Ok, "names", text)
}
