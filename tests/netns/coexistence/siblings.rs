//! Several instances in one network namespace: none disturbs another or takes what it has.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::fixture::{
    Answer, Connection, Family, LIMIT, Monitor, Namespace, Net, Nodefwd, Process, Protocol, nodefwd,
};
use crate::fixture::{BACK, FRONT, expect_answer, forward_to};

/// Each differs from the others in its protocol or port only: all go to the same destination, so
/// that nothing but those two can tell whose a flow is.
const SERVICES: [(Protocol, u16); 4] = [
    (Protocol::Tcp, FRONT),
    (Protocol::Udp, FRONT),
    (Protocol::Tcp, FRONT + 1),
    (Protocol::Udp, FRONT + 1),
];

/// A running instance with a live flow of each family.
struct Sibling<'a> {
    net: &'a Net,
    service: (Protocol, u16),
    process: Process,
    rules: String,
    flows: Vec<(Connection, Answer)>,
}

impl<'a> Sibling<'a> {
    fn start(net: &'a Net, (protocol, port): (Protocol, u16)) -> Self {
        let call = forward_to(protocol, &net.backends).args(&[&format!("--src-port={port}")]);
        let process = call.start(&net.node);
        let flow = |family| {
            let mut flow = net
                .client
                .connect(protocol, net.front(family, port))
                .expect("a connection");
            let answer = flow.ask().expect("an answer");
            (flow, answer)
        };
        let mut sibling = Sibling {
            net,
            service: (protocol, port),
            process,
            rules: String::new(),
            flows: Family::BOTH.map(flow).into(),
        };
        sibling.rules = sibling.rules();
        sibling
    }

    fn table(&self) -> String {
        let (protocol, port) = self.service;
        format!("nodefwd-{}-{port}", protocol.name())
    }

    /// With the handles, which no rule gets back that was gone for a moment; without counters.
    fn rules(&self) -> String {
        let table = self.table();
        let list = ["--stateless", "--handle", "list", "table", "inet", &table];
        self.net.node.succeed("nft", &list)
    }

    #[track_caller]
    fn expect_undisturbed(&mut self) {
        assert_eq!(self.rules(), self.rules);
        // The backend sees the same masqueraded port only as long as the flow is the same.
        for (flow, answer) in &mut self.flows {
            assert_eq!(flow.ask().expect("an answer"), *answer);
        }
        let (protocol, port) = self.service;
        for family in Family::BOTH {
            let answer = self
                .net
                .client
                .request(protocol, self.net.front(family, port));
            answer.expect("an answer on a new flow");
        }
    }

    #[track_caller]
    fn end(self, signal: Signal) {
        let table = self.table();
        let outcome = self.process.stop(signal);
        if signal != Signal::SIGKILL {
            outcome.expect_exit(0);
        }
        wait_until_gone(&self.net.node, &table);
        let (protocol, port) = self.service;
        for family in Family::BOTH {
            let front = self.net.front(family, port);
            self.net.client.expect_refused(protocol, front);
        }
    }
}

#[track_caller]
fn expect_undisturbed(siblings: &mut [Sibling]) {
    for sibling in siblings {
        sibling.expect_undisturbed();
    }
}

/// The kernel removes what a killed process owned a moment after it has gone.
fn wait_until_gone(node: &Namespace, table: &str) {
    let deadline = Instant::now() + LIMIT;
    while node.ruleset().contains(&format!("table inet {table} ")) {
        assert!(Instant::now() < deadline, "{}", node.ruleset());
    }
}

#[test]
fn instances_come_and_go_and_leave_the_others_alone() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACK);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut siblings: Vec<Sibling> = Vec::new();
        for service in SERVICES {
            let newcomer = Sibling::start(&net, service);
            siblings.push(newcomer);
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
    let _server = net.backends[0].serve(BACK);
    let mut siblings = SERVICES.map(|service| Sibling::start(&net, service));
    net.node.load("table inet nodefwd-foreign");
    let call = |arguments: &[&str]| forward_to(Protocol::Tcp, &net.backends).args(arguments);
    for (call, status) in [
        // Taken, in whole and in part.
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

/// What the first instance has, what the second asks for, and what both claim.
const TAKEN: [(&str, &str, &str); 15] = [
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
fn what_a_live_instance_has_is_refused_by_name() {
    let node = Namespace::forwarding("node");
    for (first, second, shared) in TAKEN {
        let first = nodefwd(first.split(' ')).start(&node);
        let second = nodefwd(second.split(' '));
        let before = node.ruleset();
        let (_, table) = before.split_once("table inet ").expect("a table");
        let (table, _) = table.split_once(' ').expect("its name");

        let monitor = Monitor::start(&node);
        let stderr = second.finish(&node).expect_exit(1).stderr;
        assert_eq!(monitor.changes(), "", "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in [shared, table, &first.id().to_string()] {
            assert!(stderr.contains(word), "'{word}' is not in: {stderr}");
        }
        assert_eq!(node.ruleset(), before);

        first.stop(Signal::SIGTERM).expect_exit(0);
        let second = second.start(&node);
        second.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// The table's owner is a netlink port, which is the process's number only if it had no such socket
/// before.
#[test]
fn its_owner_is_named_by_the_right_number() {
    let node = Namespace::forwarding("node");
    let first = nodefwd(["--drain=1", "tcp/80=10.2.0.11"]).start(&node);
    let second = nodefwd(["--name=b", "tcp/80=10.2.0.11"]);
    let stderr = second.finish(&node).expect_exit(1).stderr;
    let named = format!("owned by process {} (nodefwd): stop that one", first.id());
    assert!(stderr.contains(&named), "{stderr}");
}

#[test]
fn what_nobody_else_has_is_free() {
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
        "--listen=fd00:1::1 --name=sixth tcp/92=fd00::2",
    ]
    .map(|arguments| nodefwd(arguments.split(' ')).start(&node));
}

/// Whoever comes first, under the same name or another.
#[test]
fn of_two_that_start_at_the_same_moment_exactly_one_becomes_ready() {
    let node = Namespace::forwarding("node");
    for round in 0..60 {
        let other = [
            "tcp/80=10.2.1.2",
            "--name=b udp/53=10.2.1.2 tcp/70-90=10.2.1.2",
        ][round % 2];
        let calls = ["tcp/80=10.2.1.2", other].map(|arguments| nodefwd(arguments.split(' ')));
        let (ready, refused): (Vec<_>, Vec<_>) = at_once(&node, &calls)
            .into_iter()
            .partition(|process| process.has_said("ready"));
        assert_eq!((ready.len(), refused.len()), (1, 1), "round {round}");
        for process in refused {
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
fn one_port_of_two_addresses_goes_to_two_destinations() {
    let net = Net::new(2);
    let _servers: Vec<_> = net.backends.iter().map(|host| host.serve(BACK)).collect();
    for protocol in Protocol::BOTH {
        // The address on the client's link leads to the first backend, that on the first
        // backend's link to the second.
        let fronts = [&net.client, &net.backends[0]]
            .map(|host| Family::BOTH.map(|family| SocketAddr::new(host.gateway(family), FRONT)));
        let start = |number: usize| {
            let listen = fronts[number].map(|front| front.ip().to_string()).join(",");
            forward_to(protocol, &net.backends[number..=number])
                .env("NODEFWD_LISTEN", listen)
                .args(&[&format!("--name=number-{number}")])
                .start(&net.node)
        };
        let connect = |number: usize| {
            fronts[number].map(|front| net.client.connect(protocol, front).expect("a connection"))
        };
        let expect_answers = |number: usize, flows: &mut [Connection; 2]| {
            let backend = &net.backends[number];
            for (flow, family) in flows.iter_mut().zip(Family::BOTH) {
                let server = format!("backend-{}", number + 1);
                expect_answer(flow.ask(), &server, backend.gateway(family));
            }
        };
        let ask = |flow: &mut Connection| flow.ask().expect("an answer");

        let _first = start(0);
        let mut flows = connect(0);
        expect_answers(0, &mut flows);
        // With the ports, that stay only as long as the flows are the same.
        let answers = flows.each_mut().map(ask);
        let second = start(1);
        expect_answers(1, &mut connect(1));
        assert_eq!(flows.each_mut().map(ask), answers);

        second.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(flows.each_mut().map(ask), answers);
        expect_answers(0, &mut connect(0));
        for front in fronts[1] {
            net.client.expect_refused(protocol, front);
        }
    }
}

/// Whoever is refused asks the lock who holds it. Nobody answers, so that must not wait, not even when
/// more have asked than the kernel lets queue.
#[test]
fn any_number_of_refused_starts_end() {
    let node = Namespace::forwarding("node");
    node.set_sysctl("net/core/somaxconn", "2");
    let first = nodefwd(["tcp/80=10.2.0.11"]).start(&node);
    for _ in 0..10 {
        nodefwd(["tcp/80=10.2.0.11"]).finish(&node).expect_exit(1);
    }
    first.stop(Signal::SIGTERM).expect_exit(0);
}
