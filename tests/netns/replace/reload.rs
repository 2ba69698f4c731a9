//! HUP: an instance with a file of options reads it again, and changes its rules in place.

mod request;

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use super::SECOND_PORT;
use super::flows::{expect_nothing_lost, live_flows};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Host, Manager, Namespace, Net, Nodefwd, OTHER_NAT, Process,
    Protocol, TempFile, TempFolder, addresses, expect_parts, nodefwd, wait_until,
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

/// The forwards of a family that is off are those of the last file, too.
#[test]
fn a_family_that_is_switched_on_after_a_reload_has_its_rules() {
    let node = Namespace::forwarding("node");
    node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11,fd00:2::11\n");
    let mut forwarder = with_file(&file).start(&node);
    file.write("NODEFWD_FORWARDS=tcp/80=10.2.0.12,fd00:2::12\n");
    reload(&mut forwarder, DONE);
    node.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    forwarder.wait_for_line("ready: forwarding tcp/80=10.2.0.12:80 tcp/80=[fd00:2::12]:80");
    assert!(!node.rules().contains("fd00:2::11"));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// As the shell's `<(…)` is one. Whoever has it open and writes nothing would stop the instance for ever.
#[test]
fn a_pipe_is_read_at_the_start_only() {
    let node = Namespace::forwarding("node");
    let folder = TempFolder::new();
    let path = folder.path().join("web.env");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    let call = nodefwd([""; 0]).env("NODEFWD_ENV_FILE", &path);
    let mut forwarder = call.spawn(&node);
    std::fs::write(&path, "NODEFWD_FORWARDS=tcp/80=10.2.0.11\n").expect("a reader");
    forwarder.wait_for_line("ready");
    let rules = node.rules();
    let open = std::fs::File::options().read(true).write(true).open(&path);
    let said = reload(&mut forwarder, FAILED);
    expect_parts(
        &said,
        ["is a pipe or a device, which is read at the start only"],
    );
    drop(open);
    expect_parts(&node.rules(), [rules.trim_end().trim_end_matches('}')]);
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

/// What keeps packets from passing is said then too, as at a start.
#[test]
fn after_a_reload_it_looks_around() {
    let node = Namespace::forwarding("node");
    node.add_loopback_address([10, 2, 0, 12].into());
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.12:8080\n");
    let mut forwarder = with_file(&file).start(&node);
    node.load(
        "table inet busy {\n chain input {\n type filter hook input priority 0\n tcp dport 8081 drop\n }\n }",
    );
    reload(&mut forwarder, DONE);
    file.write("NODEFWD_FORWARDS=tcp/80=10.2.0.12:8081\n");
    reload(&mut forwarder, DONE);
    let said = forwarder.wait_for_line("warning: firewall: ");
    expect_parts(&said, ["table inet busy", "10.2.0.12"]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Many HUPs at once are one reload or a few, and the last file counts.
#[test]
fn no_hup_is_lost() {
    let node = Namespace::forwarding("node");
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\n");
    let mut forwarder = with_file(&file).start(&node);
    // When it has looked around after its start.
    reload(&mut forwarder, DONE);
    let begin = Instant::now();
    for _ in 0..200 {
        forwarder.signal(Signal::SIGHUP);
        sleep(Duration::from_millis(5));
    }
    file.write("NODEFWD_FORWARDS=tcp/80=10.2.0.12\n");
    forwarder.signal(Signal::SIGHUP);
    wait_until(
        "the last file",
        || node.rules(),
        |rules| rules.contains("10.2.0.12"),
    );
    // Four in a second, and one before and one after.
    let most = 2 + begin.elapsed().as_millis() as usize / 250;
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    let reloads = stderr.matches(DONE).count() - 1;
    assert!((2..=most).contains(&reloads), "{reloads} of {most}");
    assert_eq!(node.ruleset(), "");
}
