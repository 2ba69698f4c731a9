//! How a name is looked up.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{HOME, Names};
use crate::fixture::{
    BACKEND_PORT, Dns, FORWARDED_PORT, Family, PROTOCOLS_AND_FAMILIES, Says, expect_parts,
    wait_until,
};

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    let parse = |address: &&str| address.parse().expect("an address");
    addresses.iter().map(parse).collect()
}

impl Names {
    /// The rules for a name.
    fn rendered(&self, name: &str) -> String {
        let forward = format!("tcp/80={name}");
        let call = self.call(&["render", &forward]);
        call.finish(&self.net.node).expect_success()
    }

    /// What a start says that must fail with status 1 and one line.
    #[track_caller]
    fn refused(&self, name: &str) -> String {
        let forward = format!("tcp/80={name}");
        let outcome = self.call(&[&forward]).finish(&self.net.node).expect_exit(1);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert_eq!(self.net.node.ruleset(), "");
        outcome.stderr
    }
}

#[test]
fn a_name_leads_to_its_addresses_of_both_families() {
    let names = Names::new(2);
    let _servers = names.net.serve(BACKEND_PORT);
    names.set(HOME, &[2]);
    let forward = format!("tcp,udp/{FORWARDED_PORT}=Home.Example.Org:{BACKEND_PORT}");
    let forwarder = names.call(&[&forward]).start(&names.net.node);
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let to = names.net.node_addr(family, FORWARDED_PORT);
        let reply = names.net.client.request(protocol, to).expect("a reply");
        assert_eq!(reply.server, "backend-2");
    }
    assert_eq!(
        names.dns.asked(),
        ["home.example.org A", "home.example.org AAAA"]
    );
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(names.net.node.ruleset(), "");
}

#[test]
fn names_stand_beside_addresses_and_in_dest_ips() {
    let names = Names::new(1);
    names.dns.set(HOME, &ips(&["10.2.0.12", "10.2.0.11"]));
    let call = names.call(&["render"]).env("DEST_PROTO", "tcp");
    let call = call
        .env("SRC_PORT", "80")
        .env("DEST_IPS", format!("10.2.0.13,{HOME}"));
    let from_names = call.finish(&names.net.node).expect_success();
    let addresses = names.call(&["render", "tcp/80=10.2.0.13,10.2.0.11,10.2.0.12"]);
    assert_eq!(
        from_names,
        addresses.finish(&names.net.node).expect_success()
    );
}

#[test]
fn aliases_truncated_answers_and_forgeries() {
    let names = Names::new(1);
    let right = ips(&["10.2.0.11", "fd00:2::11"]);
    names.dns.set("target.example", &right);
    names.dns.say("alias.example", Says::Alias("other.example"));
    names
        .dns
        .say("other.example", Says::Alias("target.example"));
    let many: Vec<IpAddr> = (1..=100).map(|number| [10, 2, 0, number].into()).collect();
    names.dns.say("large.example", Says::IsOverTcp(many));
    names
        .dns
        .say("forged.example", Says::IsAfterForgeries(right));
    for name in ["target.example", "alias.example", "forged.example"] {
        let rules = names.rendered(name);
        expect_parts(&rules, ["10.2.0.11", "fd00:2::11"]);
        assert!(!rules.contains("66"), "{name}: {rules}");
    }
    let rules = names.rendered("large.example");
    expect_parts(&rules, ["10.2.0.1:80", "10.2.0.100:80"]);
    expect_parts(
        &names.dns.asked().join("\n"),
        ["large.example A\nlarge.example TCP"],
    );
    names.dns.say("loop.example", Says::Alias("loop.example"));
    expect_parts(&names.refused("loop.example"), ["it has no address"]);
}

#[test]
fn domains_are_searched_as_the_dots_say() {
    let names = Names::new(1);
    let server = names.net.backends[0].address(Family::V4);
    let conf = format!("nameserver {server}\nsearch a.example b.example\noptions ndots:2\n");
    names.etc.write("resolv.conf", conf);
    names.dns.set("db.b.example", &ips(&["10.2.0.11"]));
    names.dns.set("x.y.z", &ips(&["10.2.0.12"]));
    expect_parts(&names.rendered("db"), ["10.2.0.11"]);
    let asked: Vec<String> = names.dns.asked();
    assert_eq!(
        asked,
        [
            "db.a.example A",
            "db.a.example AAAA",
            "db.b.example A",
            "db.b.example AAAA"
        ]
    );
    expect_parts(&names.rendered("x.y.z"), ["10.2.0.12"]);
    assert_eq!(names.dns.asked()[4..], ["x.y.z A", "x.y.z AAAA"]);
    // Absolute.
    names.refused("db.");
    assert_eq!(names.dns.asked()[6..], ["db A", "db AAAA"]);
    // Who knows what a server would have said: the next name may be another host's.
    names.dns.say("db.a.example", Says::Fails);
    expect_parts(&names.refused("db"), ["SERVFAIL"]);
}

#[test]
fn the_file_of_hosts_goes_first() {
    let names = Names::new(1);
    names.etc.write("hosts", format!("10.2.0.11 web {HOME}\n"));
    names.set(HOME, &[1]);
    let rules = names.rendered(HOME);
    expect_parts(&rules, ["10.2.0.11"]);
    assert!(!rules.contains("10.2.1."), "{rules}");
    assert_eq!(names.dns.asked(), [""; 0]);
}

#[test]
fn the_next_server_is_asked_if_one_does_not_answer() {
    let names = Names::new(2);
    let silent = Dns::start(
        &names.net.backends[1],
        names.net.backends[1].address(Family::V6),
    );
    silent.say(HOME, Says::Nothing);
    let [first, second, third] = [
        names.net.backends[1].address(Family::V4),
        names.net.backends[1].address(Family::V6),
        names.net.backends[0].address(Family::V4),
    ];
    let servers = format!("nameserver {first}\nnameserver {second}\nnameserver {third}\n");
    names
        .etc
        .write("resolv.conf", servers + "options timeout:1\n");
    names.set(HOME, &[1]);
    expect_parts(&names.rendered(HOME), ["10.2.1.2"]);
    assert_eq!(silent.asked(), ["home.example.org A"]);
}

/// Each has 30 seconds, but all together have 10.
#[test]
fn two_silent_servers_leave_time_for_the_third() {
    let names = Names::new(2);
    let addresses = Family::BOTH.map(|family| names.net.backends[1].address(family));
    let silent = addresses.map(|address| Dns::start(&names.net.backends[1], address));
    for server in &silent {
        server.say(HOME, Says::Nothing);
    }
    let [first, second] = addresses;
    let third = names.net.backends[0].address(Family::V4);
    let servers = format!("nameserver {first}\nnameserver {second}\nnameserver {third}\n");
    names
        .etc
        .write("resolv.conf", servers + "options timeout:30\n");
    names.set(HOME, &[1]);
    expect_parts(&names.rendered(HOME), ["10.2.1.2", "fd00:2:1::2"]);
    for server in &silent {
        assert_eq!(server.asked(), ["home.example.org A"]);
    }
}

#[test]
fn a_start_without_an_address_says_why() {
    let names = Names::new(1);
    let server = names.net.backends[0].address(Family::V4).to_string();
    let expect = |name: &str, reason: &str| {
        let said = names.refused(name);
        let start = format!(
            "error: no destination in DEST_IPS (--dest-ips) or NODEFWD_FORWARDS (FORWARD argument) has an address: cannot resolve {name}"
        );
        assert!(said.starts_with(&start), "{said}");
        expect_parts(&said, [reason]);
    };
    expect(
        "none.example",
        &format!("{server} says that there is no such name (NXDOMAIN)"),
    );
    names.dns.set("empty.example", &[]);
    expect(
        "empty.example",
        &format!("{server} says that it has no address"),
    );
    names.dns.say("broken.example", Says::Fails);
    expect("broken.example", &format!("{server} answers with SERVFAIL"));
    for (address, kind) in [
        ("127.0.0.1", "a loopback address"),
        ("0.0.0.0", "the unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("fe80::1", "a link-local address"),
        ("::1", "a loopback address"),
        ("::ffff:10.0.0.5", "an IPv4-mapped IPv6 address"),
    ] {
        names.dns.set("odd.example", &ips(&[address]));
        expect(
            "odd.example",
            &format!("{server} says {address}, which is {kind}"),
        );
    }
    names.etc.write("hosts", "127.0.1.1 own\n");
    expect(
        "own",
        "/etc/hosts says 127.0.1.1, which is a loopback address",
    );
    let all: Vec<IpAddr> = (0..=256u16)
        .map(|n| [10, 3, (n >> 8) as u8, n as u8].into())
        .collect();
    names.dns.say("crowd.example", Says::IsOverTcp(all));
    expect("crowd.example", "gives too many addresses");
    names.etc.write("resolv.conf", "nameserver 10.2.1.1\n");
    expect("none.example", "10.2.1.1: nothing listens there");
    names.etc.write("resolv.conf", "");
    expect("none.example", "127.0.0.1: nothing listens there");
}

/// The servers have 30 seconds each, all look-ups together 10.
#[test]
fn a_server_that_is_silent_does_not_hold_up_a_start_for_ever() {
    let names = Names::new(1);
    for name in ["a", "b", "c"] {
        names.dns.say(name, Says::Nothing);
    }
    let begin = Instant::now();
    expect_parts(
        &names.refused("a,b,c"),
        ["cannot resolve a: 10.2.1.2: no answer", "cannot resolve c"],
    );
    // As much again for a machine that is busy.
    let taken = begin.elapsed();
    assert!(taken < Duration::from_secs(20), "{taken:?}");
}

#[test]
fn a_signal_ends_a_look_up() {
    let names = Names::new(1);
    names.dns.say(HOME, Says::Nothing);
    let forward = format!("tcp/80={HOME}");
    let forwarder = names.call(&[&forward]).spawn(&names.net.node);
    wait_until(
        "a question",
        || names.dns.asked(),
        |asked| !asked.is_empty(),
    );
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert_eq!(stderr, "");
}

#[test]
fn one_of_several_names_is_enough() {
    let names = Names::new(1);
    names.set(HOME, &[1]);
    let both = format!("tcp/80={HOME},none.example");
    let forwarder = names
        .call(&[&both, "tcp/81=none.example"])
        .start(&names.net.node);
    let said = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    expect_parts(
        &said,
        [
            "warning: cannot resolve none.example: 10.2.1.2 says that there is no such name (NXDOMAIN); going on without it",
            "warning: tcp/81 is not forwarded until one of its destinations can be resolved",
            "ready: forwarding tcp/80=10.2.1.2:80",
        ],
    );
    // A part of a name is enough, too.
    let check = names
        .call(&["check", &both])
        .finish(&names.net.node)
        .expect_exit(1);
    expect_parts(
        &check.stdout,
        [
            "ok: names: home.example.org is 10.2.1.2, fd00:2:1::2, as 10.2.1.2 says",
            "failure: names: cannot resolve none.example: ",
        ],
    );
    let check = names
        .call(&["check", "tcp/80=none.example"])
        .finish(&names.net.node);
    expect_parts(
        &check.expect_exit(1).stdout,
        ["failure: names: no destination in "],
    );
}
