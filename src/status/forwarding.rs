//! Whether this host forwards what an instance has rules for.

use super::ForwardStatus;
use super::options::FamilySources;
use crate::config::{Allowed, Family, Listen};
use crate::logging::with_causes;
use crate::siblings::Listening;
use crate::sysctl::Needs;
use serde::Serialize;

/// Whether this host forwards a family that an instance has rules for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FamilyStatus {
    pub family: Family,
    /// Whether its packets are forwarded, from all interfaces that are needed.
    pub on: bool,
    /// Why not, and what to do.
    pub reason: Option<String>,
}

/// Those of an instance that listens there and has these forwards, to which these sources may connect.
pub fn families(
    listening: &Listening,
    sources: &FamilySources,
    forwards: &[ForwardStatus],
) -> Vec<FamilyStatus> {
    let destinations = forwards.iter().flat_map(|forward| &forward.destinations);
    let of_ipv4 = sources.iter().find(|(family, _)| *family == Family::Ipv4);
    let needs = Needs {
        listen: listen(listening),
        sources: of_ipv4.map_or(Allowed::None, |(_, allowed)| allowed.clone()),
        destinations: Needs::some(destinations.map(|destination| destination.to.address)),
        families: sources.iter().map(|(family, _)| *family).collect(),
    };
    let unmet = needs.unmet();
    let reasons = |family: Family| match &unmet {
        Ok(unmet) => {
            let unmet = unmet.iter().filter(|error| error.family() == family);
            unmet.map(ToString::to_string).collect()
        }
        // What is not known is not said to be on.
        Err(error) => vec![with_causes(error)],
    };
    let status = |family: &Family| {
        let reasons: Vec<String> = reasons(*family);
        FamilyStatus {
            family: *family,
            on: reasons.is_empty(),
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        }
    };
    needs.families.iter().map(status).collect()
}

/// What it listens on, as far as that decides where clients come in.
fn listen(listening: &Listening) -> Listen {
    let Listening {
        addresses,
        interfaces,
    } = listening.clone();
    if addresses.is_empty() && interfaces.is_empty() {
        Listen::Local
    } else {
        Listen::Only {
            addresses,
            interfaces,
        }
    }
}
