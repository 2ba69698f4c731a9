//! Rules that change under flows: reloads, replacements, and stale flows.

use std::io::ErrorKind;
use std::mem;

use nix::sys::signal::Signal;

use super::{
    COUNTER, Fast, INTERFACES, entry, expect_bypass, expect_taken, forward_both, offloaded_flow,
};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Host, Net, OTHER_NAT, PROTOCOLS_AND_FAMILIES, Protocol,
    TempFile, nodefwd, wait_until,
};

#[test]
#[ignore = "needs flowtables"]
fn flows_go_on_across_replacements_and_are_taken_over_again() {
    for owner in ["--owner=true", "--owner=false"] {
        let mut fast = Fast::start(&[INTERFACES, owner]);
        fast.net.node.load(COUNTER);
        let mut flows = PROTOCOLS_AND_FAMILIES
            .map(|(protocol, family)| (protocol, family, fast.flow(protocol, family)));
        for options in [INTERFACES, "--fast-path=off", "--fast-path=auto"] {
            let call = forward_both(&fast.net.backends).args(&[options, owner, "--replace"]);
            let successor = call.start(&fast.net.node);
            mem::replace(&mut fast.forwarder, successor)
                .finish()
                .expect_exit(0);
            for (protocol, family, flow) in &mut flows {
                flow.expect_unchanged();
                if options != "--fast-path=off" {
                    expect_taken(&fast.net.node, *protocol, *family, flow);
                    expect_bypass(&fast.net.node, flow);
                }
            }
        }
        fast.stop();
    }
}

/// With HUP the path is changed in place, and flows to destinations that are gone move or stay as without it.
#[test]
#[ignore = "needs flowtables"]
fn a_reload_turns_it_on_and_off_and_moves_udp_flows() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    let [one, other] = [1, 2].map(|number| {
        format!("NODEFWD_FORWARDS=tcp,udp/80=10.2.{number}.2:8080,[fd00:2:{number}::2]:8080\n")
    });
    let file = TempFile::new(one.clone() + "NODEFWD_FAST_PATH=auto\n");
    let call = nodefwd(["--name=web"]).env("NODEFWD_ENV_FILE", file.path());
    let mut forwarder = call.start(&net.node);
    let mut reloads = 0;
    let mut reload = |text: String| {
        file.write(text);
        forwarder.signal(Signal::SIGHUP);
        reloads += 1;
        let done = |stderr: &String| stderr.matches("reloaded: ").count() == reloads;
        wait_until("a reload", || forwarder.stderr(), done);
    };
    let mut flows = PROTOCOLS_AND_FAMILIES.map(|(protocol, family)| {
        let flow = net
            .client
            .live_flow(protocol, net.node_addr(family, FORWARDED_PORT));
        (protocol, family, flow)
    });
    for (options, is_on) in [("", false), ("NODEFWD_FAST_PATH=auto\n", true)] {
        reload(one.clone() + options);
        for (protocol, family, flow) in &mut flows {
            flow.expect_unchanged();
            if is_on {
                expect_taken(&net.node, *protocol, *family, flow);
            }
        }
        assert_eq!(net.node.ruleset().contains("flowtable"), is_on);
    }
    reload(other + "NODEFWD_FAST_PATH=auto\n");
    for (protocol, _, mut flow) in flows {
        if protocol == Protocol::Tcp {
            flow.expect_unchanged();
        } else {
            assert_eq!(flow.request().expect("a reply").server, "backend-2");
        }
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// As without a fast path, though they are in the replaced instance's flowtable.
#[test]
#[ignore = "needs flowtables"]
fn a_replacement_ends_flows_of_sources_that_are_no_longer_allowed_and_no_others() {
    let fast = Fast::start(&["--fast-path=auto"]);
    let net = &fast.net;
    let other = net.another_client(2);
    net.node.load(COUNTER);
    let open = |client: &Host| {
        PROTOCOLS_AND_FAMILIES.map(|(protocol, family)| {
            let flow = offloaded_flow(net, client, protocol, family);
            (protocol, family, flow)
        })
    };
    let (denied, mut allowed) = (open(&net.client), open(&other));
    let ranges = "--src-ranges=10.1.2.0/24,fd00:1:2::/64";
    let call = forward_both(&net.backends).args(&["--fast-path=auto", ranges, "--replace"]);
    let _successor = call.start(&net.node);
    for (_, _, mut flow) in denied {
        flow.expect_silence();
    }
    for (protocol, family, flow) in &mut allowed {
        flow.expect_unchanged();
        expect_taken(&net.node, *protocol, *family, flow);
        expect_bypass(&net.node, flow);
    }
}

/// Other NAT keeps the entries of clients that sent before the start: those bypass the rules, and with them the fast
/// path.
#[test]
#[ignore = "needs flowtables"]
fn udp_flows_from_before_a_start_are_forwarded_and_taken_over() {
    let net = Net::new(1);
    let _servers = net.serve(BACKEND_PORT);
    net.node.load(OTHER_NAT);
    let early = Family::BOTH.map(|family| {
        let to = net.node_addr(family, FORWARDED_PORT);
        let mut flow = net.client.connect(Protocol::Udp, to).expect("a socket");
        assert_eq!(flow.expect_closed(), ErrorKind::ConnectionRefused);
        let found = entry(&net.node, Protocol::Udp, family, flow.source().port());
        assert!(found.contains("[UNREPLIED]"), "{found}");
        (family, flow)
    });
    let call = forward_both(&net.backends).args(&["--fast-path=auto"]);
    let _forwarder = call.start(&net.node);
    for (family, mut flow) in early {
        let port = flow.source().port();
        let ask = || {
            let reply = flow.request().expect("a reply");
            assert_eq!(reply.server, "backend-1");
            entry(&net.node, Protocol::Udp, family, port)
        };
        wait_until("a flow in the flowtable", ask, |entry| {
            entry.contains("[OFFLOAD]")
        });
    }
}
