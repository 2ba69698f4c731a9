//! CAP_NET_ADMIN: all that reading and changing nftables and conntrack takes, and all that a running
//! instance keeps.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::sys::prctl;
use std::io;
use thiserror::Error;

/// The kernel has refused something with EPERM: why, by the sets of capabilities(7) that have
/// CAP_NET_ADMIN.
#[derive(Debug, Error)]
pub enum MissingNetAdmin {
    #[error(
        "not permitted to read or change nftables: CAP_NET_ADMIN is missing; run as root, or grant it: in a container with --cap-add=NET_ADMIN (Kubernetes: securityContext.capabilities.add: [NET_ADMIN]), in a systemd unit with AmbientCapabilities=CAP_NET_ADMIN"
    )]
    NotGranted,
    /// As for every user but root, and in a container that runs as one.
    #[error(
        "not permitted to read or change nftables: CAP_NET_ADMIN is only in the bounding set of this process, from which a user other than root has no use of it; run as root (Kubernetes: securityContext.runAsUser: 0 and no runAsNonRoot, since containerd and CRI-O grant other users no ambient capabilities), in a systemd unit with AmbientCapabilities=CAP_NET_ADMIN"
    )]
    BoundingSetOnly,
    #[error(
        "not permitted to read or change nftables: CAP_NET_ADMIN is permitted, but not effective; give the program's file the effective flag too: setcap cap_net_admin=ep"
    )]
    NotEffective,
    #[error(
        "not permitted to read or change nftables: this process has CAP_NET_ADMIN, but not over this network namespace, which belongs to another user namespace; start it in that one, as root of the host (not rootless; Kubernetes: hostUsers: true)"
    )]
    OtherUserNamespace,
}

impl MissingNetAdmin {
    /// Looks at this process's sets. To be called when something was refused.
    pub fn find() -> Self {
        let has = |set| caps::has_cap(None, set, Capability::CAP_NET_ADMIN).unwrap_or(false);
        if has(CapSet::Effective) {
            MissingNetAdmin::OtherUserNamespace
        } else if has(CapSet::Permitted) {
            MissingNetAdmin::NotEffective
        } else if has(CapSet::Bounding) {
            MissingNetAdmin::BoundingSetOnly
        } else {
            MissingNetAdmin::NotGranted
        }
    }
}

/// Fails without CAP_NET_ADMIN.
pub fn check_net_admin() -> Result<(), MissingNetAdmin> {
    match caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN) {
        Ok(true) => Ok(()),
        _ => Err(MissingNetAdmin::find()),
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
