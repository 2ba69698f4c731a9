//! nodefwd beside the rules that klipper-lb makes, written out for the real iptables: the same
//! probes, and in tables what each of the two lets through.
//!
//! Each probe is made for both protocols and families, against iptables with either back end.

mod hosts;
mod implementation;

use std::collections::HashSet;
use std::thread;

use crate::fixture::{Family, Protocol};
use hosts::Hosts;
use hosts::Outcome::{self, Direct, Forwarded, Masqueraded, Refused, Silence};
use hosts::To::{self, Back, BackAtTheNode, BesideBack, FarFront, Front, OtherProtocol, Stranger};
use hosts::Who::{self, Allowed, Denied, Itself, Node};
use implementation::{Contender, Options, front};

/// Who asks what, and what becomes of it with the classical rules and with nodefwd.
type Probe = (Who, To, Outcome, Outcome);

/// Equal, whatever the options are.
const EQUAL: [Probe; 9] = [
    (Allowed, Front, Forwarded, Forwarded),
    (Allowed, FarFront, Forwarded, Forwarded),
    (Allowed, OtherProtocol, Refused, Refused),
    (Allowed, BackAtTheNode, Refused, Refused),
    (Denied, Front, Silence, Silence),
    (Denied, FarFront, Silence, Silence),
    (Denied, OtherProtocol, Refused, Refused),
    (Node, Front, Refused, Refused),
    (Node, Stranger, Direct, Direct),
];

/// The classical rules meddle with what only passes through, and with all that goes to the
/// destination's address; nodefwd leaves it alone.
const DIFFERENT: [Probe; 7] = [
    (Allowed, Stranger, Forwarded, Direct),
    (Denied, Stranger, Silence, Direct),
    (Allowed, Back, Masqueraded, Direct),
    (Denied, Back, Silence, Direct),
    (Allowed, BesideBack, Masqueraded, Direct),
    (Denied, BesideBack, Masqueraded, Direct),
    (Node, Back, Masqueraded, Direct),
];

/// The destination's own requests, where it is in SRC_RANGES.
const OWN: [Probe; 2] = [
    (Itself, Front, Refused, Refused),
    (Itself, Stranger, Direct, Direct),
];

/// The same with hairpin.
const OWN_HAIRPIN: [Probe; 2] = [
    (Itself, Front, Forwarded, Forwarded),
    (Itself, Stranger, Forwarded, Direct),
];

/// The same where it is not in SRC_RANGES: nodefwd denies it like anyone else, while the classical
/// rules do not take its requests at all, or deny them with hairpin.
const OWN_DENIED: [Probe; 2] = [
    (Itself, Front, Refused, Silence),
    (Itself, Stranger, Direct, Direct),
];
const OWN_HAIRPIN_DENIED: [Probe; 2] = [
    (Itself, Front, Silence, Silence),
    (Itself, Stranger, Silence, Direct),
];

const WITH_DESTINATION: &str = "10.1.1.0/24,fd00:1:1::/64,10.2.1.0/24,fd00:2:1::/64";
const WITHOUT_DESTINATION: &str = "10.1.1.0/24,fd00:1:1::/64";

#[test]
fn with_source_ranges() {
    let probes = [&EQUAL[..], &DIFFERENT, &OWN].concat();
    compare(WITH_DESTINATION, false, &Family::BOTH, &probes);
}

#[test]
fn with_hairpin() {
    let probes = [&EQUAL[..], &DIFFERENT, &OWN_HAIRPIN].concat();
    compare(WITH_DESTINATION, true, &Family::BOTH, &probes);
}

#[test]
fn with_a_destination_outside_the_ranges() {
    compare(WITHOUT_DESTINATION, false, &Family::BOTH, &OWN_DENIED);
    compare(
        WITHOUT_DESTINATION,
        true,
        &Family::BOTH,
        &OWN_HAIRPIN_DENIED,
    );
}

/// What Kubernetes' controller sets for a Service without source ranges.
#[test]
fn with_everyone_allowed() {
    let everyone = [
        (Allowed, Front, Forwarded, Forwarded),
        (Denied, Front, Forwarded, Forwarded),
        (Allowed, OtherProtocol, Refused, Refused),
    ];
    compare("0.0.0.0/0,::/0", false, &Family::BOTH, &everyone);
}

/// Without any range the classical rules let nobody in, and nodefwd everyone.
#[test]
fn without_source_ranges() {
    let nobody = [(Allowed, Front, Silence, Forwarded)];
    compare("", false, &Family::BOTH, &nobody);
}

#[test]
fn with_ranges_of_one_family() {
    let served = [(Allowed, Front, Forwarded, Forwarded)];
    let denied = [(Allowed, Front, Silence, Silence)];
    compare("10.1.1.0/24", false, &[Family::V4], &served);
    compare("10.1.1.0/24", false, &[Family::V6], &denied);
    compare("fd00:1:1::/64", false, &[Family::V4], &denied);
    compare("fd00:1:1::/64", false, &[Family::V6], &served);
}

/// Of several destinations the classical rules use the last one only. Were nodefwd's choices fair
/// and independent, all 64 would agree with a probability of 2^-63.
#[test]
fn with_several_destinations() {
    let options = Options {
        ranges: "0.0.0.0/0,::/0",
        hairpin: true,
    };
    for contender in Contender::ALL {
        let hosts = Hosts::new();
        let _running = contender.install(&hosts.net, options, &hosts.net.backends);
        let request = |_| {
            let front = hosts.net.front(Family::V4, front(Protocol::Tcp));
            let answer = hosts.net.client.request(Protocol::Tcp, front);
            answer.expect("an answer").server
        };
        let servers: HashSet<_> = (0..64).map(request).collect();
        let expected: &[_] = match contender {
            Contender::Nodefwd => &["backend-1", "backend-2"],
            Contender::Iptables(_) => &["backend-2"],
        };
        let expected: HashSet<_> = expected.iter().map(|name| String::from(*name)).collect();
        assert_eq!(servers, expected, "{contender:?}");
    }
}

/// Makes all probes against each contender; all at once, because silence takes its time.
fn compare(ranges: &'static str, hairpin: bool, families: &[Family], probes: &[Probe]) {
    let options = Options { ranges, hairpin };
    for contender in Contender::ALL {
        let hosts = &Hosts::new();
        let _running = contender.install(&hosts.net, options, &hosts.net.backends[..1]);
        thread::scope(|scope| {
            for &(from, to, classical, ours) in probes {
                let expected = match contender {
                    Contender::Nodefwd => ours,
                    Contender::Iptables(_) => classical,
                };
                for &family in families {
                    for protocol in Protocol::BOTH {
                        scope.spawn(move || {
                            let outcome = hosts.measure(family, protocol, (from, to), expected);
                            let probe = format!(
                                "{contender:?}, {from:?} to {to:?} over {family:?} {protocol:?}"
                            );
                            assert_eq!(outcome, expected, "{probe}");
                        });
                    }
                }
            }
        });
    }
}
