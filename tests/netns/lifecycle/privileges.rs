//! Which privileges it needs, and which it keeps.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::fixture::{
    Namespace, Nodefwd, expect_parts, field, nodefwd, open_files, proc_file, program,
};

fn forward() -> Nodefwd {
    nodefwd(["--dest-ips=10.2.0.11", "--dest-proto=tcp", "--src-port=80"])
}

#[test]
fn without_cap_net_admin_it_names_the_capability_and_how_to_grant_it() {
    let node = Namespace::forwarding("node");
    // The last two subscribe to events of the kernel before they do anything else.
    for options in [&[][..], &["--drain=1"], &["--owner=false"]] {
        let call = forward().args(options).without_net_admin();
        let stderr = call.finish(&node).expect_exit(1).stderr;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        expect_parts(&stderr, ["CAP_NET_ADMIN", "container", "systemd"]);
        assert_eq!(node.ruleset(), "");
    }
}

/// As in a container that runs as another user than root: containerd and CRI-O add the capability to
/// the bounding set only, from which a process without any capability gains nothing.
#[test]
fn a_capability_in_the_bounding_set_only_is_a_missing_one() {
    let node = Namespace::forwarding("node");
    let bounding_set = ["--inh-caps=-all", "--bounding-set=-all,+net_admin"];
    let call = forward().run_as_nobody(&bounding_set);
    let stderr = call.finish(&node).expect_exit(1).stderr;
    expect_parts(
        &stderr,
        ["CAP_NET_ADMIN is only in the bounding set", "ambient"],
    );
    // It is granted already.
    assert!(!stderr.contains("capabilities.add"), "{stderr}");

    let call = forward().run_as_nobody_with_net_admin();
    call.start(&node).stop(Signal::SIGTERM).expect_exit(0);
}

/// As from a file with `cap_net_admin=p`: whoever runs it would have to raise it first.
#[test]
fn a_capability_that_is_permitted_but_not_effective_is_said_to_be_that() {
    let node = Namespace::forwarding("node");
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("not-effective");
    fs::copy(program(), &copy).expect("a copy");
    let copy = copy.to_str().expect("UTF-8");
    for (capability, expected) in [("cap_net_admin=p", 1), ("cap_net_admin=ep", 0)] {
        node.succeed("setcap", &[capability, copy]);
        let script = format!("shift; exec {copy} \"$@\"");
        let call = nodefwd(["", "check", "tcp/80=10.2.0.11"]);
        let call = call.run_as_nobody(&["sh", "-c", &script]);
        let stdout = call.finish(&node).stdout;
        let failure = "failure: privileges: not permitted to read or change nftables: CAP_NET_ADMIN is permitted, but not effective; give the program's file the effective flag too: setcap cap_net_admin=ep";
        assert_eq!(stdout.matches(failure).count(), expected, "{stdout}");
    }
}

/// A capability that this process has, but not where it is asked for.
#[test]
fn a_capability_of_another_user_namespace_is_said_to_be_that() {
    let node = Namespace::forwarding("node");
    let call = forward().wrapped(&["unshare", "--user", "--map-root-user"]);
    let stderr = call.finish(&node).expect_exit(1).stderr;
    expect_parts(&stderr, ["has CAP_NET_ADMIN", "another user namespace"]);
    assert!(!stderr.contains("CAP_NET_ADMIN is missing"), "{stderr}");
}

/// Once it runs, it can do no more than remove its rules.
#[test]
fn it_keeps_no_privilege_that_it_does_not_need() {
    const NET_ADMIN: u64 = 1 << 12;
    let node = Namespace::forwarding("node");
    let forwarder = forward().start(&node);
    forwarder.wait_until_unprivileged();
    let status = proc_file(forwarder.id(), "status");
    let set = |name| u64::from_str_radix(field(&status, name), 16).expect("capabilities");
    assert_eq!(["CapPrm", "CapEff"].map(set), [NET_ADMIN; 2]);
    assert_eq!(["CapInh", "CapBnd", "CapAmb"].map(set), [0; 3]);
    for (number, file) in forwarder.open_files() {
        // Some files are inherited, such as the standard ones.
        let inherited = number < 3 || open_files("self").contains(&(number, file.clone()));
        // With an epoll it can do no more than wait for its sockets.
        let waits = file == Path::new("anon_inode:[eventpoll]");
        assert!(
            inherited || waits || is_socket(&file),
            "{number} is {file:?}"
        );
    }
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "");
}

fn is_socket(file: &Path) -> bool {
    file.to_str()
        .is_some_and(|name| name.starts_with("socket:"))
}
