//! HUP: an instance with a file of options reads it again, and changes its rules in place.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use serde_json::Value;

use super::SECOND_PORT;
use super::flows::{expect_nothing_lost, live_flows};
use super::peer::{PROVER, connect_as, connect_to_lock};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Host, Manager, Namespace, Net, Nodefwd, OTHER_NAT, Outcome,
    Process, Protocol, TempFile, addresses, expect_parts, nodefwd, wait_until,
};

/// Forwards [`FORWARDED_PORT`] and [`SECOND_PORT`] of both protocols and families to a host.
pub fn both_ports(host: &Host) -> String {
    format!(
        "NODEFWD_NAME=web\nDEST_IPS={}\nDEST_PROTO=TCP,UDP\nSRC_PORT={FORWARDED_PORT},{SECOND_PORT}\nDEST_PORT={BACKEND_PORT},{SECOND_PORT}\n",
        addresses(host)
    )
}

fn with_file(file: &TempFile) -> Nodefwd {
    nodefwd([""; 0]).env("NODEFWD_ENV_FILE", file.path())
}

/// Sends HUP, and waits for what comes of it: a line that begins like this. Gives the line.
#[track_caller]
fn reload(forwarder: &mut Process, outcome: &str) -> String {
    let lines = |forwarder: &Process| {
        let stderr = forwarder.stderr();
        let lines = stderr.lines().filter(|line| line.starts_with(outcome));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = lines(forwarder).len();
    forwarder.signal(Signal::SIGHUP);
    let found = wait_until(outcome, || lines(forwarder), |found| found.len() > before);
    found[before].clone()
}

const DONE: &str = "reloaded: ";
const FAILED: &str = "warning: not reloaded, going on with the rules as they are: ";

fn expect_nothing_lost_across_reloads(owner: &str) {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    let file = TempFile::new(both_ports(backend));
    let mut forwarder = with_file(&file).args(&[owner]).start(&net.node);
    let before = net.node.rules();
    let mut extra = false;
    expect_nothing_lost(&net, || {
        extra = !extra;
        let more = if extra {
            "NODEFWD_FORWARDS=tcp/5000-5999=10.9.9.9\n"
        } else {
            ""
        };
        file.write(both_ports(backend) + more);
        reload(&mut forwarder, DONE);
        assert_eq!(net.node.rules() != before, extra);
    });
    assert_eq!(net.node.rules(), before);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

#[test]
fn no_packet_flow_or_new_connection_is_lost_across_reloads() {
    expect_nothing_lost_across_reloads("--owner=true");
}

#[test]
fn without_the_owner_flag_nothing_is_lost_across_reloads() {
    expect_nothing_lost_across_reloads("--owner=false");
}

#[test]
fn tcp_connections_stay_udp_flows_move_and_those_to_ports_that_are_gone_end() {
    let net = Net::new(2);
    // Without it the kernel would end all that the last nat table had translated.
    net.node.load(OTHER_NAT);
    let _servers = [BACKEND_PORT, SECOND_PORT].map(|port| net.serve(port));
    let file = TempFile::new(both_ports(&net.backends[0]));
    let mut forwarder = with_file(&file).start(&net.node);
    let flows = |protocol, port| live_flows(&net, protocol, port);
    let [tcp, udp] = Protocol::BOTH.map(|protocol| flows(protocol, FORWARDED_PORT));
    let gone = Protocol::BOTH.map(|protocol| flows(protocol, SECOND_PORT));

    let other = both_ports(&net.backends[1]);
    file.write(other + &format!("SRC_PORT={FORWARDED_PORT}\nDEST_PORT={BACKEND_PORT}\n"));
    reload(&mut forwarder, DONE);
    for mut flow in tcp {
        assert_eq!(flow.reply.server, "backend-1");
        flow.expect_unchanged();
    }
    for mut flow in udp {
        assert_eq!(flow.reply.server, "backend-1");
        assert_eq!(flow.request().expect("a reply").server, "backend-2");
    }
    for mut flow in gone.into_iter().flatten() {
        flow.expect_closed();
    }
    for protocol in Protocol::BOTH {
        for flow in flows(protocol, FORWARDED_PORT) {
            assert_eq!(flow.reply.server, "backend-2");
        }
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    let rest = net.node.ruleset();
    assert!(!rest.contains("nodefwd"), "{rest}");
}

fn reload_failed(node: &Namespace) -> bool {
    let status = nodefwd(["status", "--format=json"])
        .finish(node)
        .expect_success();
    let status: Value = serde_json::from_str(&status).expect("JSON");
    status["instances"][0]["reload_failed"]
        .as_bool()
        .expect("a boolean")
}

#[test]
fn bad_input_leaves_the_rules_and_is_said_until_a_reload_succeeds() {
    let net = Net::new(1);
    let _server = net.backends[0].serve(BACKEND_PORT);
    let good = both_ports(&net.backends[0]);
    let file = TempFile::new(&good);
    let manager = Manager::at_path("bad-reload");
    let mut forwarder = manager.of(with_file(&file)).start(&net.node);
    expect_parts(&manager.receive(), ["READY=1"]);
    let rules = net.node.rules();
    assert!(!reload_failed(&net.node));
    let line = format!("{}, line 6: ", file.path().display());
    for (bad, reason) in [
        ("NODEFWD_LISTEN=nowhere/", "'nowhere/'"),
        (
            "NODEFWD_NAME=other",
            "NODEFWD_NAME (--name) cannot change while the instance runs",
        ),
        (
            "NODEFWD_OWNER=false",
            "NODEFWD_OWNER (--owner) cannot change while the instance runs",
        ),
    ] {
        file.write(format!("{good}{bad}\n"));
        let said = reload(&mut forwarder, FAILED);
        expect_parts(&said, [line.as_str(), reason]);
        let reloading = manager.receive();
        expect_parts(&reloading, ["RELOADING=1\n", "MONOTONIC_USEC="]);
        let failed = manager.receive();
        expect_parts(&failed, ["READY=1\n", "STATUS=not reloaded: ", reason]);
        assert!(reload_failed(&net.node));
        let text = nodefwd(["status"]).finish(&net.node).expect_success();
        expect_parts(&text, ["the last reload failed"]);
    }
    // Only the chain that tells of it was added.
    let marked = net.node.rules();
    assert_eq!(
        marked.replace("\n\tchain reload-failed {\n\t}\n", ""),
        rules
    );
    live_flows(&net, Protocol::Tcp, FORWARDED_PORT);

    file.write(&good);
    reload(&mut forwarder, DONE);
    expect_parts(&manager.receive(), ["RELOADING=1\n"]);
    expect_parts(&manager.receive(), ["READY=1\n", "STATUS=forwarding"]);
    assert_eq!(net.node.rules(), rules);
    assert!(!reload_failed(&net.node));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// The kernel would take the rules: another instance forwards the port, or this host forwards nothing.
#[test]
fn what_a_start_refuses_a_reload_refuses_too() {
    let net = Net::new(1);
    let good = both_ports(&net.backends[0]);
    let file = TempFile::new(&good);
    let mut forwarder = with_file(&file).start(&net.node);
    let _sibling = nodefwd(["--name=other", "tcp/70=10.9.9.9"]).start(&net.node);
    file.write(format!("{good}NODEFWD_FORWARDS=tcp/70=10.9.9.9\n"));
    let said = reload(&mut forwarder, FAILED);
    expect_parts(
        &said,
        ["tcp/70 over IPv4 is already forwarded by table inet nodefwd-other"],
    );
    file.write(format!("{good}NODEFWD_STRICT=true\n"));
    net.node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    let said = reload(&mut forwarder, FAILED);
    expect_parts(&said, ["cannot forward: IPv6 forwarding is off"]);
    drop(file);
    expect_parts(&reload(&mut forwarder, FAILED), ["No such file"]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn an_instance_keeps_the_name_that_its_first_forward_gave_it() {
    let node = Namespace::forwarding("node");
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\n");
    let mut forwarder = with_file(&file).start(&node);
    file.write("NODEFWD_FORWARDS=tcp/81=10.2.0.11\n");
    let said = reload(&mut forwarder, DONE);
    assert_eq!(
        said,
        "reloaded: forwarding tcp/81=10.2.0.11:81 in table inet nodefwd-tcp-80"
    );
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

/// Many HUPs at once are one reload or a few, and the last file counts.
#[test]
fn no_hup_is_lost() {
    let node = Namespace::forwarding("node");
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\n");
    let mut forwarder = with_file(&file).start(&node);
    for _ in 0..200 {
        forwarder.signal(Signal::SIGHUP);
    }
    file.write("NODEFWD_FORWARDS=tcp/80=10.2.0.12\n");
    forwarder.signal(Signal::SIGHUP);
    wait_until(
        "the last file",
        || node.rules(),
        |rules| rules.contains("10.2.0.12"),
    );
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

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
