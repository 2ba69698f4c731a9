//! Variables that look like an option's but are none. Nothing would come of them, and one that was meant to
//! restrict who may connect would leave the host open.

use super::OptionName;
use log::warn;
use std::env;

/// What the names of this program's own variables start with.
const PREFIX: &str = "NODEFWD_";

/// The variable of the build (build.rs), which an image or a shell may still have.
const OF_BUILD: &str = "NODEFWD_COMMIT";

/// Logs a warning for each variable of the environment that looks like an option's but is none.
pub fn warn_of_environment() {
    let variables = Variables::all();
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for warning in names.filter_map(|name| variables.warning(&name)) {
        warn!("{warning}");
    }
}

/// The variables of all options, and of the log.
pub struct Variables(Vec<&'static str>);

impl Variables {
    /// What each of them is called.
    pub fn all() -> Self {
        let names = OptionName::all();
        Variables(names.iter().map(OptionName::variable).collect())
    }

    /// What to say of a variable that looks like one of these but is none.
    pub fn warning(&self, name: &str) -> Option<String> {
        let meant = misspelled(name, &self.0)?;
        let name = super::shown(name);
        Some(format!(
            "{name} is no option and is ignored: did you mean {meant}?"
        ))
    }
}

/// The option that was probably meant by a variable that is none.
fn misspelled(name: &str, known: &[&str]) -> Option<String> {
    if name == OF_BUILD || known.contains(&name) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let own = upper.strip_prefix(PREFIX);
    // NODEFWD_SRC_RANGES, since only the newer options have the prefix.
    if let Some(classic) = classic(own.unwrap_or(&upper)) {
        return Some(classic.to_owned());
    }
    if own.is_some_and(is_of_a_kubernetes_service) {
        return None;
    }
    // NODEFWD_MASQ, NODEFWD_DRAIN_SECONDS
    let begins = |known: &str| {
        let mine = own.is_some_and(|own| !own.is_empty()) && known.starts_with(PREFIX);
        mine && (known.starts_with(&upper) || upper.starts_with(known))
    };
    let distance = |known: &str| {
        // A pod's environment may hold hundreds of variables that have nothing to do with this program.
        let most = match own {
            Some(_) => usize::MAX,
            None if known.starts_with(PREFIX) => 2,
            None => 1,
        };
        if begins(known) {
            Some(1)
        } else {
            distance(&upper, known, most)
        }
    };
    let near = known
        .iter()
        .filter_map(|known| Some((distance(known)?, known)));
    near.min().map(|(_, nearest)| (*nearest).to_owned())
}

/// The classic variable that a name stands for, in other words than the variable has.
fn classic(name: &str) -> Option<&'static str> {
    let (side, what) = name.split_once('_')?;
    let is_source = match side {
        "SRC" | "SOURCE" => true,
        "DEST" | "DST" | "DESTINATION" => false,
        _ => return None,
    };
    match (what, is_source) {
        ("IP" | "IPS" | "ADDRESS" | "ADDRESSES" | "RANGE" | "RANGES" | "CIDR" | "CIDRS", true) => {
            Some("SRC_RANGES")
        }
        ("IP" | "IPS" | "ADDRESS" | "ADDRESSES", false) => Some("DEST_IPS"),
        ("PORT" | "PORTS", true) => Some("SRC_PORT"),
        ("PORT" | "PORTS", false) => Some("DEST_PORT"),
        ("PROTO" | "PROTOS" | "PROTOCOL" | "PROTOCOLS", _) => Some("DEST_PROTO"),
        _ => None,
    }
}

/// Whether Kubernetes sets this variable, here without its prefix, in the pods of a namespace with a Service
/// named nodefwd or nodefwd-… (makeEnvVariableName and makeLinkVariables in
/// pkg/kubelet/envvars/envvars.go).
fn is_of_a_kubernetes_service(rest: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    let (ports, words) = match words[..] {
        [ref service @ .., "PROTO" | "PORT" | "ADDR"] if is_link(service) => (true, service),
        _ => (false, &words[..]),
    };
    let is_service = words.windows(2).any(|pair| pair == ["SERVICE", "PORT"]);
    ports || is_link(words) || is_service || matches!(words, [.., "PORT"] | [.., "SERVICE", "HOST"])
}

/// `…PORT_80_TCP`
fn is_link(words: &[&str]) -> bool {
    let is_number = |word: &str| word.parse::<u16>().is_ok();
    matches!(words, [.., "PORT", port, "TCP" | "UDP" | "SCTP"] if is_number(port))
}

/// How many characters must be added, left out, replaced, or exchanged with their neighbour to make one
/// text of the other (optimal string alignment); `None` if those are more than `most`.
fn distance(one: &str, other: &str, most: usize) -> Option<usize> {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    // Most names are too long or too short.
    if one.len().abs_diff(other.len()) > most {
        return None;
    }
    // Each byte that the other has not must go.
    let mut foreign = one.iter().filter(|byte| !other.contains(byte));
    if foreign.nth(most).is_some() {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, byte) in one.iter().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for (j, with) in other.iter().enumerate() {
            let replaced = row[j] + usize::from(byte != with);
            let mut best = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *byte == other[j - 1] && one[i - 1] == *with {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = row;
        row = next;
        // Each row follows from the two before it.
        if before.iter().chain(&row).all(|distance| *distance > most) {
            return None;
        }
    }
    row.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;
    use clap::{Arg, Args, Command};
    use std::collections::BTreeSet;

    #[test]
    fn near_misses_name_the_option_that_was_meant() {
        for (name, meant) in [
            ("NODEFWD_LISTN", "NODEFWD_LISTEN"),
            ("NODEFWD_LSITEN", "NODEFWD_LISTEN"),
            ("NODEFW_LISTEN", "NODEFWD_LISTEN"),
            ("nodefwd_listen", "NODEFWD_LISTEN"),
            ("NODEFWD_MASQ", "NODEFWD_MASQUERADE"),
            ("NODEFWD_DRAIN_SECONDS", "NODEFWD_DRAIN"),
            ("NODEFWD_MASQUERAD", "NODEFWD_MASQUERADE"),
            ("NODEFWD_FORWARD", "NODEFWD_FORWARDS"),
            ("NODEFWD_SRC_RANGES", "SRC_RANGES"),
            ("NODEFWD_DEST_PORT", "DEST_PORT"),
            ("SRC_IPS", "SRC_RANGES"),
            ("SRC_RANGE", "SRC_RANGES"),
            ("SRC_RNAGES", "SRC_RANGES"),
            ("SOURCE_RANGES", "SRC_RANGES"),
            ("src_ranges", "SRC_RANGES"),
            ("DEST_IP", "DEST_IPS"),
            ("DST_IPS", "DEST_IPS"),
            ("DEST_PORTS", "DEST_PORT"),
            ("SRC_PORTS", "SRC_PORT"),
            ("DEST_PROTOCOL", "DEST_PROTO"),
            ("DESTPORT", "DEST_PORT"),
        ] {
            let found = misspelled(name, &Variables::all().0);
            assert_eq!(found.as_deref(), Some(meant), "{name}");
        }
    }

    #[test]
    fn the_variables_are_those_of_the_command_line() {
        let command = Options::augment_args(Command::new(""));
        let variable = |arg: &Arg| Some(arg.get_env()?.to_str()?.to_owned());
        let defined: BTreeSet<String> = command.get_arguments().filter_map(variable).collect();
        let of_log = OptionName::LOG_FORMAT.variable();
        let known = Variables::all().0.into_iter();
        let known: BTreeSet<String> = known
            .filter(|name| *name != of_log)
            .map(str::to_owned)
            .collect();
        assert_eq!(known, defined);
    }

    #[test]
    fn other_variables_are_none_of_ours() {
        for name in [
            "NODEFWD_LISTEN",
            "NODEFWD_FORWARDS",
            "NODEFWD_COMMIT",
            "SRC_RANGES",
            "DEST_PORT",
            "PATH",
            "SRC_ROOT",
            "DEST_DIR",
            "KUBERNETES_SERVICE_HOST",
            "NODEFWD_SERVICE_HOST",
            "NODEFWD_SERVICE_PORT",
            "NODEFWD_SERVICE_PORT_HTTP",
            "NODEFWD_SERVICE_PORT_DNS_TCP",
            "NODEFWD_PORT",
            "NODEFWD_PORT_80_TCP",
            "NODEFWD_PORT_80_TCP_PROTO",
            "NODEFWD_PORT_80_TCP_PORT",
            "NODEFWD_PORT_53_UDP_ADDR",
            "NODEFWD_PORT_9_SCTP",
            "NODEFWD_WEB_SERVICE_HOST",
            "NODEFWD_WEB_PORT",
            "NODEFWD_WEB_2_PORT_443_TCP_ADDR",
        ] {
            assert_eq!(misspelled(name, &Variables::all().0), None, "{name}");
        }
    }
}
