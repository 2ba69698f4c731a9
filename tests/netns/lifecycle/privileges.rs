//! Where the machine does not let it work: status 1, the reason, and nothing changed.

use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Nodefwd, nodefwd};

fn forward() -> Nodefwd {
    nodefwd(["--dest-ips=10.2.0.11", "--dest-proto=tcp", "--src-port=80"])
}

#[test]
fn without_the_capability_it_says_which_and_how_to_grant_it() {
    let node = Namespace::forwarding("node");
    // The last two listen to the kernel's news before they do anything else.
    for options in [&[][..], &["--drain=1"], &["--owner=false"]] {
        let call = forward().args(options).without_net_admin();
        let stderr = call.finish(&node).expect_exit(1).stderr;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in ["CAP_NET_ADMIN", "container", "systemd"] {
            assert!(stderr.contains(word), "'{word}' is not in: {stderr}");
        }
        assert_eq!(node.ruleset(), "");
    }
}

/// So it is for a container's user other than root to whom the runtime passes nothing on: what the
/// bounding set allows, nobody has yet.
#[test]
fn a_capability_that_is_only_allowed_does_not_count() {
    let node = Namespace::forwarding("node");
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let only_allowed = [
        &user[..],
        &["--inh-caps=-all", "--bounding-set=-all,+net_admin"],
    ]
    .concat();
    let stderr = forward()
        .wrapped(&only_allowed)
        .finish(&node)
        .expect_exit(1)
        .stderr;
    assert!(stderr.contains("CAP_NET_ADMIN is missing"), "{stderr}");

    let passed_on = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin"];
    let call = forward().wrapped(&[&user[..], &passed_on].concat());
    call.start(&node).stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn somebody_elses_table_of_the_same_name_is_left_alone() {
    let node = Namespace::forwarding("node");
    node.load("table inet nodefwd-tcp-80 { chain theirs { counter accept; }; }");
    let before = node.ruleset();
    let stderr = forward().finish(&node).expect_exit(1).stderr;
    assert!(stderr.contains("nodefwd-tcp-80"), "{stderr}");
    assert_eq!(node.ruleset(), before);
}

#[test]
fn a_second_instance_of_the_same_name_is_refused_and_the_first_goes_on() {
    let node = Namespace::forwarding("node");
    let first = forward().start(&node);
    let before = node.ruleset();
    assert!(before.contains("table inet nodefwd-tcp-80"), "{before}");

    let stderr = forward().finish(&node).expect_exit(1).stderr;
    assert!(stderr.contains("tcp-80"), "{stderr}");
    assert_eq!(node.ruleset(), before);
    drop(first);
}
