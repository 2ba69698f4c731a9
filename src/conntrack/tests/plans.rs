//! Every way of asking gives the same flows, whatever else the kernel's table holds.

use super::super::dump::{by_port, by_protocol, plan, whole};
use super::*;
use crate::netns::in_own_namespace;
use std::cell::Cell;
use std::io::Write;
use std::process::{Command, Stdio};

/// The ports that the entries are made to: of services, beside them, and of others.
const PORTS: [u16; 8] = [52, 53, 54, 80, 100, 105, 110, 111];

fn wanted(protocol: Protocol, ports: &str, which: Which) -> Vec<Wanted> {
    let services = Family::ALL.map(|family| Service {
        family,
        protocol,
        ports: ports.parse().unwrap(),
    });
    services.map(|service| Wanted { service, which }).to_vec()
}

/// How many ports the most services of [`selections`] have.
const MANY: usize = 40;

/// Few and many services, ranges and single ports, all their flows or those that were translated.
fn selections() -> Vec<Vec<Wanted>> {
    use Protocol::{Sctp, Tcp, Udp};
    use Which::{All, Reversed, Translated, Unreplied};
    let many = (41..=60u16).flat_map(|port| wanted(Udp, &port.to_string(), All));
    vec![
        wanted(Udp, "53", All)[..1].to_vec(),
        wanted(Udp, "53", All),
        wanted(Tcp, "80", Translated),
        wanted(Udp, "100-110", All),
        wanted(Sctp, "53", All),
        [
            wanted(Tcp, "80", Translated),
            wanted(Tcp, "100-110", Translated),
            wanted(Udp, "53", All),
            wanted(Sctp, "100", All),
        ]
        .concat(),
        many.collect(),
        [
            wanted(Tcp, "1-65535", Translated),
            wanted(Udp, "1-65535", Translated),
        ]
        .concat(),
        wanted(Tcp, "80", Unreplied),
        [wanted(Tcp, "80", Unreplied), wanted(Tcp, "80", Translated)].concat(),
        wanted(Udp, "53", Reversed),
        [
            wanted(Udp, "53", All),
            wanted(Udp, "53", Reversed),
            wanted(Udp, "100-110", Reversed),
            wanted(Tcp, "80", Unreplied),
        ]
        .concat(),
    ]
}

/// How many entries of each protocol and family there are for each of the ports.
const KINDS: usize = 5;

/// Makes entries of each protocol and family to each of the ports: one that is not translated, one whose
/// destination is, one whose source is, and one that had no reply. And one from each of the ports, and
/// one of ICMP, with a port's number where TCP has the port.
fn make_entries() {
    let mut commands = String::new();
    for (source, destination, to_backend, from_router) in [
        (
            "10.1.0.2",
            "10.1.0.1",
            "--dst-nat 10.2.0.11:8080",
            "--src-nat 10.2.0.1",
        ),
        (
            "fd00:1::2",
            "fd00:1::1",
            "--dst-nat [fd00:2::11]:8080",
            "--src-nat fd00:2::1",
        ),
    ] {
        for protocol in [
            "tcp --state ESTABLISHED",
            "udp",
            "sctp --state ESTABLISHED --orig-vtag 1 --reply-vtag 2",
        ] {
            for port in PORTS {
                let replied =
                    ["", to_backend, from_router].map(|nat| format!("-u SEEN_REPLY {nat}"));
                for (from, more) in (4000..).zip(replied.iter().map(String::as_str).chain([""])) {
                    commands += &format!(
                        "-I -s {source} -d {destination} -p {protocol} --sport {from} --dport {port} -t 3600 {more}\n"
                    );
                }
                commands += &format!(
                    "-I -s {destination} -d {source} -p {protocol} --sport {port} --dport 5000 -t 3600 -u SEEN_REPLY\n"
                );
            }
        }
    }
    commands +=
        "-I -s 10.1.0.2 -d 10.1.0.1 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 53 -t 3600\n";
    let mut tool = Command::new("conntrack");
    let tool = tool.args(["--load-file", "-"]).stdin(Stdio::piped());
    let mut tool = tool
        .spawn()
        .expect("conntrack, which tests/setup.sh installs");
    let mut input = tool.stdin.take().unwrap();
    input.write_all(commands.as_bytes()).unwrap();
    drop(input);
    assert!(tool.wait().unwrap().success());
}

/// What the caller of [`Conntrack::visit_by`] keeps: the deletion of each wanted flow.
fn deletions(
    conntrack: &Conntrack,
    wanted: &[Wanted],
    dumps: &[Dump],
    request: impl Fn(&Dump) -> Request,
) -> Vec<Vec<u8>> {
    let is_wanted = |flow: &Flow| {
        wanted.iter().any(|Wanted { service, which }| {
            let port = match which {
                Which::Reversed => flow.replies_to.1,
                _ => flow.port,
            };
            let has_status = match which {
                Which::Translated => flow.backend.is_some(),
                Which::Unreplied => !flow.replied,
                Which::All | Which::Reversed => true,
            };
            has_status && service.contains(flow.family, flow.protocol, port)
        })
    };
    let mut found = Vec::new();
    let visited = conntrack.visit_by(dumps, &request, &mut |message| {
        if flow(message).is_some_and(|flow| is_wanted(&flow)) {
            found.extend(deletion(message).map(|deletion| deletion.bytes().to_vec()));
        }
    });
    visited.unwrap();
    found.sort();
    found
}

/// A kernel before 5.8 ignores all but the family.
fn old_request(dump: &Dump) -> Request {
    let family = dump.family;
    let whole = Dump {
        family,
        ..Dump::default()
    };
    whole.request()
}

#[test]
fn every_way_of_asking_gives_the_same_flows() {
    in_own_namespace(|| {
        make_entries();
        let conntrack = Conntrack::open().unwrap();
        let all = (Family::ALL.len() * Protocol::ALL.len() * PORTS.len() * KINDS + 1) as u64;
        assert_eq!(entries(), Some(all));
        for wanted in selections() {
            let list = |dumps: &[Dump]| deletions(&conntrack, &wanted, dumps, Dump::request);
            let expected = list(&[Dump::default()]);
            assert!((2..all as usize).contains(&expected.len()), "{wanted:?}");
            let mut ways = vec![by_protocol(&wanted), vec![whole(&wanted)]];
            ways.extend(by_port(&wanted, MANY));
            ways.extend([1, 10_000, 1_000_000].map(|entries| plan(&wanted, Some(entries))));
            for dumps in ways {
                assert_eq!(list(&dumps), expected, "{dumps:?}");
                let of_old_kernel = deletions(&conntrack, &wanted, &dumps, old_request);
                assert_eq!(of_old_kernel, expected, "{dumps:?}");
            }
        }
    });
}

/// So that the kernel does not send a whole table for nothing.
#[test]
fn this_kernel_sends_only_what_is_asked_for() {
    in_own_namespace(|| {
        make_entries();
        let conntrack = Conntrack::open().unwrap();
        let received = |dump: Dump| {
            let mut count = 0;
            let visited = conntrack.visit_by(&[dump], &Dump::request, &mut |_| count += 1);
            visited.unwrap();
            count
        };
        let family = Some(Family::Ipv6);
        let protocol = Some(Protocol::Udp);
        let of_family = Dump {
            family,
            ..Dump::default()
        };
        let of_protocol = Dump {
            protocol,
            ..of_family
        };
        let of_port = Dump {
            port: Some(53),
            ..of_protocol
        };
        let each = PORTS.len() * KINDS;
        assert_eq!(received(Dump::default()), each * 6 + 1);
        assert_eq!(received(of_family), each * 3);
        assert_eq!(received(of_protocol), each);
        assert_eq!(received(of_port), KINDS - 1);
        for (dump, expected) in [
            (Dump::default(), each * 6 / KINDS),
            (of_protocol, each / KINDS),
            (of_port, 1),
        ] {
            for which in [Which::Translated, Which::Unreplied] {
                let counts = received(Dump { which, ..dump });
                // conntrack(8) gives the entry of ICMP no reply.
                let icmp = which == Which::Unreplied && dump.family.is_none();
                assert_eq!(counts, expected + usize::from(icmp));
            }
        }
        let which = Which::Reversed;
        assert_eq!(received(Dump { which, ..of_port }), 1);
    });
}

#[test]
fn a_kernel_that_ignores_the_port_is_asked_once_for_each_family() {
    in_own_namespace(|| {
        make_entries();
        let conntrack = Conntrack::open().unwrap();
        let requests = Cell::new(0);
        let request = |dump: &Dump| {
            requests.set(requests.get() + 1);
            old_request(dump)
        };
        let many = &selections()[6];
        let dumps = by_port(many, MANY).unwrap();
        assert_eq!(dumps.len(), MANY);
        deletions(&conntrack, many, &dumps, request);
        assert_eq!(requests.get(), 2);
    });
}

/// The dumps before may have held no entry that shows it.
#[test]
fn what_such_a_kernel_sends_late_is_not_counted_twice() {
    in_own_namespace(|| {
        make_entries();
        let conntrack = Conntrack::open().unwrap();
        let several = &selections()[5];
        let dumps = by_port(several, MANY).unwrap();
        let expected = deletions(&conntrack, several, &dumps, Dump::request);
        let requests = Cell::new(0);
        let request = |dump: &Dump| {
            requests.set(requests.get() + 1);
            if requests.get() % 2 == 1 {
                dump.request()
            } else {
                old_request(dump)
            }
        };
        let found = deletions(&conntrack, several, &dumps, request);
        assert_eq!(found, expected);
    });
}

#[test]
fn an_empty_table_is_not_asked_for() {
    in_own_namespace(|| {
        assert!(is_empty());
        let wanted = &selections()[0];
        assert_eq!(plan(wanted, entries()), []);
        assert_eq!(plan(wanted, None), by_port(wanted, 1).unwrap());
        assert_eq!(plan(&[], Some(1)), []);
    });
}

#[test]
fn few_ports_among_many_entries_are_asked_for_one_by_one() {
    let ways = |wanted: &[Wanted], entries| {
        let dumps = plan(wanted, Some(entries));
        let by_port = dumps.iter().all(|dump| dump.port.is_some());
        (dumps.len(), by_port)
    };
    let [udp, two_families, tcp, range, _, _, many, ..] = &selections()[..] else {
        panic!("seven");
    };
    assert_eq!(ways(udp, 1), (1, true));
    assert_eq!(ways(two_families, 1), (1, false));
    assert_eq!(ways(two_families, 10_000), (2, true));
    assert_eq!(ways(tcp, 1_000_000), (2, true));
    assert_eq!(ways(&range[..1], 1_000_000), (11, true));
    assert_eq!(ways(&range[..1], 10_000), (1, false));
    assert_eq!(ways(range, 1_000_000), (2, false));
    assert_eq!(ways(many, 1_000_000), (2, false));
    let translated: Vec<Wanted> = many
        .iter()
        .map(|of| Wanted {
            which: Which::Translated,
            ..*of
        })
        .collect();
    assert_eq!(ways(&translated, 1_000_000), (2, false));
    let of_two_protocols = [&translated[..], tcp].concat();
    assert_eq!(plan(&of_two_protocols, Some(1_000_000)), [whole(tcp)]);
}

/// By what the kernel ignores, it would be asked again and again for the same.
#[test]
fn what_the_kernel_cannot_select_by_is_not_asked_for() {
    let sctp = wanted(Protocol::Sctp, "5-7", Which::All);
    let all_ports = Dump {
        family: Some(Family::Ipv4),
        protocol: Some(Protocol::Sctp),
        ..Dump::default()
    };
    assert_eq!(by_port(&sctp[..1], 12), Some(vec![all_ports]));
    // Without a port it is the same in both directions.
    let reversed = wanted(Protocol::Udp, "5-7", Which::Reversed);
    assert_eq!(whole(&reversed), Dump::default());
}
