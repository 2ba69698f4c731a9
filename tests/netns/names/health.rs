//! Names as destinations that are tried.

use nix::sys::signal::Signal;

use super::{HOME, Names};
use crate::fixture::{BACKEND_PORT, Family, Manager, TempFile, expect_parts, nodefwd, wait_until};

/// What is known of it goes with it, also what the service manager is told.
#[test]
fn a_destination_that_goes_while_it_is_down_is_new_when_it_comes_back() {
    let names = Names::new(2);
    let net = &names.net;
    let _server = net.backends[0].serve(BACKEND_PORT);
    names.set(HOME, &[1, 2]);
    // There is another one, so that the first is balanced with or without the second.
    let good = net.backends[0].address(Family::V4);
    let text = format!("NODEFWD_FORWARDS=tcp/80={HOME}:{BACKEND_PORT},{good}:1\n");
    let file = TempFile::new(format!("{text}NODEFWD_HEALTH=1\n"));
    let call = names.call(&[]).env("NODEFWD_ENV_FILE", file.path());
    let manager = Manager::at_path("names-and-health");
    let mut forwarder = manager.of(call).start(&net.node);
    let status = || nodefwd(["status"]).finish(&net.node).expect_success();
    let down = "10.2.2.2:8080 (down)";
    let is_down = |status: &String| status.contains(down);
    wait_until("a failure", status, is_down);
    names.set(HOME, &[1]);
    forwarder.wait_for_line("home.example.org now leads to 10.2.1.2, fd00:2:1::2 (before");
    assert!(!status().contains("10.2.2.2"), "{}", status());
    let mut told = manager.receive();
    while !told.starts_with("STATUS=forwarding ") || told.contains("10.2.2.2") {
        told = manager.receive();
    }
    names.set(HOME, &[1, 2]);
    forwarder.wait_for_line("home.example.org now leads to 10.2.1.2, 10.2.2.2");
    wait_until("another failure", status, is_down);
    let said = || forwarder.stderr().matches("10.2.2.2:8080 is down").count();
    assert_eq!(said(), 2);

    // A reload that turns it off has all of them tried no more; one that turns it on begins again.
    file.write(&text);
    forwarder.signal(Signal::SIGHUP);
    let line = forwarder.wait_for_line("reloaded: ");
    assert!(!line.contains("fail"), "{line}");
    expect_parts(&status(), ["10.2.2.2:8080 "]);
    assert!(!status().contains("(down)"), "{}", status());
    file.write(format!("{text}NODEFWD_HEALTH=1\nNODEFWD_BALANCE=source\n"));
    forwarder.signal(Signal::SIGHUP);
    wait_until("the third failure", status, is_down);
    forwarder.signal(Signal::SIGTERM);
    forwarder.finish().expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}
