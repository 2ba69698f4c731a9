//! Which families this host forwards.

mod fix;
mod needs;

pub use fix::{Fix, accept_advertisements};
pub use needs::Needs;

use crate::config::{Config, Family};
use crate::text::interface_sysctl;
use std::path::Path;
use std::{fs, io};
use thiserror::Error;

/// What goes before the command, or the setting, that turns forwarding on.
pub const TURN_ON: &str = "turn it on with: ";

/// Why this host does not forward a family.
#[derive(Debug, Error)]
pub enum ForwardingError {
    #[error("{family} forwarding is off: {file} is 0; {TURN_ON}{}", fix.text())]
    Off {
        family: Family,
        file: &'static str,
        fix: Fix,
    },
    #[error(
        "{family} is not available: {file} does not exist; start the kernel with {family}, or leave the {family} destinations out"
    )]
    Missing { family: Family, file: &'static str },
    #[error(
        "cannot tell whether {family} forwarding is on: {file} is hidden, as {why}; let this process see it, and turn it on with: sysctl -w {sysctl}=1"
    )]
    Hidden {
        family: Family,
        file: &'static str,
        sysctl: &'static str,
        why: &'static str,
    },
    #[error("cannot tell whether {family} forwarding is on: cannot read {file}")]
    Unreadable {
        family: Family,
        file: &'static str,
        #[source]
        error: io::Error,
    },
    #[error(
        "IPv4 forwarding is off for packets that come in on {interface}{}",
        with_sysctl(": turn it on", interface, "forwarding=1")
    )]
    Interface { interface: String },
}

/// The end of a message: what to do with a setting of an interface, and how. Empty if no command can name the
/// interface.
pub fn with_sysctl(what: &str, interface: &str, setting: &str) -> String {
    let command = interface_sysctl(interface, setting);
    command.map_or(String::new(), |setting| {
        format!("{what} with: sysctl -w {setting}")
    })
}

impl ForwardingError {
    /// The command that turns it on, if one does.
    pub fn fix(&self) -> Option<String> {
        match self {
            ForwardingError::Off { fix, .. } => fix.command(),
            ForwardingError::Interface { interface } => {
                let setting = interface_sysctl(interface, "forwarding=1")?;
                Some(format!("sysctl -w {setting}"))
            }
            _ => None,
        }
    }

    /// A family's switch is off.
    fn off(family: Family) -> Self {
        let (file, sysctl) = switch(family);
        let fix = Fix::of(family, sysctl);
        ForwardingError::Off { family, file, fix }
    }

    /// The family that is not forwarded.
    pub fn family(&self) -> Family {
        match self {
            ForwardingError::Off { family, .. }
            | ForwardingError::Missing { family, .. }
            | ForwardingError::Hidden { family, .. }
            | ForwardingError::Unreadable { family, .. } => *family,
            ForwardingError::Interface { .. } => Family::Ipv4,
        }
    }
}

/// Which families of a config this host forwards.
pub struct Forwarding {
    pub on: Vec<Family>,
    pub off: Vec<ForwardingError>,
    /// Whether any family that is on has forwards that can be reached.
    pub can_forward: bool,
}

impl Forwarding {
    /// Looks at the families that have forwards.
    pub fn of(config: &Config) -> Self {
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            if config.has_forwards(family) {
                match forwarding(family) {
                    Ok(()) => on.push(family),
                    Err(error) => off.push(error),
                }
            }
        }
        let can_forward = on.iter().any(|family| config.forwards_family(*family));
        Forwarding {
            on,
            off,
            can_forward,
        }
    }

    /// Whether an instance starts: with `strict`, no family may be off.
    pub fn suffices(&self, strict: bool) -> bool {
        self.can_forward && (self.off.is_empty() || !strict)
    }
}

/// Why this process does not see the switch of a family; `None` if the kernel lacks the family.
fn hidden(family: Family) -> Option<&'static str> {
    let is_there = |file| Path::new(file).exists();
    if !is_there("/proc/self") {
        Some("/proc is not mounted here")
    } else if !is_there("/proc/sys") {
        Some(
            "/proc is mounted without /proc/sys (subset=pid; in a systemd unit ProcSubset=all shows it)",
        )
    } else if family == Family::Ipv4 || is_there(IF_INET6) {
        Some(MOUNTED_OVER)
    } else {
        None
    }
}

const MOUNTED_OVER: &str = "something is mounted over a part of /proc/sys";

/// What a kernel with IPv6 has apart from its switch (ipv6(7)).
const IF_INET6: &str = "/proc/thread-self/net/if_inet6";

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The switch that the kernel's Documentation/networking/ip-sysctl.rst names: its file, and its name for
/// sysctl(8).
fn switch(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => (IP_FORWARD, "net.ipv4.ip_forward"),
        Family::Ipv6 => (
            "/proc/sys/net/ipv6/conf/all/forwarding",
            "net.ipv6.conf.all.forwarding",
        ),
    }
}

/// Whether this network namespace forwards packets of `family`.
pub fn is_on(family: Family) -> bool {
    forwarding(family).is_ok()
}

/// Why this network namespace does not forward packets of `family`, if it does not.
pub fn problem(family: Family) -> Option<ForwardingError> {
    forwarding(family).err()
}

/// Whether this network namespace forwards packets of `family`. Any number but 0 counts as on.
fn forwarding(family: Family) -> Result<(), ForwardingError> {
    let (file, sysctl) = switch(family);
    let hidden_as = |why| ForwardingError::Hidden {
        family,
        file,
        sysctl,
        why,
    };
    match fs::read_to_string(file) {
        Ok(value) => match value.trim().parse::<i32>() {
            Ok(0) => Err(ForwardingError::off(family)),
            Ok(_) => Ok(()),
            Err(_) => Err(hidden_as(MOUNTED_OVER)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(match hidden(family) {
            None => ForwardingError::Missing { family, file },
            Some(why) => hidden_as(why),
        }),
        Err(error) => Err(ForwardingError::Unreadable {
            family,
            file,
            error,
        }),
    }
}
