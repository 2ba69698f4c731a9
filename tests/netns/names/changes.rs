//! Answers that change while an instance runs.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{HOME, Names};
use crate::fixture::{
    BACKEND_PORT, FORWARDED_PORT, Family, Manager, OTHER_NAT, Process, Protocol, Says, TempFile,
    expect_parts, nodefwd, wait_until,
};

fn forward() -> String {
    format!("tcp,udp/{FORWARDED_PORT}={HOME}:{BACKEND_PORT}")
}

/// Waits until it was asked for so many names from now on.
fn wait_for_questions(names: &Names, more: usize) {
    let before = names.dns.asked().len();
    let asked = || names.dns.asked().len();
    wait_until("questions", asked, |asked| *asked >= before + more);
}

fn count(forwarder: &Process, part: &str) -> usize {
    forwarder.stderr().matches(part).count()
}

#[test]
fn when_an_answer_is_over_new_connections_go_where_the_next_one_says() {
    let names = Names::new(2);
    let net = &names.net;
    // Without it the kernel would end all that the last nat table had translated.
    net.node.load(OTHER_NAT);
    let _servers = net.serve(BACKEND_PORT);
    names.set(HOME, &[1]);
    let forwarder = names.call(&[&forward()]).start(&net.node);
    let flows = |protocol| {
        Family::BOTH.map(|family| {
            let to = net.node_addr(family, FORWARDED_PORT);
            net.client.live_flow(protocol, to)
        })
    };
    let [tcp, udp] = Protocol::BOTH.map(flows);
    let rules = net.node.rules();
    // The same addresses in another order are no change.
    wait_for_questions(&names, 2);
    names.set(HOME, &[2]);
    let said = forwarder.wait_for_line("home.example.org now leads to ");
    assert_eq!(
        said,
        "home.example.org now leads to 10.2.2.2, fd00:2:2::2 (before: 10.2.1.2, fd00:2:1::2), as 10.2.1.2 says"
    );
    assert_ne!(net.node.rules(), rules);
    for mut flow in tcp {
        assert_eq!(flow.reply.server, "backend-1");
        flow.expect_unchanged();
    }
    for mut flow in udp {
        assert_eq!(flow.reply.server, "backend-1");
        let moved = wait_until(
            "another backend",
            || flow.request().ok(),
            |reply| {
                reply
                    .as_ref()
                    .is_some_and(|reply| reply.server == "backend-2")
            },
        );
        assert!(moved.is_some());
    }
    for flow in Protocol::BOTH.into_iter().flat_map(flows) {
        assert_eq!(flow.reply.server, "backend-2");
    }
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    assert_eq!(stderr.matches("now leads to").count(), 1, "{stderr}");
}

/// Whatever its server says: here that the answer holds for no time at all.
#[test]
fn a_name_is_looked_up_every_five_seconds_at_most() {
    let names = Names::new(1);
    names.set(HOME, &[1]);
    let begin = Instant::now();
    let forwarder = names.call(&[&forward()]).start(&names.net.node);
    wait_for_questions(&names, 4);
    let asked = names.dns.asked().len();
    // Two for each look-up.
    let most = 2 * (begin.elapsed().as_secs() as usize / 5 + 1);
    assert!(asked <= most, "{asked} questions instead of {most}");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn without_an_answer_the_rules_stay_and_that_is_said_once() {
    let names = Names::new(2);
    names.set(HOME, &[1]);
    let forwarder = names.call(&[&forward()]).start(&names.net.node);
    let rules = names.net.node.rules();
    names.dns.say(HOME, Says::Fails);
    let said = forwarder.wait_for_line("warning: cannot resolve");
    assert_eq!(
        said,
        "warning: cannot resolve home.example.org: 10.2.1.2 answers with SERVFAIL; going on with 10.2.1.2, fd00:2:1::2"
    );
    // Two attempts for each family, of two look-ups.
    wait_for_questions(&names, 8);
    assert_eq!(count(&forwarder, "cannot resolve"), 1);
    assert_eq!(names.net.node.rules(), rules);
    names.set(HOME, &[2]);
    forwarder.wait_for_line("home.example.org is resolved again, by 10.2.1.2");
    forwarder.wait_for_line("home.example.org now leads to 10.2.2.2");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(names.net.node.ruleset(), "");
}

#[test]
fn a_forward_comes_when_its_name_does() {
    let names = Names::new(1);
    let _server = names.net.serve(BACKEND_PORT);
    names.set(HOME, &[1]);
    let late = format!("tcp/81=late.example:{BACKEND_PORT}");
    let forwarder = names.call(&[&forward(), &late]).start(&names.net.node);
    names.set("late.example", &[1]);
    forwarder.wait_for_line("late.example now leads to 10.2.1.2, fd00:2:1::2 (before: nowhere)");
    let to = names.net.node_addr(Family::V6, 81);
    let reply = names
        .net
        .client
        .request(Protocol::Tcp, to)
        .expect("a reply");
    assert_eq!(reply.server, "backend-1");
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn a_reload_looks_names_up_and_keeps_those_that_it_cannot() {
    let names = Names::new(2);
    names.etc.write("hosts", format!("10.2.1.2 {HOME}\n"));
    let file = TempFile::new(format!("NODEFWD_FORWARDS={}\n", forward()));
    let call = names.call(&[]).env("NODEFWD_ENV_FILE", file.path());
    let mut forwarder = call.start(&names.net.node);
    names.etc.write("hosts", format!("10.2.2.2 {HOME}\n"));
    forwarder.signal(Signal::SIGHUP);
    forwarder.wait_for_line("reloaded: forwarding tcp/80=10.2.2.2:8080");
    names.etc.write("hosts", "");
    file.write(format!("NODEFWD_FORWARDS={} tcp/82=10.2.1.2\n", forward()));
    forwarder.signal(Signal::SIGHUP);
    forwarder.wait_for_line("warning: cannot resolve home.example.org: 10.2.1.2 says that");
    forwarder.wait_for_line("reloaded: forwarding tcp/80=10.2.2.2:8080 tcp/82");
    // A name that was not there before.
    file.write("NODEFWD_FORWARDS=tcp/80=none.example\n");
    forwarder.signal(Signal::SIGHUP);
    let said = forwarder.wait_for_line("warning: not reloaded");
    expect_parts(&said, ["cannot resolve none.example"]);
    expect_parts(&names.net.node.rules(), ["10.2.2.2"]);
    // A signal that comes while it looks names up.
    names.dns.say("none.example", Says::Nothing);
    let before = names.dns.asked().len();
    forwarder.signal(Signal::SIGHUP);
    wait_until(
        "a question",
        || names.dns.asked().len(),
        |asked| *asked > before,
    );
    let outcome = forwarder.stop(Signal::SIGTERM).expect_exit(0);
    expect_parts(
        &outcome.stderr,
        ["cannot resolve none.example: a signal has come"],
    );
    assert_eq!(names.net.node.ruleset(), "");
}

/// Also of a name that the instance did not have at its start, and of no other.
#[test]
fn after_a_reload_its_names_are_followed() {
    let names = Names::new(2);
    names.set(HOME, &[1]);
    names.set("other.example", &[1]);
    let file = TempFile::new(format!("NODEFWD_FORWARDS={}\n", forward()));
    let call = names.call(&[]).env("NODEFWD_ENV_FILE", file.path());
    let mut forwarder = call.start(&names.net.node);
    file.write("NODEFWD_FORWARDS=tcp/80=other.example\n");
    forwarder.signal(Signal::SIGHUP);
    forwarder.wait_for_line("reloaded: ");
    let before = names.dns.asked().len();
    names.set("other.example", &[2]);
    forwarder.wait_for_line("other.example now leads to 10.2.2.2");
    let asked = names.dns.asked().split_off(before);
    assert!(!asked.join(" ").contains(HOME), "{asked:?}");
    // Rules that go have no names to follow.
    let drains = names.call(&["--drain=60", &forward()]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    let to = names.net.node_addr(Family::V4, FORWARDED_PORT);
    let _server = names.net.backends[0].serve(BACKEND_PORT);
    let mut forwarder = drains.start(&names.net.node);
    let _flow = names.net.client.live_flow(Protocol::Tcp, to);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(1);
    let before = names.dns.asked().len();
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(names.dns.asked().len(), before);
}

/// The file is as wrong as before.
#[test]
fn another_answer_hides_no_failed_reload() {
    let names = Names::new(1);
    let node = &names.net.node;
    names.set(HOME, &[1]);
    let good = format!("NODEFWD_FORWARDS={}\n", forward());
    let file = TempFile::new(&good);
    let manager = Manager::at_path("answer-after-reload");
    let call = names.call(&[]).env("NODEFWD_ENV_FILE", file.path());
    let mut forwarder = manager.of(call).start(node);
    file.write(format!("{good}NODEFWD_DRAIN=x\n"));
    forwarder.signal(Signal::SIGHUP);
    let status = || nodefwd(["status"]).finish(node).expect_success();
    forwarder.wait_for_line("warning: not reloaded");
    expect_parts(&status(), ["the last reload failed"]);
    names.dns.set(HOME, &[[10, 2, 1, 9].into()]);
    forwarder.wait_for_line("home.example.org now leads to 10.2.1.9");
    expect_parts(&status(), ["10.2.1.9:", "the last reload failed"]);
    let mut said = manager.receive();
    while !said.contains("10.2.1.9") {
        said = manager.receive();
    }
    expect_parts(&said, ["; the last reload has failed"]);
    file.write(good);
    forwarder.signal(Signal::SIGHUP);
    let said = forwarder.wait_for_line("reloaded: ");
    assert!(!said.contains("failed"), "{said}");
    assert!(!status().contains("failed"), "{}", status());
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// For 10 seconds, it waits for the instance's reply.
#[test]
fn a_reload_that_waits_for_a_server_keeps_no_successor_out() {
    let names = Names::new(1);
    names.set(HOME, &[1]);
    names.dns.say("silent.example", Says::Nothing);
    let file = TempFile::new(format!("NODEFWD_FORWARDS={}\n", forward()));
    let call = names.call(&[]).env("NODEFWD_ENV_FILE", file.path());
    let mut forwarder = call.start(&names.net.node);
    file.write("NODEFWD_FORWARDS=tcp/80=silent.example\n");
    let begin = Instant::now();
    forwarder.signal(Signal::SIGHUP);
    wait_until(
        "a question",
        || names.dns.asked().join(" "),
        |asked| asked.contains("silent"),
    );
    let successor = names.call(&["--replace", &forward()]);
    let successor = successor.start(&names.net.node);
    let taken = begin.elapsed();
    let stderr = forwarder.finish().expect_exit(0).stderr;
    expect_parts(
        &stderr,
        [
            "not reloaded",
            "cannot resolve silent.example: 10.2.1.2: no answer",
        ],
    );
    assert!(taken < Duration::from_secs(9), "{taken:?}");
    successor.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn an_answer_that_cannot_be_carried_out_leaves_the_rules() {
    let names = Names::new(1);
    let node = &names.net.node;
    let _sibling = nodefwd(["--name=other", "tcp/80=fd00:2:1::9"]).start(node);
    let backend = &names.net.backends[0];
    names.dns.set(HOME, &[backend.address(Family::V4)]);
    let forwarder = names.call(&[&format!("tcp/80={HOME}")]).start(node);
    let rules = node.rules();
    names.set(HOME, &[1]);
    let said =
        forwarder.wait_for_line("warning: home.example.org now leads to 10.2.1.2, fd00:2:1::2");
    expect_parts(
        &said,
        [
            ", but the rules stay as they are: ",
            "tcp/80 over IPv6 is already forwarded by table inet nodefwd-other",
        ],
    );
    assert_eq!(node.rules(), rules);
    // It is looked up again 15 seconds later, and the same is said no more.
    let (begin, before) = (Instant::now(), names.dns.asked().len());
    wait_for_questions(&names, 2);
    assert!(
        begin.elapsed() > Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    let refused = ", but the rules stay as they are: ";
    names.dns.set(HOME, &[backend.address(Family::V4)]);
    let asked = || names.dns.asked().len();
    wait_until("an answer as before", asked, |asked| *asked >= before + 6);
    assert_eq!(count(&forwarder, refused), 1);
    // But when it was well meanwhile.
    names.set(HOME, &[1]);
    wait_until(
        "what is said",
        || count(&forwarder, refused),
        |count| *count == 2,
    );
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Of a name that is looked up together with one whose answer is not carried out.
#[test]
fn a_failure_is_said_once_though_the_answers_with_it_are_refused() {
    let names = Names::new(1);
    let node = &names.net.node;
    let _sibling = nodefwd(["--name=other", "tcp/80=fd00:2:1::9"]).start(node);
    let [home, other] = [[10, 2, 1, 2], [10, 2, 1, 3]].map(|ip| [ip.into()]);
    names.dns.set(HOME, &home);
    names.dns.set("other.example", &other);
    let forwards = [format!("tcp/80={HOME}"), "tcp/81=other.example".into()];
    let forwarder = names.call(&[&forwards[0], &forwards[1]]).start(node);
    names.dns.say("other.example", Says::Fails);
    names.set(HOME, &[1]);
    let problem = "cannot resolve other.example";
    forwarder.wait_for_line(&format!("warning: {problem}"));
    let refused = ", but the rules stay as they are: ";
    let said = || count(&forwarder, refused);
    wait_until("a refusal", said, |count| *count == 1);
    // Another look-up, to its end: two attempts for each family.
    let asked = || names.dns.asked().join(" ").matches("other.example").count();
    let before = asked();
    wait_until("look-ups", asked, |asked| *asked > before + 4);
    assert_eq!((count(&forwarder, problem), said()), (1, 1));
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// A destination that fails is left out across another answer, and flows are drained after it.
#[test]
fn health_and_draining_go_on() {
    let names = Names::new(2);
    let net = &names.net;
    let _server = net.backends[0].serve(BACKEND_PORT);
    names.set(HOME, &[1, 2]);
    let call = names.call(&["--health=1", "--drain=60", &forward()]);
    let mut forwarder = call.start(&net.node);
    forwarder.wait_for_line("warning: destination 10.2.2.2:8080 is down");
    let mut addresses = vec![
        net.backends[0].address(Family::V4),
        net.backends[1].address(Family::V4),
    ];
    addresses.push([10, 2, 2, 9].into());
    names.dns.set(HOME, &addresses);
    forwarder.wait_for_line("home.example.org now leads to 10.2.1.2, 10.2.2.2, 10.2.2.9");
    let status = || nodefwd(["status"]).finish(&net.node).expect_success();
    expect_parts(&status(), ["10.2.2.2:8080 (down)"]);
    wait_until("the third one's failure", status, |status| {
        status.contains("10.2.2.9:8080 (down)")
    });
    let to = net.node_addr(Family::V4, FORWARDED_PORT);
    let mut flow = net.client.live_flow(Protocol::Tcp, to);
    forwarder.signal(Signal::SIGTERM);
    forwarder.wait_until_draining(1);
    flow.expect_unchanged();
    drop(flow);
    forwarder.wait_until_drained();
    forwarder.finish().expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}
