//! What two instances both claim, and who has a table.

use super::*;
use crate::nftables::list::ElementKind;
use proptest::prelude::*;

fn element(key: &[u8], key_end: &[u8]) -> Element {
    Element {
        kind: ElementKind::Key,
        key: key.to_vec(),
        key_end: Some(key_end.to_vec()),
        data: None,
        packets: None,
    }
}

#[test]
fn keys_read_back() {
    let ports = element(&[0, 53, 0, 0, 17, 0, 0, 0], &[0, 60, 0, 0, 17, 0, 0, 0]);
    let service = service(Family::Ipv4, &ports);
    assert_eq!(service.unwrap().to_string(), "udp/53-60 over IPv4");
}

fn claims(ports: &str, addresses: &[&str]) -> Claims {
    Claims {
        services: vec![Service {
            family: Family::Ipv4,
            protocol: Protocol::Tcp,
            ports: ports.parse().unwrap(),
        }],
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        interfaces: Vec::new(),
    }
}

#[test]
fn only_what_both_claim_is_a_conflict() {
    let all = claims("80", &[]);
    assert_eq!(all.conflict(&claims("79-81", &[])), Some(all.services[0]));
    assert_eq!(
        all.conflict(&claims("80", &["10.0.0.1"])),
        Some(all.services[0])
    );
    assert_eq!(all.conflict(&claims("81", &[])), None);
    let one = claims("80", &["10.0.0.1"]);
    assert_eq!(
        one.conflict(&claims("80", &["10.0.0.1", "10.0.0.2"])),
        Some(one.services[0])
    );
    assert_eq!(one.conflict(&claims("80", &["10.0.0.2"])), None);

    let mut other_family = claims("80", &[]);
    other_family.services[0].family = Family::Ipv6;
    let mut other_protocol = claims("80", &[]);
    other_protocol.services[0].protocol = Protocol::Udp;
    assert_eq!(all.conflict(&other_family), None);
    assert_eq!(all.conflict(&other_protocol), None);
}

#[test]
fn the_same_interface_is_a_conflict_and_so_is_an_address_that_may_be_reached_over_it() {
    let on = |names: &[&str]| Claims {
        interfaces: names.iter().map(|name| name.parse().unwrap()).collect(),
        ..claims("80", &[])
    };
    let conflicts = |one: &Claims, two: &Claims| {
        assert_eq!(one.conflict(two), two.conflict(one));
        one.conflict(two).is_some()
    };
    assert!(!conflicts(&on(&["eth0"]), &on(&["eth1", "eth2"])));
    assert!(conflicts(&on(&["eth0"]), &on(&["eth1", "eth0"])));
    assert!(conflicts(&on(&["eth0"]), &claims("80", &[])));
    assert!(conflicts(&on(&["eth0"]), &claims("80", &["10.0.0.1"])));
    assert!(!conflicts(&on(&["eth0"]), &claims("80", &["fd00::1"])));
}

/// Would take minutes if each were compared with each: services, or addresses for each service.
#[test]
fn many_claims_are_compared_with_many() {
    let claims = |first: u16, network: u32| Claims {
        services: (first..=u16::MAX)
            .step_by(2)
            .map(|port| Service {
                family: Family::Ipv4,
                protocol: Protocol::Tcp,
                ports: port.into(),
            })
            .collect(),
        addresses: (network..network + 100_000)
            .map(|number| IpAddr::from(number.to_be_bytes()))
            .collect(),
        interfaces: Vec::new(),
    };
    let (odd, even) = (claims(1, 1 << 24), claims(2, (1 << 24) + 99_999));
    assert_eq!(odd.conflict(&even), None);
    assert_eq!(odd.conflict(&claims(1, 1 << 25)), None);
    assert_eq!(odd.conflict(&odd), Some(odd.services[0]));
}

#[test]
fn a_table_without_an_owner_may_still_have_a_holder() {
    let table = TableInfo {
        name: "nodefwd-web".into(),
        owner: None,
        handle: None,
    };
    assert_eq!(
        whose(&table, Holder::None),
        "without an owner: remove it with nft delete table inet nodefwd-web"
    );
    assert_eq!(
        whose(&table, Holder::Process(u32::MAX)),
        format!("held by process {}: stop that one", u32::MAX)
    );
    assert_eq!(
        whose(&table, Holder::Unseen),
        "held by a process that cannot be seen from here: stop that one"
    );
}

proptest! {
    #[test]
    fn no_key_panics(first: Vec<u8>, last: Vec<u8>) {
        service(Family::Ipv6, &element(&first, &last));
    }
}
