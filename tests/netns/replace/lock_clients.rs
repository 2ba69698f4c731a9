//! Processes that connect to the lock and are no successors: they get nothing, and keep the instance from
//! nothing.

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::sys::signal::Signal;
use nodefwd::netlink::receive_descriptors;

use super::peer::{
    PROVER, REQUEST, TABLE, ask, connect_as, connect_to_lock, connect_waiting, forward, prove,
    send, try_to_connect,
};
use super::replacing;
use crate::fixture::{
    DELETE_TABLE, NEW_TABLE, Namespace, TempFile, attribute, expect_parts, netfilter_socket,
    nodefwd, proc_file, send_transaction, wait_until,
};

/// How often a process without CAP_NET_ADMIN tries to get the sockets.
pub const ATTEMPTS: usize = 200;

/// How many connections come without a pause.
pub const CONNECTIONS: usize = 50_000;

/// Runs `work` in a thread in the namespace that has no CAP_NET_ADMIN, nor do processes that it starts.
fn without_net_admin<T: Send>(node: &Namespace, work: impl FnOnce() -> T + Send) -> T {
    node.run(|| {
        for set in [CapSet::Bounding, CapSet::Effective, CapSet::Permitted] {
            caps::drop(None, set, Capability::CAP_NET_ADMIN).expect("a dropped capability");
        }
        work()
    })
}

/// Whether the instance passes sockets on, whatever else it sends before it closes the connection.
fn gets_sockets(stream: &UnixStream) -> bool {
    loop {
        match receive_descriptors(stream) {
            Ok(Some(_)) => return true,
            Ok(None) => return false,
            // Data without descriptors.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {}
            Err(_) => return false,
        }
    }
}

/// One of several ways to ask for the sockets without a proof.
fn attack(attempt: usize) -> UnixStream {
    let prover = format!("{attempt:032x}");
    let stream = connect_as(&prover);
    match attempt % 5 {
        0 => send(&stream, b"nodefwd replace 1\nd"),
        1 => send(&stream, &[0; 4096]),
        2 => {
            send(&stream, REQUEST);
            send(&stream, b"pd");
        }
        3 => {
            ask(&stream, &prover);
            send(&stream, b"d");
        }
        _ => {
            let table = ask(&stream, &prover);
            let nft = Command::new("nft")
                .args(["add", "table", "inet", &table])
                .output();
            assert!(!nft.expect("nft").status.success(), "it has CAP_NET_ADMIN");
            send(&stream, b"p");
        }
    }
    stream
}

#[test]
fn a_process_without_cap_net_admin_gets_nothing() {
    let node = Namespace::forwarding("node");
    for owner in ["--owner=true", "--owner=false"] {
        let mut forwarder = forward().args(&[owner, "-v"]).start(&node);
        let before = node.rules();
        for attempt in 0..ATTEMPTS / 2 {
            let stream = without_net_admin(&node, || attack(attempt));
            assert!(!gets_sockets(&stream), "attempt {attempt}");
        }
        assert!(forwarder.is_running());
        assert_eq!(node.rules(), before);
        let ready = nodefwd(["status", "--ready", "web"]);
        ready.finish(&node).expect_exit(0);
        let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
        assert!(!stderr.contains("being replaced"), "{stderr}");
        assert_eq!(node.ruleset(), "");
    }
}

/// An attacker passes the instance's nonce on to a process that has the capability, as if it were the
/// instance. The proof names that process's end of its stream, not the attacker's.
#[test]
fn the_proof_of_another_process_is_worth_nothing() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    let before = node.rules();
    let attacker = node.run(|| connect_as(PROVER));
    let other = ask(&attacker, "00000000000000000000000000000002");
    node.succeed("nft", &["add", "table", "inet", &other]);
    send(&attacker, b"p");
    assert!(!gets_sockets(&attacker));
    // Nor is one for another nonce,
    let attacker = node.run(|| connect_as("00000000000000000000000000000003"));
    ask(&attacker, PROVER);
    send(&attacker, b"p");
    assert!(!gets_sockets(&attacker));
    // nor one without a name to be bound to.
    let attacker = connect_to_lock(&node);
    send(&attacker, REQUEST);
    assert!(!gets_sockets(&attacker));
    node.succeed("nft", &["delete", "table", "inet", &other]);
    assert_eq!(node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn a_successor_that_says_it_is_done_and_is_not_does_not_end_the_instance() {
    for owner in ["--owner=true", "--owner=false"] {
        let node = Namespace::forwarding("node");
        let mut forwarder = forward().args(&[owner]).start(&node);
        let before = node.rules();
        let (thief, _) = prove(&node);
        assert!(gets_sockets(&thief));
        send(&thief, b"d");
        forwarder.wait_for_line(
            "warning: not replaced, going on: the new process says that it is ready, but has not",
        );
        node.wait_for_rules(&before);
        assert!(forwarder.is_running());
        drop(thief);
        let successor = replacing(&forward()).args(&[owner]).start(&node);
        forwarder.finish().expect_exit(0);
        successor.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(node.ruleset(), "");
    }
}

/// The other way round, its own table would be another's, who can remove it.
#[test]
fn a_table_of_another_owner_is_not_that_of_a_successor() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    let (thief, _) = prove(&node);
    let passed = receive_descriptors(&thief).expect("the sockets");
    let [passed, _lock] = passed.expect("the sockets");
    // NFTA_TABLE_NAME, and the flag for an owner in NFTA_TABLE_FLAGS.
    let name = attribute(1, format!("{TABLE}\0").as_bytes());
    let owned = [name.clone(), attribute(2, &2u32.to_be_bytes())];
    send_transaction(&passed, &[(DELETE_TABLE, &[name])]);
    let own = node.run(netfilter_socket);
    send_transaction(&own, &[(NEW_TABLE, &owned)]);
    expect_parts(
        &node.ruleset(),
        [format!("table inet {TABLE} {{ # progname")],
    );
    send(&thief, b"d");
    // It cannot have its table back as long as the other is there.
    let stderr = forwarder.finish().expect_exit(1).stderr;
    expect_parts(&stderr, ["being replaced by process", "error: "]);
    assert!(!stderr.contains("\nreplaced by"), "{stderr}");
}

#[test]
fn a_signal_ends_an_instance_that_waits_for_its_successor() {
    for owner in ["--owner=true", "--owner=false"] {
        let node = Namespace::forwarding("node");
        let forwarder = forward().args(&[owner]).start(&node);
        let (silent, _) = prove(&node);
        assert!(gets_sockets(&silent));
        let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
        expect_parts(
            &stderr,
            ["was not ready when a signal came", "stopped: removed"],
        );
        drop(silent);
        node.wait_for_rules("");
    }
}

/// One without an owner stays when both processes do not remove it, and here its maker does not.
#[test]
fn the_proof_of_a_successor_that_has_died_is_removed() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    let before = node.rules();
    let stream = node.run(|| connect_as(PROVER));
    let table = ask(&stream, PROVER);
    node.succeed("nft", &["add", "table", "inet", &table]);
    expect_parts(&node.rules(), [table]);
    drop(stream);
    node.wait_for_rules(&before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// User and system time that a process has used, in ticks of 10 ms: the 14th and 15th field.
fn ticks(pid: u32) -> u64 {
    let stat = proc_file(pid, "stat");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields = fields.split_ascii_whitespace().skip(11).take(2);
    fields
        .map(|ticks| ticks.parse::<u64>().expect("ticks"))
        .sum()
}

#[test]
fn a_flood_of_connections_costs_little_and_keeps_the_instance_from_nothing() {
    let node = Namespace::forwarding("node");
    let forwarder = forward().args(&["-v"]).start(&node);
    forwarder.wait_until_unprivileged();
    let before = node.rules();
    let (begin, used) = (Instant::now(), ticks(forwarder.id()));
    let flood = || (0..CONNECTIONS / 2).filter(|_| try_to_connect()).count();
    let taken: usize = thread::scope(|scope| {
        let threads = [0; 2].map(|_| scope.spawn(|| without_net_admin(&node, flood)));
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a flood"))
            .sum()
    });
    // It has seen some, but by far not all.
    let line = "debug: clients of the lock that have not proved";
    forwarder.wait_for_line(line);
    let used = ticks(forwarder.id()) - used;
    let seconds = begin.elapsed().as_secs();
    assert!(taken < CONNECTIONS, "the kernel's queue was never full");
    assert!(used <= 20 + 2 * seconds, "{used} ticks in {seconds} s");
    let lines = forwarder.stderr().matches(line).count() as u64;
    assert!(lines <= 2 + seconds, "{lines} lines in {seconds} s");
    assert_eq!(node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

/// How many connections that send nothing are there at any time.
pub const IDLE: usize = 4400;

/// Connects and sends nothing, again and again, and keeps so many of the connections open.
fn idle_flood(count: usize, ends: &AtomicBool) {
    let mut idle = VecDeque::new();
    while !ends.load(Ordering::Relaxed) {
        idle.extend(connect_waiting().ok());
        if idle.len() > count {
            idle.pop_front();
        }
    }
}

#[test]
fn a_process_that_may_gets_through_connections_that_send_nothing() {
    let node = Namespace::forwarding("node");
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\n");
    let named = nodefwd(["--name=web"]).env("NODEFWD_ENV_FILE", file.path());
    let forwarder = named.start(&node);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..IDLE / 100 {
            scope.spawn(|| node.run(|| idle_flood(100, &ends)));
        }
        let flood = || forwarder.open_files().len();
        wait_until("the flood", flood, |files| *files > 64);
        // Each waits 10 s at most.
        let work = || {
            nodefwd(["reload", "web"]).finish(&node).expect_exit(0);
            replacing(&named).start(&node)
        };
        let outcome = panic::catch_unwind(AssertUnwindSafe(work));
        ends.store(true, Ordering::Relaxed);
        let successor = outcome.unwrap_or_else(|cause| panic::resume_unwind(cause));
        forwarder.finish().expect_exit(0);
        successor.stop(Signal::SIGTERM).expect_exit(0);
    });
}

/// How many clients ask, and claim a proof that they have not made.
pub const CLAIMS: usize = 4000;

/// How many of them are accepted in a second, and how many may ask.
const ACCEPTED_PER_SECOND: usize = 1024;
const ASKING_PER_SECOND: usize = 256;

/// Whether the client has been asked for its proof.
fn claim(number: usize) -> bool {
    let stream = connect_as(&format!("{number:032x}"));
    send(&stream, REQUEST);
    let asked = (&stream).read_exact(&mut [0; 32]).is_ok();
    send(&stream, b"p");
    assert!(!gets_sockets(&stream), "client {number}");
    asked
}

/// All of them, one after the other in each thread. Gives how many were asked.
fn claims(node: &Namespace) -> usize {
    const THREADS: usize = 16;
    let claims = |thread| {
        let numbers = (thread..CLAIMS).step_by(THREADS);
        node.run(|| numbers.filter(|number| claim(*number)).count())
    };
    thread::scope(|scope| {
        let threads: [usize; THREADS] = std::array::from_fn(|thread| thread);
        let threads = threads.map(|thread| scope.spawn(move || claims(thread)));
        let counts = threads.map(|thread| thread.join().expect("claims"));
        counts.iter().sum()
    })
}

/// Fails the test if there were more in the time since `begin` than so many a second. One second more, as one may
/// begin in between, and one for what is done at once.
fn expect_at_most(per_second: usize, count: usize, begin: Instant) {
    let seconds = begin.elapsed().as_secs() as usize + 2;
    assert!(count <= per_second * seconds, "{count} in {seconds} s");
}

#[test]
fn a_flood_of_clients_that_claim_a_proof_is_served_within_limits() {
    let node = Namespace::forwarding("node");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("claims");
    let output = format!("--output={}", file.display());
    let call = forward().traced(&["--trace=accept4,sendto", &output]);
    let forwarder = call.start(&node);
    forwarder.wait_until_unprivileged();
    let before = node.rules();
    let traced = || fs::read_to_string(&file).expect("a trace");
    let (begin, start) = (Instant::now(), traced().len());
    let asked = claims(&node);
    let trace = traced();
    let count = |call| trace[start..].matches(call).count();
    expect_at_most(
        ACCEPTED_PER_SECOND,
        count("accept4(") - count("EAGAIN"),
        begin,
    );
    expect_at_most(ASKING_PER_SECOND, asked, begin);
    // One look for the proof of each, and one for what is left of it.
    let looks = count("NFT_MSG_GETTABLE");
    assert!(asked > 0 && looks <= 2 * asked, "{looks} for {asked}");
    assert_eq!(node.rules(), before);
    let successor = replacing(&forward()).start(&node);
    forwarder.finish().expect_exit(0);
    successor.stop(Signal::SIGTERM).expect_exit(0);
}

/// How often it tries to accept a connection without a free descriptor.
pub const REFUSALS: usize = 4;

#[test]
fn without_free_descriptors_it_says_so_once_and_goes_on() {
    let node = Namespace::forwarding("node");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("descriptors");
    let output = format!("--output={}", file.display());
    let traced = forward().traced(&["--trace=accept4", &output]);
    let forwarder = traced.start(&node);
    forwarder.wait_until_unprivileged();
    let pid = forwarder.id().to_string();
    node.succeed("prlimit", &["--nofile=3:", "--pid", &pid]);
    let warning = "warning: cannot accept a connection to the lock";
    let begin = Instant::now();
    let clients: Vec<UnixStream> = (0..3).map(|_| connect_to_lock(&node)).collect();
    let refusals = || {
        let trace = fs::read_to_string(&file).expect("a trace");
        trace.matches("EMFILE").count()
    };
    wait_until("more attempts", refusals, |count| *count >= REFUSALS);
    let pauses = Duration::from_secs(REFUSALS as u64 - 1);
    assert!(begin.elapsed() >= pauses, "{:?}", begin.elapsed());
    forwarder.wait_for_line(warning);
    node.succeed("prlimit", &["--nofile=1024:", "--pid", &pid]);
    for client in &clients {
        assert!(!gets_sockets(client));
    }
    let successor = replacing(&forward()).start(&node);
    let stderr = forwarder.finish().expect_exit(0).stderr;
    assert_eq!(stderr.matches(warning).count(), 1, "{stderr}");
    expect_parts(&node.ruleset(), [TABLE]);
    successor.stop(Signal::SIGTERM).expect_exit(0);
}
