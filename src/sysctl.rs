//! Is forwarding on?

use crate::config::Family;
use std::{fs, io};
use thiserror::Error;

/// Why packets of a family are not forwarded.
#[derive(Debug, Error)]
pub enum ForwardingError {
    /// The switch is off.
    #[error("{family} forwarding is off: {file} is 0; turn it on with: sysctl -w {sysctl}=1")]
    Off {
        /// the family
        family: Family,
        /// the switch's file
        file: &'static str,
        /// the switch's name for sysctl(8)
        sysctl: &'static str,
    },
    /// The switch is not there.
    #[error(
        "{family} is not available: {file} does not exist; start the kernel with {family}, or leave the {family} destinations out"
    )]
    Missing {
        /// the family
        family: Family,
        /// the switch's file
        file: &'static str,
    },
    /// The switch cannot be read.
    #[error("cannot tell whether {family} forwarding is on: cannot read {file}")]
    Unreadable {
        /// the family
        family: Family,
        /// the switch's file
        file: &'static str,
        /// why
        #[source]
        error: io::Error,
    },
}

/// Whether this network namespace forwards packets of `family`: reads the switch that the kernel's
/// Documentation/networking/ip-sysctl.rst names. Any value but 0 counts as on.
pub fn forwarding(family: Family) -> Result<(), ForwardingError> {
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
