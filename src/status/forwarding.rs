//! Whether this host forwards what an instance has rules for.

use super::ForwardStatus;
use super::options::FamilySources;
use crate::config::{Allowed, Family, Listen};
use crate::logging::with_causes;
use crate::nftables::list::Table;
use crate::nftables::{Nftables, NftablesError};
use crate::siblings;
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

/// Those of an instance with this table and these forwards, to which these sources may connect.
pub fn families(
    nftables: &Nftables,
    table: &Table,
    sources: &FamilySources,
    forwards: &[ForwardStatus],
) -> Result<Vec<FamilyStatus>, NftablesError> {
    let destinations = forwards.iter().flat_map(|forward| &forward.destinations);
    let of_ipv4 = sources.iter().find(|(family, _)| *family == Family::Ipv4);
    let needs = Needs {
        listen: listen(nftables, &table.name)?,
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
    Ok(needs.families.iter().map(status).collect())
}

/// What it listens on, as far as that decides where clients come in.
fn listen(nftables: &Nftables, table: &str) -> Result<Listen, NftablesError> {
    let addresses = siblings::listen_addresses(nftables, table)?;
    let interfaces = siblings::listen_interfaces(nftables, table)?;
    Ok(if addresses.is_empty() && interfaces.is_empty() {
        Listen::Local
    } else {
        Listen::Only {
            addresses,
            interfaces,
        }
    })
}
