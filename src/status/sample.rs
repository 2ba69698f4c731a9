//! Instances for the tests of the formats.

use super::{
    DestinationStatus, FamilyStatus, ForwardStatus, Instance, LeftOut, OptionsStatus, Owner,
};
use crate::config::{Balance, Destination, Family, OptionName, Protocol, Service, closed};
use crate::lock::Holder;

/// When the owner started.
pub const SINCE: u64 = 1_700_000_000;

/// One instance with forwards of both families, and one whose names are no text that a terminal may get.
pub fn instances() -> Vec<Instance> {
    let mut down = destination("10.2.0.12", "8080", 0, Some((0, 0)));
    down.up = Some(false);
    let mut up = destination("10.2.0.11", "8080", 12, Some((3, 1)));
    up.up = Some(true);
    let web = Instance {
        netns: None,
        name: "web".into(),
        table: "nodefwd-web".into(),
        running: true,
        accepting: true,
        reload_failed: false,
        options: Some(OptionsStatus {
            src_ranges: Some(
                ["10.0.0.0/8", "::/0"]
                    .map(|text| text.parse().unwrap())
                    .into(),
            ),
            listen: "10.1.0.1,fd00::1".into(),
            balance: Some(Balance::Source),
            output: false,
            masquerade: false,
            fully_random: true,
            clamp_mss: false,
            hairpin: true,
            fast_path: ["eth0", "eth1"].map(str::to_owned).into(),
        }),
        left_out: Vec::new(),
        listen: vec!["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        interfaces: Vec::new(),
        owner: Some(Owner {
            portid: 4242,
            pid: Some(4242),
            process: Some("nodefwd".into()),
            since: Some(SINCE),
        }),
        holder: None,
        invalid: 2,
        truncated: false,
        too_many: None,
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
                destinations: vec![
                    up,
                    down,
                    DestinationStatus {
                        listed: false,
                        ..destination("10.2.0.9", "8080", 0, Some((2, 0)))
                    },
                ],
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
        netns: Some("pod\n1".into()),
        name: "odd\u{1b}\"".into(),
        table: "nodefwd-odd\u{1b}\"".into(),
        running: false,
        accepting: false,
        reload_failed: true,
        options: None,
        left_out: vec![LeftOut {
            family: Family::Ipv6,
            reason: closed(OptionName::LISTEN, Family::Ipv6),
        }],
        listen: Vec::new(),
        interfaces: vec!["eth1".parse().unwrap()],
        owner: None,
        holder: Some(Holder::None),
        invalid: 0,
        truncated: true,
        too_many: Some("forwards"),
        forwarding: Vec::new(),
        forwards: Vec::new(),
    };
    vec![web, odd]
}

/// With conntrack entries, if those are known, and how many of them have no reply.
fn destination(
    address: &str,
    ports: &str,
    connections: u64,
    entries: Option<(u64, u64)>,
) -> DestinationStatus {
    let to = Destination {
        address: address.parse().unwrap(),
        ports: ports.parse().unwrap(),
    };
    DestinationStatus {
        active: entries.map(|(active, _)| active),
        unanswered: entries.map(|(_, unanswered)| unanswered),
        ..DestinationStatus::new(to, connections)
    }
}
