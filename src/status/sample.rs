//! Instances that the formats' tests write.

use super::{DestinationStatus, ForwardStatus, Instance, Owner};
use crate::config::{Destination, Family, Protocol};

/// When the owner started.
pub const SINCE: u64 = 1_700_000_000;

pub fn instances() -> Vec<Instance> {
    let web = Instance {
        name: "web".into(),
        table: "nodefwd-web".into(),
        open: true,
        listen: vec!["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        owner: Some(Owner {
            port: 4242,
            pid: Some(4242),
            process: Some("nodefwd".into()),
            since: Some(SINCE),
        }),
        forwards: vec![
            ForwardStatus {
                protocol: Protocol::Tcp,
                family: Family::Ipv4,
                ports: 80.into(),
                denied: 5,
                destinations: vec![
                    destination("10.2.0.11", "8080", 12, Some(3)),
                    destination("10.2.0.12", "8080", 0, Some(0)),
                ],
            },
            ForwardStatus {
                protocol: Protocol::Tcp,
                family: Family::Ipv6,
                ports: "8000-8100".parse().unwrap(),
                denied: 0,
                destinations: vec![destination("fd00:2::11", "9-109", 123_456, None)],
            },
        ],
    };
    let odd = Instance {
        name: "odd\u{1b}\"".into(),
        table: "nodefwd-odd\u{1b}\"".into(),
        open: false,
        listen: Vec::new(),
        owner: None,
        forwards: Vec::new(),
    };
    vec![web, odd]
}

fn destination(address: &str, ports: &str, taken: u64, flows: Option<u64>) -> DestinationStatus {
    DestinationStatus {
        to: Destination {
            address: address.parse().unwrap(),
            ports: ports.parse().unwrap(),
        },
        taken,
        flows,
    }
}
