//! nodefwd and the iptables rules of klipper-lb side by side: the same requests, and in tables what
//! becomes of each with either.
//!
//! Each request is made for every protocol and family, with both kinds of iptables.

mod hosts;
mod implementation;

use std::collections::HashSet;
use std::thread;

use crate::fixture::{Family, Protocol};
use hosts::Client::{self, Allowed, BackendItself, Denied, Node};
use hosts::Hosts;
use hosts::Outcome::{self, Forwarded, Masqueraded, NoReply, Refused, Untouched};
use hosts::To::{
    self, Backend, BackendPortOfNode, ForwardedPort, ForwardedPortOnFarLink, OtherBackendPort,
    OtherHost, OtherProtocol,
};
use implementation::{Implementation, Options, forwarded_port};

/// Who connects to what, and the outcome with klipper-lb's rules and with nodefwd.
type Probe = (Client, To, Outcome, Outcome);

/// Equal with both, whatever the options are.
const EQUAL: [Probe; 9] = [
    (Allowed, ForwardedPort, Forwarded, Forwarded),
    (Allowed, ForwardedPortOnFarLink, Forwarded, Forwarded),
    (Allowed, OtherProtocol, Refused, Refused),
    (Allowed, BackendPortOfNode, Refused, Refused),
    (Denied, ForwardedPort, NoReply, NoReply),
    (Denied, ForwardedPortOnFarLink, NoReply, NoReply),
    (Denied, OtherProtocol, Refused, Refused),
    (Node, ForwardedPort, Refused, Refused),
    (Node, OtherHost, Untouched, Untouched),
];

/// klipper-lb's rules translate traffic to other hosts too, and all traffic to the backend; nodefwd
/// leaves it alone.
const DIFFERENT: [Probe; 7] = [
    (Allowed, OtherHost, Forwarded, Untouched),
    (Denied, OtherHost, NoReply, Untouched),
    (Allowed, Backend, Masqueraded, Untouched),
    (Denied, Backend, NoReply, Untouched),
    (Allowed, OtherBackendPort, Masqueraded, Untouched),
    (Denied, OtherBackendPort, Masqueraded, Untouched),
    (Node, Backend, Masqueraded, Untouched),
];

/// The backend's own requests, if it is in SRC_RANGES.
const FROM_BACKEND: [Probe; 2] = [
    (BackendItself, ForwardedPort, Refused, Refused),
    (BackendItself, OtherHost, Untouched, Untouched),
];

/// The same with hairpin.
const FROM_BACKEND_HAIRPIN: [Probe; 2] = [
    (BackendItself, ForwardedPort, Forwarded, Forwarded),
    (BackendItself, OtherHost, Forwarded, Untouched),
];

/// The same if it is not in SRC_RANGES: nodefwd denies it like any other client, while klipper-lb's
/// rules do not match its requests, or deny them with hairpin.
const FROM_BACKEND_DENIED: [Probe; 2] = [
    (BackendItself, ForwardedPort, Refused, NoReply),
    (BackendItself, OtherHost, Untouched, Untouched),
];
const FROM_BACKEND_HAIRPIN_DENIED: [Probe; 2] = [
    (BackendItself, ForwardedPort, NoReply, NoReply),
    (BackendItself, OtherHost, NoReply, Untouched),
];

const WITH_BACKEND: &str = "10.1.1.0/24,fd00:1:1::/64,10.2.1.0/24,fd00:2:1::/64";
const WITHOUT_BACKEND: &str = "10.1.1.0/24,fd00:1:1::/64";

#[test]
fn with_source_ranges() {
    let probes = [&EQUAL[..], &DIFFERENT, &FROM_BACKEND].concat();
    compare(WITH_BACKEND, false, &Family::BOTH, &probes);
}

#[test]
fn with_hairpin() {
    let probes = [&EQUAL[..], &DIFFERENT, &FROM_BACKEND_HAIRPIN].concat();
    compare(WITH_BACKEND, true, &Family::BOTH, &probes);
}

#[test]
fn with_a_backend_outside_the_source_ranges() {
    compare(WITHOUT_BACKEND, false, &Family::BOTH, &FROM_BACKEND_DENIED);
    compare(
        WITHOUT_BACKEND,
        true,
        &Family::BOTH,
        &FROM_BACKEND_HAIRPIN_DENIED,
    );
}

/// What the controller of k3s sets for a Service without source ranges.
#[test]
fn with_source_ranges_that_allow_every_client() {
    let everyone = [
        (Allowed, ForwardedPort, Forwarded, Forwarded),
        (Denied, ForwardedPort, Forwarded, Forwarded),
        (Allowed, OtherProtocol, Refused, Refused),
    ];
    compare("0.0.0.0/0,::/0", false, &Family::BOTH, &everyone);
}

/// Without any range klipper-lb's rules deny every client, and nodefwd allows every client.
#[test]
fn without_source_ranges() {
    let allowed = [(Allowed, ForwardedPort, NoReply, Forwarded)];
    compare("", false, &Family::BOTH, &allowed);
}

#[test]
fn with_source_ranges_of_one_family() {
    let served = [(Allowed, ForwardedPort, Forwarded, Forwarded)];
    let denied = [(Allowed, ForwardedPort, NoReply, NoReply)];
    compare("10.1.1.0/24", false, &[Family::V4], &served);
    compare("10.1.1.0/24", false, &[Family::V6], &denied);
    compare("fd00:1:1::/64", false, &[Family::V4], &denied);
    compare("fd00:1:1::/64", false, &[Family::V6], &served);
}

/// Of several backends klipper-lb's rules use the last one only. nodefwd's choices are fair and
/// independent, so all 64 agree with a probability of 2^-63.
#[test]
fn with_several_backends() {
    let options = Options {
        ranges: "0.0.0.0/0,::/0",
        hairpin: true,
    };
    for implementation in Implementation::ALL {
        let hosts = Hosts::new();
        let _running = implementation.install(&hosts.net, options, &hosts.net.backends);
        let request = |_| {
            let node_addr = hosts
                .net
                .node_addr(Family::V4, forwarded_port(Protocol::Tcp));
            let reply = hosts.net.client.request(Protocol::Tcp, node_addr);
            reply.expect("a reply").server
        };
        let servers: HashSet<_> = (0..64).map(request).collect();
        let expected: &[_] = match implementation {
            Implementation::Nodefwd => &["backend-1", "backend-2"],
            Implementation::Iptables(_) => &["backend-2"],
        };
        let expected: HashSet<_> = expected.iter().map(|name| String::from(*name)).collect();
        assert_eq!(servers, expected, "{implementation:?}");
    }
}

/// Makes all requests with each implementation; all at once, since to wait for no reply takes long.
fn compare(ranges: &'static str, hairpin: bool, families: &[Family], probes: &[Probe]) {
    let options = Options { ranges, hairpin };
    for implementation in Implementation::ALL {
        let hosts = &Hosts::new();
        let _running = implementation.install(&hosts.net, options, &hosts.net.backends[..1]);
        thread::scope(|scope| {
            for &(from, to, klipper, ours) in probes {
                let expected = match implementation {
                    Implementation::Nodefwd => ours,
                    Implementation::Iptables(_) => klipper,
                };
                for &family in families {
                    for protocol in Protocol::BOTH {
                        scope.spawn(move || {
                            let outcome = hosts.measure(family, protocol, (from, to), expected);
                            let probe = format!(
                                "{implementation:?}, {from:?} to {to:?} over {family:?} {protocol:?}"
                            );
                            assert_eq!(outcome, expected, "{probe}");
                        });
                    }
                }
            }
        });
    }
}
