//! Several instances in one network namespace: none disturbs another, or forwards what another does.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;

use nix::sys::signal::Signal;

use crate::fixture::{
    BACKEND_PORT, Connection, FORWARDED_PORT, Family, LiveFlow, Monitor, Namespace, Net, Nodefwd,
    Process, Protocol, expect_parts, expect_reply, forward_to, has_owner_flag, nodefwd,
    without_programs,
};

/// Each differs from the others only in its protocol or port. All have the same backend, so that only
/// those two tell whose a flow is.
const SERVICES: [(Protocol, u16); 4] = [
    (Protocol::Tcp, FORWARDED_PORT),
    (Protocol::Udp, FORWARDED_PORT),
    (Protocol::Tcp, FORWARDED_PORT + 1),
    (Protocol::Udp, FORWARDED_PORT + 1),
];

/// A running instance with a live flow of each family.
struct Sibling<'a> {
    net: &'a Net,
    service: (Protocol, u16),
    process: Process,
    rules: String,
    flows: [LiveFlow; 2],
}

impl<'a> Sibling<'a> {
    fn start(net: &'a Net, (protocol, port): (Protocol, u16)) -> Self {
        let call = forward_to(protocol, &net.backends).args(&[&format!("--src-port={port}")]);
        let process = call.start(&net.node);
        let flow = |family| net.client.live_flow(protocol, net.node_addr(family, port));
        let mut sibling = Sibling {
            net,
            service: (protocol, port),
            process,
            rules: String::new(),
            flows: Family::BOTH.map(flow),
        };
        sibling.rules = sibling.rules();
        sibling
    }

    fn table(&self) -> String {
        let (protocol, port) = self.service;
        format!("nodefwd-{}-{port}", protocol.name())
    }

    /// Its rules with their handles, which change if a rule is removed and added again; without
    /// counters.
    fn rules(&self) -> String {
        let table = self.table();
        let list = ["--stateless", "--handle", "list", "table", "inet", &table];
        without_programs(&self.net.node.succeed("nft", &list))
    }

    #[track_caller]
    fn expect_undisturbed(&mut self) {
        assert_eq!(self.rules(), self.rules);
        self.flows.iter_mut().for_each(LiveFlow::expect_unchanged);
        let (protocol, port) = self.service;
        for family in Family::BOTH {
            let node_addr = self.net.node_addr(family, port);
            let reply = self.net.client.request(protocol, node_addr);
            reply.expect("a reply on a new flow");
        }
    }

    /// Ends it by a signal. The kernel removes the table of a killed process a moment later.
    #[track_caller]
    fn end(self, signal: Signal) {
        let table = self.table();
        let (protocol, port) = self.service;
        let outcome = self.process.stop(signal);
        if signal == Signal::SIGKILL {
            self.net.node.wait_for_removal(&table);
            // The kernel goes on translating what it has entries for, and a new client may draw the port of one.
            let to_port = port.to_string();
            let of_port = [
                "-D",
                "--proto",
                protocol.name(),
                "--orig-port-dst",
                &to_port,
            ];
            for family in ["--family=ipv4", "--family=ipv6"] {
                self.net
                    .node
                    .succeed("conntrack", &[&of_port[..], &[family]].concat());
            }
        } else {
            outcome.expect_exit(0);
            assert!(!self.net.node.ruleset().contains(&format!(" {table} ")));
        }
        for family in Family::BOTH {
            let node_addr = self.net.node_addr(family, port);
            self.net.client.expect_refused(protocol, node_addr);
        }
    }
}

#[track_caller]
fn expect_undisturbed(siblings: &mut [Sibling]) {
    for sibling in siblings {
        sibling.expect_undisturbed();
    }
}

#[test]
fn an_instance_that_starts_or_ends_leaves_the_others_alone() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut siblings: Vec<Sibling> = Vec::new();
        for service in SERVICES {
            siblings.push(Sibling::start(&net, service));
            expect_undisturbed(&mut siblings);
        }
        while !siblings.is_empty() {
            siblings.remove(siblings.len() / 2).end(signal);
            expect_undisturbed(&mut siblings);
        }
    }
}

#[test]
fn an_instance_that_cannot_start_leaves_the_others_alone() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let mut siblings = SERVICES.map(|service| Sibling::start(&net, service));
    net.node.load("table inet nodefwd-foreign");
    let call = |arguments: &[&str]| forward_to(Protocol::Tcp, &net.backends).args(arguments);
    for (call, status) in [
        // Ports that a sibling has: all of them, and one of several.
        (call(&["--name=other"]), 1),
        (call(&["--name=other", "--src-port=70-90"]), 1),
        (call(&["--src-port=90", "--name=foreign"]), 1),
        (call(&["--src-port=90"]).without_net_admin(), 1),
        (call(&["--src-port=90", "--balance=fair"]), 2),
    ] {
        call.finish(&net.node).expect_exit(status);
        expect_undisturbed(&mut siblings);
    }
}

/// The arguments of a running instance, those of a second one, and what the message must name of what
/// both would forward.
const CONFLICTS: [(&str, &str, &str); 15] = [
    ("tcp/80=10.2.1.2", "tcp/80=10.2.1.2", "tcp-80"),
    ("tcp/80=10.2.1.2", "tcp/80=10.2.2.2:8080", "tcp-80"),
    ("tcp/80=10.2.1.2", "--name=b tcp/80=10.2.2.2", "tcp/80"),
    ("udp/80=10.2.1.2", "--name=b udp/80=10.2.1.2", "udp/80"),
    ("sctp/80=10.2.1.2", "--name=b sctp/80=10.2.1.2", "sctp/80"),
    ("tcp/80=fd00::2", "--name=b tcp/80=fd00::3", "tcp/80"),
    ("tcp/80=fd00::2,10.2.1.2", "--name=b tcp/80=fd00::3", "IPv6"),
    ("tcp/80-90=10.2.1.2", "tcp/85=10.2.1.2", "tcp/85"),
    ("tcp/85=10.2.1.2", "tcp/80-90=10.2.1.2", "tcp/80-90"),
    ("tcp/80-90=10.2.1.2", "tcp/90-99=10.2.1.2", "tcp/90-99"),
    ("tcp/1-65535=fd00::2", "tcp/65535=fd00::2", "tcp/65535"),
    (
        "udp/53=10.2.1.2",
        "tcp/80=10.2.1.2 udp/53=10.2.1.2",
        "udp/53",
    ),
    (
        "--listen=10.1.1.1 tcp/80=10.2.1.2",
        "--name=b tcp/80=10.2.1.2",
        "tcp/80",
    ),
    (
        "--listen=any tcp/80=10.2.1.2",
        "--name=b --listen=10.1.1.1 tcp/80=10.2.1.2",
        "tcp/80",
    ),
    (
        "--listen=10.1.1.1,10.1.1.9 tcp/80=10.2.1.2",
        "--name=b --listen=10.1.1.9 tcp/80=10.2.1.2",
        "tcp/80",
    ),
];

#[test]
fn what_a_running_instance_forwards_is_rejected_and_the_instance_is_named() {
    let node = Namespace::forwarding("node");
    for (first, second, shared) in CONFLICTS {
        let first = nodefwd(first.split(' ')).start(&node);
        let second = nodefwd(second.split(' '));
        let before = node.ruleset();
        let (_, table) = before.split_once("table inet ").expect("a table");
        let (table, _) = table.split_once(' ').expect("its name");

        let monitor = Monitor::start(&node);
        let stderr = second.finish(&node).expect_exit(1).stderr;
        assert_eq!(monitor.changes(), "", "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        expect_parts(&stderr, [shared, table, &first.id().to_string()]);
        assert_eq!(node.ruleset(), before);

        first.stop(Signal::SIGTERM).expect_exit(0);
        let second = second.start(&node);
        second.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// The kernel names a table's owner by a netlink port id, which is the process id only for the first
/// netlink socket of a process.
#[test]
fn the_owner_of_a_table_is_named_by_its_process_id() {
    let node = Namespace::forwarding("node");
    let first = nodefwd(["--drain=1", "tcp/80=10.2.0.11"]).start(&node);
    let second = nodefwd(["--name=b", "tcp/80=10.2.0.11"]);
    let stderr = second.finish(&node).expect_exit(1).stderr;
    let held = if has_owner_flag() { "owned" } else { "held" };
    let named = format!("{held} by process {} (nodefwd): stop that one", first.id());
    expect_parts(&stderr, [named]);
}

#[test]
fn instances_that_differ_in_protocol_port_family_or_listening_address_run_side_by_side() {
    let node = Namespace::forwarding("node");
    let _instances = [
        "tcp/80=10.2.1.2",
        "udp/80=10.2.1.2",
        "sctp/80=10.2.1.2",
        "--name=v6 tcp/80=fd00::2",
        "tcp/81-90=10.2.1.2",
        "tcp/91=10.2.1.2",
        "--listen=10.1.1.1 tcp/92=10.2.1.2",
        "--listen=10.1.1.2 --name=second tcp/92=10.2.1.2",
        "--listen=eth0 tcp/93=10.2.1.2",
        "--listen=eth1,eth2 --name=eth tcp/93=10.2.1.2",
        "--listen=fd00:1::1 --name=sixth tcp/92=fd00::2",
    ]
    .map(|arguments| nodefwd(arguments.split(' ')).start(&node));
}

/// Under the same name or under different ones.
#[test]
fn of_two_conflicting_instances_that_start_at_the_same_moment_exactly_one_becomes_ready() {
    let node = Namespace::forwarding("node");
    for round in 0..60 {
        let other = [
            "tcp/80=10.2.1.2",
            "--name=b udp/53=10.2.1.2 tcp/70-90=10.2.1.2",
        ][round % 2];
        let calls = ["tcp/80=10.2.1.2", other].map(|arguments| nodefwd(arguments.split(' ')));
        let (ready, rejected): (Vec<_>, Vec<_>) = at_once(&node, &calls)
            .into_iter()
            .partition(|process| process.has_said("ready"));
        assert_eq!((ready.len(), rejected.len()), (1, 1), "round {round}");
        for process in rejected {
            process.finish().expect_exit(1);
        }
        for process in ready {
            process.stop(Signal::SIGTERM).expect_exit(0);
        }
        assert_eq!(node.ruleset(), "", "round {round}");
    }
}

fn at_once(node: &Namespace, calls: &[Nodefwd]) -> Vec<Process> {
    let barrier = Barrier::new(calls.len());
    let spawn = |call: &Nodefwd| {
        barrier.wait();
        call.spawn(node)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = calls
            .iter()
            .map(|call| scope.spawn(move || spawn(call)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<Process>| thread.join().expect("a process");
        threads.into_iter().map(join).collect()
    })
}

#[test]
fn one_port_of_two_addresses_goes_to_two_backends() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    for protocol in Protocol::BOTH {
        // The address on the client's link leads to the first backend, that on the first
        // backend's link to the second.
        let node_addrs = [&net.client, &net.backends[0]].map(|host| {
            Family::BOTH.map(|family| SocketAddr::new(host.gateway(family), FORWARDED_PORT))
        });
        let start = |number: usize| {
            let listen = node_addrs[number]
                .map(|node_addr| node_addr.ip().to_string())
                .join(",");
            forward_to(protocol, &net.backends[number..=number])
                .env("NODEFWD_LISTEN", listen)
                .args(&[&format!("--name=number-{number}")])
                .start(&net.node)
        };
        let connect = |number: usize| {
            node_addrs[number].map(|node_addr| {
                net.client
                    .connect(protocol, node_addr)
                    .expect("a connection")
            })
        };
        let expect_replies = |number: usize, flows: &mut [Connection; 2]| {
            let backend = &net.backends[number];
            for (flow, family) in flows.iter_mut().zip(Family::BOTH) {
                let server = format!("backend-{}", number + 1);
                expect_reply(flow.request(), &server, backend.gateway(family));
            }
        };
        let request = |flow: &mut Connection| flow.request().expect("a reply");

        let _first = start(0);
        let mut flows = connect(0);
        expect_replies(0, &mut flows);
        // With the masqueraded ports, which are the same only as long as the flows are.
        let replies = flows.each_mut().map(request);
        let second = start(1);
        expect_replies(1, &mut connect(1));
        assert_eq!(flows.each_mut().map(request), replies);

        second.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(flows.each_mut().map(request), replies);
        expect_replies(0, &mut connect(0));
        for node_addr in node_addrs[1] {
            net.client.expect_refused(protocol, node_addr);
        }
    }
}

/// A rejected start connects to the lock to learn the process id of its holder. That must not wait for
/// the holder, not even when more have connected than the kernel queues.
#[test]
fn any_number_of_rejected_starts_end() {
    let node = Namespace::forwarding("node");
    node.set_sysctl("net/core/somaxconn", "2");
    let first = nodefwd(["tcp/80=10.2.0.11"]).start(&node);
    for _ in 0..10 {
        nodefwd(["tcp/80=10.2.0.11"]).finish(&node).expect_exit(1);
    }
    first.stop(Signal::SIGTERM).expect_exit(0);
}
