//! Once the rules are in, the program needs CAP_NET_ADMIN to take them out, and nothing else.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::sys::prctl;
use std::io;
use thiserror::Error;

/// Why privileges could not be given up.
#[derive(Debug, Error)]
pub enum PrivilegesError {
    /// Capabilities.
    #[error("cannot drop capabilities")]
    Capabilities(#[from] CapsError),
    /// `no_new_privs`
    #[error("cannot set no_new_privs")]
    NoNewPrivileges(#[source] io::Error),
}

/// Gives up all capabilities but CAP_NET_ADMIN, also for programs that this one might be made to
/// start (capabilities(7)), and the means to get any back.
pub fn keep_net_admin() -> Result<(), PrivilegesError> {
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
    prctl::set_no_new_privs().map_err(|errno| PrivilegesError::NoNewPrivileges(errno.into()))
}
