//! `nodefwd reload`: who may ask for it, and what the command says.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};

use super::super::peer::{PROVER, connect_as, connect_to_lock};
use super::{both_ports, reload_failed, with_file};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Namespace, Net, Outcome, Process, Protocol, TempFile,
    expect_parts, nodefwd,
};

/// Asks for a reload with the command.
fn request(node: &Namespace) -> Outcome {
    nodefwd(["reload", "web"]).finish(node)
}

#[test]
fn the_command_waits_for_the_reload_and_fails_with_it() {
    let node = Namespace::forwarding("node");
    expect_parts(
        &request(&node).expect_exit(1).stderr,
        ["no instance 'web' answers"],
    );
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\n");
    let named = with_file(&file).env("NODEFWD_NAME", "web");
    let forwarder = named.start(&node);
    file.write("NODEFWD_FORWARDS=tcp/80=10.2.0.12\n");
    let outcome = request(&node).expect_exit(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    let rules = node.rules();
    expect_parts(&rules, ["10.2.0.12"]);

    file.write("NODEFWD_FORWARDS=nonsense\n");
    // As a service's ExecReload: the name is in the environment.
    let outcome = nodefwd(["reload"]).env("NODEFWD_NAME", "web").finish(&node);
    let location = format!("{}, line 1: ", file.path().display());
    let stderr = outcome.expect_exit(1).stderr;
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let going_on = "error: not reloaded: instance web goes on with the rules as they were: ";
    expect_parts(&stderr, [going_on, &location, "'nonsense'"]);
    expect_parts(&node.rules(), ["10.2.0.12", "chain reload-failed"]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// HUP would end it.
#[test]
fn the_command_leaves_an_instance_without_a_file_as_it_is() {
    let node = Namespace::forwarding("node");
    let forwarder = nodefwd(["--name=web", "tcp/80=10.2.0.11"]).start(&node);
    let stderr = request(&node).expect_exit(1).stderr;
    expect_parts(
        &stderr,
        ["it was started without NODEFWD_ENV_FILE (--env-file)"],
    );
    assert!(!reload_failed(&node));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn an_instance_that_drains_reloads_no_more() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let text = both_ports(&net.backends[0]) + "NODEFWD_DRAIN=60\n";
    let file = TempFile::new(&text);
    let mut forwarder = with_file(&file).start(&net.node);
    let node_addr = net.node_addr(Family::V4, FORWARDED_PORT);
    let mut flow = net.client.live_flow(Protocol::Tcp, node_addr);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(1);
    let rules = net.node.rules();
    file.write(text + "NODEFWD_FORWARDS=tcp/5000=10.9.9.9\n");
    forwarder.signal(Signal::SIGHUP);
    let stderr = request(&net.node).expect_exit(1).stderr;
    expect_parts(
        &stderr,
        ["it is ending, and only lets running connections finish"],
    );
    assert_eq!(net.node.rules(), rules);
    flow.expect_unchanged();
    drop(flow);
    forwarder.wait_until_drained();
    forwarder.finish().expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

/// Whoever runs the instance, and whoever asks.
#[test]
fn only_a_process_with_cap_net_admin_can_have_an_instance_reload() {
    let node = Namespace::forwarding("node");
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\n");
    let named = with_file(&file).env("NODEFWD_NAME", "web");
    for call in [named.clone(), named.run_as_nobody_with_net_admin()] {
        let forwarder = call.start(&node);
        let request = nodefwd(["reload", "web"]);
        for powerless in [
            request.clone().run_as_nobody(&[]),
            request.clone().without_net_admin(),
        ] {
            let stderr = powerless.finish(&node).expect_exit(1).stderr;
            expect_parts(&stderr, ["error: not reloaded: ", "CAP_NET_ADMIN"]);
        }
        let asked = ask_to_reload(&node, &forwarder);
        assert_eq!(asked, Some(0), "it reloads for a process without a proof");
        for able in [request.clone(), request.run_as_nobody_with_net_admin()] {
            able.finish(&node).expect_exit(0);
        }
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}

/// Asks by hand, in every way but the right one; gives how often it was done.
fn ask_to_reload(node: &Namespace, forwarder: &Process) -> Option<usize> {
    for proof in [&b""[..], b"p", b"pp", b"d"] {
        let mut stream = node.run(|| connect_as(PROVER));
        stream.write_all(b"nodefwd reload 2\n").ok()?;
        stream.read_exact(&mut [0; 32]).ok()?;
        stream.write_all(proof).ok()?;
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        assert_eq!(answer, b"");
    }
    // As a version before asked, and from no nonce's name.
    for word in ["nodefwd reload 1\n", "nodefwd reload 2\n"] {
        let mut stream = connect_to_lock(node);
        stream.write_all(word.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        assert_eq!(answer, b"");
    }
    Some(forwarder.stderr().matches("reloaded: ").count())
}

/// How many processes ask for a reload at the same time, and send HUP, without a pause.
const ASKING: usize = 4;
const REQUESTS: usize = 10;

#[test]
fn many_requests_are_few_reloads() {
    let node = Namespace::forwarding("node");
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\n");
    let mut forwarder = with_file(&file).env("NODEFWD_NAME", "web").start(&node);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..ASKING {
            scope.spawn(|| (0..REQUESTS).for_each(|_| drop(request(&node).expect_exit(0))));
        }
        for _ in 0..1000 {
            forwarder.signal(Signal::SIGHUP);
            thread::sleep(Duration::from_millis(1));
        }
    });
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    let most = 2 + begin.elapsed().as_millis() / 250;
    let count = stderr.matches("reloaded: ").count();
    assert!(count as u128 <= most, "{count} in {:?}", begin.elapsed());
}

/// Any process can bind the name, and say anything.
#[test]
fn the_command_believes_nobody_but_the_owner_of_the_table() {
    let node = Namespace::forwarding("node");
    let address = SocketAddr::from_abstract_name("nodefwd-web").expect("an address");
    let squatter = node.run(|| UnixListener::bind_addr(&address).expect("a free name"));
    let forwarder = nodefwd(["--name=web", "tcp/80=10.2.0.11"]).start(&node);
    let listener = squatter.try_clone().expect("a descriptor");
    let answers = thread::spawn(move || {
        let mut clients = Vec::new();
        while let Ok((mut client, _)) = listener.accept() {
            // Who only asks who holds the name has hung up.
            let _ = client.write_all(b"reloaded\n");
            clients.push(client);
        }
    });
    let stderr = request(&node).expect_exit(1).stderr;
    let holder = format!(
        "process {} of user 0 holds the abstract socket @nodefwd-web",
        std::process::id()
    );
    expect_parts(
        &stderr,
        [
            holder.as_str(),
            "is not the process that owns table inet nodefwd-web",
        ],
    );
    shutdown(squatter.as_raw_fd(), Shutdown::Both).expect("no more clients");
    answers.join().expect("a thread");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}
