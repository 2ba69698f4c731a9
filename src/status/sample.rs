//! Instances for the tests of the formats.

use super::{DestinationStatus, FamilyStatus, ForwardStatus, Instance, Owner};
use crate::config::{Destination, Family, Protocol, Service};

/// When the owner started.
pub const SINCE: u64 = 1_700_000_000;

/// One instance with forwards of both families, and one whose names are no text that a terminal may get.
pub fn instances() -> Vec<Instance> {
    let mut down = destination("10.2.0.12", "8080", 0, Some(0));
    down.up = Some(false);
    let mut up = destination("10.2.0.11", "8080", 12, Some(3));
    up.up = Some(true);
    let web = Instance {
        name: "web".into(),
        table: "nodefwd-web".into(),
        accepting: true,
        reload_failed: false,
        listen: vec!["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        interfaces: Vec::new(),
        owner: Some(Owner {
            portid: 4242,
            pid: Some(4242),
            process: Some("nodefwd".into()),
            since: Some(SINCE),
        }),
        invalid: 2,
        truncated: false,
        forwarding: vec![
            FamilyStatus {
                family: Family::Ipv4,
                on: true,
                reason: None,
            },
            FamilyStatus {
                family: Family::Ipv6,
                on: false,
                reason: Some("IPv6 forwarding is off".into()),
            },
        ],
        forwards: vec![
            ForwardStatus {
                service: Service {
                    family: Family::Ipv4,
                    protocol: Protocol::Tcp,
                    ports: 80.into(),
                },
                dropped: 5,
                destinations: vec![up, down],
            },
            ForwardStatus {
                service: Service {
                    family: Family::Ipv6,
                    protocol: Protocol::Tcp,
                    ports: "8000-8100".parse().unwrap(),
                },
                dropped: 0,
                destinations: vec![destination("fd00:2::11", "9-109", 123_456, None)],
            },
        ],
    };
    let odd = Instance {
        name: "odd\u{1b}\"".into(),
        table: "nodefwd-odd\u{1b}\"".into(),
        accepting: false,
        reload_failed: true,
        listen: Vec::new(),
        interfaces: vec!["eth1".parse().unwrap()],
        owner: None,
        invalid: 0,
        truncated: true,
        forwarding: Vec::new(),
        forwards: Vec::new(),
    };
    vec![web, odd]
}

fn destination(
    address: &str,
    ports: &str,
    connections: u64,
    active: Option<u64>,
) -> DestinationStatus {
    DestinationStatus {
        to: Destination {
            address: address.parse().unwrap(),
            ports: ports.parse().unwrap(),
        },
        connections,
        active,
        up: None,
    }
}
