//! Which families this host forwards.

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
}

impl ForwardingError {
    /// The family that is not forwarded.
    pub fn family(&self) -> Family {
        match self {
            ForwardingError::Off { family, .. }
            | ForwardingError::Missing { family, .. }
            | ForwardingError::Unreadable { family, .. } => *family,
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

/// Whether this network namespace forwards packets of `family`: reads the switch that the kernel's
/// Documentation/networking/ip-sysctl.rst names. Any value but 0 counts as on.
fn forwarding(family: Family) -> Result<(), ForwardingError> {
    let (file, sysctl) = match family {
        Family::Ipv4 => ("/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        Family::Ipv6 => (
            "/proc/sys/net/ipv6/conf/all/forwarding",
            "net.ipv6.conf.all.forwarding",
        ),
    };
    match fs::read_to_string(file) {
        Ok(value) if value.trim() == "0" => Err(ForwardingError::Off {
            family,
            file,
            sysctl,
        }),
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
