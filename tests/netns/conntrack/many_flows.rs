//! Very many flows that are the instance's own.

use std::net::UdpSocket;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::fixture::{EVENT_TIMEOUT, Family, Namespace, Net, Process, field, nodefwd, proc_file};

/// How many flows are forwarded.
pub const FLOWS: usize = 100_000;

/// How much more memory than before the process may take, in KiB: a fortieth of what the kernel says
/// of so many flows.
const MORE_MEMORY: usize = 1024;

fn entries(node: &Namespace) -> usize {
    let count = node.succeed("conntrack", &["--count"]);
    count.trim_end().parse().expect("a number")
}

/// Makes them from two ports.
fn make_flows(net: &Net) {
    let node_addr = net.node_addr(Family::V4, 0).ip();
    let send = || {
        for source in [20_001, 20_002] {
            let socket = UdpSocket::bind(("0.0.0.0", source)).expect("a socket");
            for port in 1..=(FLOWS / 2) as u16 {
                // It may be refused; that is a flow too.
                let _ = socket.send_to(b"hello", (node_addr, port));
            }
        }
    };
    let deadline = Instant::now() + EVENT_TIMEOUT;
    // A datagram is lost where a queue is full.
    while entries(&net.node) < FLOWS {
        assert!(
            Instant::now() < deadline,
            "only {} flows",
            entries(&net.node)
        );
        net.client.run(send);
    }
}

/// Keeps a process from taking more memory.
fn limit_memory(node: &Namespace, process: &Process) {
    let status = proc_file(process.id(), "status");
    let size = field(&status, "VmSize")
        .trim_end_matches(" kB")
        .parse::<usize>();
    let limit = (size.expect("a number") + MORE_MEMORY) * 1024;
    let arguments = [format!("--pid={}", process.id()), format!("--as={limit}")];
    node.succeed("prlimit", &arguments.each_ref().map(String::as_str));
}

#[test]
fn a_stop_deletes_any_number_of_flows_in_little_memory() {
    let net = Net::new(1);
    net.node.keep_udp_entries();
    let forward = format!(
        "udp/1-{}={}",
        FLOWS / 2,
        net.backends[0].address(Family::V4)
    );
    let forwarder = nodefwd([forward]).start(&net.node);
    make_flows(&net);
    limit_memory(&net.node, &forwarder);
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert!(stderr.contains("stopped: "), "{stderr}");
    assert!(!stderr.contains("warning"), "{stderr}");
    let left = entries(&net.node);
    assert!(left < FLOWS / 100, "{left} entries are left");
}
