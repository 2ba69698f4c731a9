//! Which flows are stale, and which are an instance's own.

use super::*;
use crate::config::{Family, Options};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::IpAddr;

const NODE: &str = "10.1.0.1";
const CLIENT: &str = "10.1.0.2";

fn config(forward: &str, change: impl FnOnce(&mut Options)) -> Config {
    let mut options = Options {
        forwards: vec![forward.into()],
        ..Options::default()
    };
    change(&mut options);
    Config::new(&options).unwrap()
}

fn flow(source: &str, service: &str, backend: Option<&str>) -> Flow {
    let (protocol, port) = service.split_once('/').unwrap();
    let backend: Option<std::net::SocketAddr> = backend.map(|backend| backend.parse().unwrap());
    let source: IpAddr = source.parse().unwrap();
    Flow {
        family: Family::of(source),
        protocol: protocol.parse().unwrap(),
        source,
        destination: NODE.parse().unwrap(),
        port: port.parse().unwrap(),
        backend: backend.map(|backend| (backend.ip(), backend.port())),
        masqueraded: backend.is_some(),
        source_port: 4000,
        replies_to: (source, 4000),
        replied: true,
    }
}

/// Whether the flow is stale, and whether it is forwarded.
fn matched(config: &Config, flow: Flow) -> (bool, bool) {
    let addresses = [
        (nix::libc::RTN_LOCAL, NODE),
        (nix::libc::RTN_LOCAL, "192.0.2.0/24"),
        (nix::libc::RTN_BROADCAST, "10.1.0.255"),
    ];
    let network = |text: &str| {
        text.parse()
            .unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
    };
    let addresses = addresses.map(|(kind, text)| (kind, network(text)));
    let addresses = addresses.into_iter().collect();
    let matcher = FlowMatcher::new(config, &addresses);
    (matcher.is_stale(&flow), matcher.is_forwarded(&flow))
}

#[test]
fn flows_that_bypassed_the_rules_are_stale() {
    let config = config("udp/53=10.2.0.11:5353", |_| ());
    assert_eq!(
        matched(&config, flow(CLIENT, "udp/53", None)),
        (true, false)
    );
    assert_eq!(
        matched(&config, flow(CLIENT, "udp/53", Some("10.2.0.11:5353"))),
        (false, true)
    );
    assert_eq!(
        matched(&config, flow(CLIENT, "udp/53", Some("10.2.0.12:5353"))),
        (true, true)
    );
    assert_eq!(
        matched(&config, flow(CLIENT, "udp/53", Some("10.2.0.11:53"))),
        (true, true)
    );
}

#[test]
fn flows_of_other_services_and_programs_are_neither() {
    let config = config("udp/53=10.2.0.11:5353", |_| ());
    assert_eq!(
        matched(&config, flow(CLIENT, "udp/54", None)),
        (false, false)
    );
    assert_eq!(
        matched(&config, flow(CLIENT, "tcp/53", None)),
        (false, false)
    );
    assert_eq!(matched(&config, flow(NODE, "udp/53", None)), (false, false));
    assert_eq!(
        matched(&config, flow("10.2.0.11", "udp/53", None)),
        (false, false)
    );
    let mut passing = flow(CLIENT, "udp/53", None);
    passing.destination = "10.9.0.1".parse().unwrap();
    assert_eq!(matched(&config, passing), (false, false));
}

#[test]
fn a_flow_from_a_source_that_is_no_longer_allowed_is_stale() {
    let config = config("tcp/80=10.2.0.11", |options| {
        options.src_ranges = Some("10.3.0.0/16".into())
    });
    assert_eq!(
        matched(&config, flow(CLIENT, "tcp/80", Some("10.2.0.11:80"))),
        (true, true)
    );
    assert_eq!(
        matched(&config, flow(CLIENT, "tcp/80", None)),
        (false, false)
    );
    assert_eq!(
        matched(&config, flow("10.3.0.9", "tcp/80", Some("10.2.0.11:80"))),
        (false, true)
    );
}

#[test]
fn ranges_are_forwarded_port_by_port() {
    let config = config("udp/100-110=10.2.0.11:200-210", |_| ());
    assert_eq!(
        matched(&config, flow(CLIENT, "udp/105", Some("10.2.0.11:205"))),
        (false, true)
    );
    assert_eq!(
        matched(&config, flow(CLIENT, "udp/105", Some("10.2.0.11:204"))),
        (true, true)
    );
    assert_eq!(
        matched(&config, flow(CLIENT, "udp/111", None)),
        (false, false)
    );
}

#[test]
fn with_hairpin_and_output_more_flows_are_stale() {
    let config = config("udp/53=10.2.0.11:5353", |options| {
        options.hairpin = Some("true".into());
        options.output = Some("true".into());
    });
    assert_eq!(
        matched(&config, flow("10.2.0.11", "udp/53", None)),
        (true, false)
    );
    assert_eq!(matched(&config, flow(NODE, "udp/53", None)), (true, false));
}

fn made_to(destination: &str, flow: Flow) -> Flow {
    Flow {
        destination: destination.parse().unwrap(),
        ..flow
    }
}

#[test]
fn own_addresses_are_those_of_the_local_table() {
    let config = config("udp/53=10.2.0.11:5353", |_| ());
    let bypassing = |destination| made_to(destination, flow(CLIENT, "udp/53", None));
    // A whole network is this host's own.
    assert_eq!(matched(&config, bypassing("192.0.2.5")), (true, false));
    assert_eq!(matched(&config, bypassing("192.0.3.5")), (false, false));
    // It was this host's when the connection was made.
    let forwarded = |backend| made_to("192.0.3.5", flow(CLIENT, "udp/53", Some(backend)));
    assert_eq!(matched(&config, forwarded("10.2.0.11:5353")), (false, true));
    assert_eq!(
        matched(&config, forwarded("10.2.0.12:5353")),
        (false, false)
    );
}

#[test]
fn broadcasts_and_multicasts_are_not_forwarded_by_listen_any() {
    let config = config("udp/53=10.2.0.11:5353", |options| {
        options.listen = Some("any".into())
    });
    let bypassing = |destination| made_to(destination, flow(CLIENT, "udp/53", None));
    assert_eq!(matched(&config, bypassing("10.9.0.1")), (true, false));
    for group in ["10.1.0.255", "255.255.255.255", "224.0.0.251"] {
        assert_eq!(matched(&config, bypassing(group)), (false, false));
    }
}

#[test]
fn connections_of_this_host_to_other_hosts_are_left_alone() {
    for (output, listen) in [("true", "any"), ("true", "10.9.0.1"), ("false", "any")] {
        let config = config("udp/53=10.2.0.11:5353", |options| {
            options.output = Some(output.into());
            options.listen = Some(listen.into());
        });
        let foreign = made_to("10.9.0.1", flow(NODE, "udp/53", None));
        assert_eq!(matched(&config, foreign), (false, false));
        let others = made_to("10.9.0.1", flow(NODE, "udp/53", Some("10.2.0.11:5353")));
        assert_eq!(matched(&config, others), (false, false));
    }
}

#[test]
fn a_flow_that_lacks_masquerading_is_stale() {
    let matched_with = |masquerade: &str, flow| {
        let config = config("udp/53=10.2.0.11:5353,192.0.2.5:5353", |options| {
            options.masquerade = Some(masquerade.into());
            options.output = Some("true".into());
        });
        matched(&config, flow)
    };
    let plain = |source, backend| Flow {
        masqueraded: false,
        ..flow(source, "udp/53", Some(backend))
    };
    assert_eq!(
        matched_with("true", plain(CLIENT, "10.2.0.11:5353")),
        (true, true)
    );
    assert_eq!(
        matched_with("false", plain(CLIENT, "10.2.0.11:5353")),
        (false, true)
    );
    // Another program may masquerade it.
    assert_eq!(
        matched_with("false", flow(CLIENT, "udp/53", Some("10.2.0.11:5353"))),
        (false, true)
    );
    // Within this host, it makes no difference.
    assert_eq!(
        matched_with("true", plain(CLIENT, "192.0.2.5:5353")),
        (false, true)
    );
    assert_eq!(
        matched_with("true", plain(NODE, "10.2.0.11:5353")),
        (false, true)
    );
}

/// Destinations of one forward that differ little from each other.
fn any_destinations() -> impl Strategy<Value = Vec<Destination>> {
    let destination = (1..6u8, 100..110u16, any::<bool>());
    let destination = destination.prop_map(|(host, first, is_range)| Destination {
        address: [10, 2, 0, host].into(),
        ports: (first, if is_range { first + 4 } else { first })
            .try_into()
            .unwrap(),
    });
    vec(destination, 1..12)
}

proptest! {
    #[test]
    fn destinations_are_found_as_by_looking_at_each(
        destinations in any_destinations(),
        flows in vec((1..6u8, 1..6u8, 100..116u16, 50..55u16), 1..20),
    ) {
        let list: Vec<String> = destinations.iter().map(Destination::to_string).collect();
        let other = "udp/60-64=10.2.0.5:100,10.2.0.5:105-109";
        let config = config(&format!("udp/50-54={} {other}", list.join(",")), |_| ());
        let addresses = Addresses::default();
        let matcher = FlowMatcher::new(&config, &addresses);
        for (source, host, to, port) in flows {
            let source = [10, 2, 0, source].into();
            let backend = (IpAddr::from([10, 2, 0, host]), to);
            let forwarded = config.forwards[0].service.ports;
            let leads = |of: &Destination| of.backend(forwarded, port) == backend;
            prop_assert_eq!(
                matcher.leads_to(0, port, backend),
                destinations.iter().any(leads)
            );
            let flow = Flow { source, ..flow(CLIENT, &format!("udp/{port}"), None) };
            let is_source = |of: &Destination| of.address == source;
            prop_assert_eq!(
                matcher.is_exempt(0, &flow),
                destinations.iter().any(is_source)
            );
        }
    }
}

/// Would take minutes if each flow were compared with each destination, source or address.
#[test]
fn many_flows_are_compared_with_many_destinations() {
    const MANY: u32 = 60_000;
    let address = |number: u32| IpAddr::from((number + (10 << 24)).to_be_bytes());
    let list = |from: u32, until: u32| -> String {
        let words: Vec<String> = (from..until)
            .map(|number| address(number).to_string())
            .collect();
        words.join(",")
    };
    let config = config(&format!("udp/53={}", list(0, MANY)), |options| {
        options.listen = Some(list(MANY, 2 * MANY).into());
    });
    let addresses = Addresses::default();
    let matcher = FlowMatcher::new(&config, &addresses);
    let flows = (0..10 * MANY).map(|number| Flow {
        destination: address(2 * MANY - 1),
        backend: Some((address(number), 53)),
        ..flow(CLIENT, "udp/53", Some("10.0.0.1:53"))
    });
    let stale = flows.filter(|flow| matcher.is_stale(flow) || !matcher.is_forwarded(flow));
    assert_eq!(stale.count(), 9 * MANY as usize);
}
