//! Which families this host forwards.

mod needs;

pub use needs::Needs;

use crate::config::{Config, Family};
use std::{fs, io};
use thiserror::Error;

/// Why this host does not forward a family.
#[derive(Debug, Error)]
pub enum ForwardingError {
    #[error("{family} forwarding is off: {file} is 0; turn it on with: sysctl -w {sysctl}=1")]
    Off {
        family: Family,
        file: &'static str,
        sysctl: &'static str,
    },
    #[error(
        "{family} is not available: {file} does not exist; start the kernel with {family}, or leave the {family} destinations out"
    )]
    Missing { family: Family, file: &'static str },
    #[error("cannot tell whether {family} forwarding is on: cannot read {file}")]
    Unreadable {
        family: Family,
        file: &'static str,
        #[source]
        error: io::Error,
    },
    #[error(
        "IPv4 forwarding is off for packets that come in on {interface}: turn it on with: sysctl -w {}",
        sysctl_of(interface, "forwarding=1")
    )]
    Interface { interface: String },
}

/// An interface's setting, as sysctl(8) takes it: in the name of a VLAN's interface there is a dot, which
/// it takes for a slash.
pub fn sysctl_of(interface: &str, setting: &str) -> String {
    let interface = interface.replace('.', "/");
    format!("net.ipv4.conf.{interface}.{setting}")
}

impl ForwardingError {
    /// A family's switch is off.
    fn off(family: Family) -> Self {
        let (file, sysctl) = switch(family);
        ForwardingError::Off {
            family,
            file,
            sysctl,
        }
    }

    /// The family that is not forwarded.
    pub fn family(&self) -> Family {
        match self {
            ForwardingError::Off { family, .. }
            | ForwardingError::Missing { family, .. }
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

/// The switch that the kernel's Documentation/networking/ip-sysctl.rst names: its file, and its name for
/// sysctl(8).
fn switch(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => ("/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
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

/// Whether this network namespace forwards packets of `family`. Any value but 0 counts as on.
fn forwarding(family: Family) -> Result<(), ForwardingError> {
    let (file, _) = switch(family);
    match fs::read_to_string(file) {
        Ok(value) if value.trim() == "0" => Err(ForwardingError::off(family)),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ForwardingError::Missing { family, file })
        }
        Err(error) => Err(ForwardingError::Unreadable {
            family,
            file,
            error,
        }),
    }
}
