//! What other processes have used up: an instance goes on without it, and says so.

use nix::sys::signal::Signal;

use crate::fixture::{BACKEND_PORT, Net, Protocol, expect_parts, forward_to};

/// As where processes of the same user have used up fs.epoll.max_user_watches.
#[test]
fn without_room_in_an_epoll_it_goes_on() {
    let net = Net::new(2);
    let _servers = net.serve(BACKEND_PORT);
    // The first one is for the lock.
    let full = "--inject=epoll_ctl:error=ENOSPC:when=2+";
    let options = ["--output=/dev/null", "--trace=epoll_ctl", full];
    let call = forward_to(Protocol::Tcp, &net.backends).args(&["--health=1"]);
    let forwarder = call.traced(&options).start(&net.node);
    let line = forwarder.wait_for_line("warning: cannot try whether destinations answer");
    expect_parts(&line, ["No space left on device"]);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}
