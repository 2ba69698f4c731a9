//! `NODEFWD_FAST_PATH`: on which interfaces connections would take the fast path here and now, and why they do not.

use crate::config::{Config, FastPath, InterfaceName, first_few};
use crate::logging::with_causes;
use crate::nftables::list::{self, FlowtableInfo};
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::{Interface, Routes, RtnetlinkError};
use std::fs;
use thiserror::Error;

/// An interface, as it was when it was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub name: InterfaceName,
    /// Another interface of that name has another one.
    pub index: u32,
}

/// What an instance can do at this moment.
#[derive(Debug, Default)]
pub struct Plan {
    /// On none of them if there is no fast path.
    pub devices: Vec<Device>,
    /// Those of the option that are not there.
    pub missing: Vec<InterfaceName>,
    /// Why `auto` leaves all connections on the usual path.
    pub without: Option<String>,
}

#[derive(Debug, Error)]
enum PlanError {
    #[error(transparent)]
    Nftables(#[from] NftablesError),
    #[error(transparent)]
    Routes(#[from] RtnetlinkError),
}

/// With so many other flowtables on the same interfaces `auto` adds none: each looks at every packet. Beside 9 nothing is
/// left of what one gains, and beside 49 a third passes of what passes without (benches/README.md).
const MAX_OTHERS: usize = 10;

/// Before this version, flows in a flowtable go on when forwarding is switched off, or their route is gone, and those
/// of VLANs and bridges are not taken.
const FIRST_KERNEL: (u32, u32) = (5, 13);

/// From this version on, packets of a flowtable go to the hardware address that the neighbour entry of their next hop
/// has, and none is looked up (nf_flow_offload_ip_hook in net/netfilter/nf_flow_table_ip.c): once the entry is gone, as
/// stale ones go where there are more than net.ipv4.neigh.default.gc_thresh1, they are lost for good.
const LOSES_NEIGHBOURS: (u32, u32) = (6, 19);

/// What can be done for this config. Without a socket to nftables, other flowtables are not counted.
pub fn plan(config: &Config, nftables: Option<&Nftables>) -> Plan {
    let planned = match &config.fast_path {
        _ if !config.wants_fast_path() => Ok(Plan::default()),
        FastPath::Off => Ok(Plan::default()),
        FastPath::Interfaces(names) => listed(names),
        FastPath::Auto => automatic(config, nftables),
    };
    planned.unwrap_or_else(|error| without(with_causes(&error)))
}

/// The interfaces of the option, or of `auto`, whether they are there or not: what `render` prints.
pub fn names(config: &Config) -> Vec<InterfaceName> {
    match &config.fast_path {
        FastPath::Interfaces(names) => names.clone(),
        _ => plan(config, None).names().collect(),
    }
}

impl Plan {
    /// The names of the interfaces.
    pub fn names(&self) -> impl Iterator<Item = InterfaceName> {
        self.devices.iter().map(|device| device.name)
    }
}

/// The interfaces that lead to destinations, and those below them, if a list has none of these.
pub fn unlisted(config: &Config) -> Result<Vec<InterfaceName>, RtnetlinkError> {
    let FastPath::Interfaces(listed) = &config.fast_path else {
        return Ok(Vec::new());
    };
    let mut unlisted = Vec::new();
    for carriers in Routes::of(&config.listen)?.destination_carriers(config)? {
        let names = carriers.iter().filter_map(|it| it.name.parse().ok());
        let names: Vec<InterfaceName> = names.collect();
        if !names.iter().any(|name| listed.contains(name)) {
            unlisted.extend(names);
        }
    }
    Ok(unlisted)
}

/// Those that are there still, under the same name.
pub fn still_there(devices: &[Device]) -> Result<Vec<Device>, RtnetlinkError> {
    let routes = Routes::open()?;
    let mut kept = Vec::new();
    for device in devices {
        let found = routes.interface(device.index)?;
        kept.extend(
            found
                .as_ref()
                .and_then(device_of)
                .filter(|found| found == device),
        );
    }
    Ok(kept)
}

/// Leaves out the names that no interface has any more.
pub fn forget_missing(names: &mut Vec<InterfaceName>) -> Result<(), RtnetlinkError> {
    let routes = Routes::open()?;
    let mut kept = Vec::new();
    for name in names.iter() {
        kept.extend(routes.index_of(name)?.map(|_| *name));
    }
    *names = kept;
    Ok(())
}

fn without(reason: String) -> Plan {
    Plan {
        without: Some(reason),
        ..Plan::default()
    }
}

fn device_of(interface: &Interface) -> Option<Device> {
    Some(Device {
        name: interface.name.parse().ok()?,
        index: interface.index,
    })
}

fn listed(names: &[InterfaceName]) -> Result<Plan, PlanError> {
    let routes = Routes::open()?;
    let mut plan = Plan::default();
    for name in names {
        match routes.index_of(name)? {
            Some(index) => plan.devices.push(Device { name: *name, index }),
            None => plan.missing.push(*name),
        }
    }
    Ok(plan)
}

fn automatic(config: &Config, nftables: Option<&Nftables>) -> Result<Plan, PlanError> {
    if let Some(reason) = kernel().and_then(defect) {
        return Ok(without(reason));
    }
    let interfaces = Routes::of(&config.listen)?.carriers(config)?;
    let devices: Vec<Device> = interfaces.iter().filter_map(device_of).collect();
    if devices.is_empty() {
        return Ok(without("no interface is known to carry them".into()));
    }
    let others = match nftables {
        Some(nftables) => others(&nftables.list(list::flowtables)?, config, &devices),
        None => 0,
    };
    if others >= MAX_OTHERS {
        let names: Vec<InterfaceName> = devices.iter().map(|device| device.name).collect();
        let reason = format!(
            "{others} other flowtables take packets of {} already, and each more makes all of them slower",
            first_few(names.iter())
        );
        return Ok(without(reason));
    }
    Ok(Plan {
        devices,
        ..Plan::default()
    })
}

/// What is wrong with the flowtables of this version.
fn defect(kernel: (u32, u32)) -> Option<String> {
    if kernel < FIRST_KERNEL {
        let (major, minor) = FIRST_KERNEL;
        Some(format!(
            "before Linux {major}.{minor}, connections in a flowtable go on when forwarding is switched off"
        ))
    } else if kernel >= LOSES_NEIGHBOURS {
        let (major, minor) = LOSES_NEIGHBOURS;
        Some(format!(
            "since Linux {major}.{minor}, packets of connections in a flowtable are lost once the neighbour entry of their next hop is gone"
        ))
    } else {
        None
    }
}

/// What is wrong with those of this kernel, where a list has connections take the fast path all the same.
pub fn risk(config: &Config) -> Option<String> {
    let is_listed = matches!(config.fast_path, FastPath::Interfaces(_));
    kernel().filter(|_| is_listed).and_then(defect)
}

/// How many flowtables of others look at packets of one of these interfaces.
fn others(flowtables: &[FlowtableInfo], config: &Config, devices: &[Device]) -> usize {
    let own = config.name.table();
    let shares = |flowtable: &&FlowtableInfo| {
        let mut names = flowtable.devices.iter();
        let is_one = |name: &String| devices.iter().any(|it| it.name.to_string() == *name);
        flowtable.table.name != own && names.any(is_one)
    };
    flowtables.iter().filter(shares).count()
}

/// The first two numbers of the kernel's version, if it has such.
fn kernel() -> Option<(u32, u32)> {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;
    use crate::nftables::list::Table;

    #[test]
    fn auto_does_without_on_kernels_whose_flowtables_have_a_defect() {
        assert_eq!(version("6.12.117-amd64\n"), Some((6, 12)));
        assert_eq!(version("7.3-rc1"), Some((7, 3)));
        assert_eq!(version("unknown"), None);
        let of = |release| version(release).and_then(defect);
        assert!(of("5.10.0-30").is_some_and(|defect| defect.starts_with("before Linux 5.13")));
        for release in ["5.13.0", "6.12.117-amd64", "6.18.44"] {
            assert_eq!(of(release), None, "{release}");
        }
        for release in ["6.19.0", "7.2.13+deb14-amd64"] {
            let defect = of(release).expect(release);
            assert!(defect.starts_with("since Linux 6.19"), "{defect}");
        }
    }

    #[test]
    fn flowtables_of_others_on_the_same_interfaces_count() {
        let config = Config::new(&Options {
            forwards: vec!["tcp/80=10.2.0.11".into()],
            ..Options::default()
        });
        let flowtable = |table: &str, device: &str| FlowtableInfo {
            table: Table::inet(table),
            name: "fast-path".into(),
            devices: vec![device.into()],
        };
        let own = "nodefwd-tcp-80";
        let found = [
            flowtable(own, "eth0"),
            flowtable("nodefwd-tcp-81", "eth0"),
            flowtable("other", "eth0"),
            flowtable("other", "eth1"),
        ];
        let device = Device {
            name: "eth0".parse().unwrap(),
            index: 2,
        };
        assert_eq!(others(&found, &config.unwrap(), &[device]), 2);
    }
}
