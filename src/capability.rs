//! CAP_NET_ADMIN: all that reading and changing nftables and conntrack takes, and all that a running
//! instance keeps.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::sys::prctl;
use std::io;
use thiserror::Error;

/// The kernel has refused something with EPERM.
#[derive(Debug, Error)]
#[error(
    "not permitted to read or change nftables: CAP_NET_ADMIN is missing; run as root, or grant it: in a container with --cap-add=NET_ADMIN (Kubernetes: securityContext.capabilities.add: [NET_ADMIN]), in a systemd unit with AmbientCapabilities=CAP_NET_ADMIN"
)]
pub struct MissingNetAdmin;

/// Fails without CAP_NET_ADMIN.
pub fn check_net_admin() -> Result<(), MissingNetAdmin> {
    match caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN) {
        Ok(true) => Ok(()),
        _ => Err(MissingNetAdmin),
    }
}

/// Why privileges could not be given up.
#[derive(Debug, Error)]
pub enum CapabilityError {
    #[error("cannot drop capabilities")]
    Drop(#[from] CapsError),
    #[error("cannot set no_new_privs")]
    NoNewPrivileges(#[source] io::Error),
}

/// Gives up all capabilities but CAP_NET_ADMIN (capabilities(7)), also for programs that this process
/// might be made to start, and the means to get any back.
pub fn keep_net_admin_only() -> Result<(), CapabilityError> {
    // To empty the bounding set takes CAP_SETPCAP, which a container seldom has.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)? {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let kept = CapsHashSet::from([Capability::CAP_NET_ADMIN]);
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    prctl::set_no_new_privs().map_err(|errno| CapabilityError::NoNewPrivileges(errno.into()))
}
