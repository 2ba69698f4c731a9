//! Root of a user namespace, as in a rootless container: the machine's own limits hold for it.

use std::fs;

use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Nodefwd, expect_parts, nodefwd};

/// Has it run as root of a user namespace, with a network namespace of that.
fn in_user_namespace(call: Nodefwd) -> Nodefwd {
    let script = "echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        exec \"$@\"";
    let unshare = ["unshare", "--user", "--map-root-user", "--net"];
    call.wrapped(&[&unshare[..], &["sh", "-c", script, "sh"]].concat())
}

/// As much as a send buffer takes where net.core.wmem_max is 212992.
#[test]
fn a_thousand_forwards_need_no_larger_send_buffer() {
    let outside = Namespace::new("outside");
    let forwards = (1..=1000u16).map(|port| {
        let [high, low] = port.to_be_bytes();
        format!(
            "tcp/{port}=[fd00:2::{port:x}]:{},10.2.{high}.{low}",
            port + 10_000
        )
    });
    let call = nodefwd(forwards).args(&["--name=web", "-v"]);
    let forwarder = in_user_namespace(call).start(&outside);
    let stderr = forwarder.stop(Signal::SIGTERM).expect_exit(0).stderr;
    let (_, rest) = stderr.split_once(" messages in ").expect("a transaction");
    let (bytes, _) = rest.split_once(' ').expect("its length");
    let bytes: usize = bytes.parse().expect("a number");
    assert!(bytes <= 2 * 212_992 - 32, "{bytes}");
}

/// Numbers in a text that follow these words.
fn number_after(text: &str, words: &str) -> usize {
    let (_, rest) = text
        .split_once(words)
        .unwrap_or_else(|| panic!("no '{words}' in {text}"));
    let digits = rest.split(|next: char| !next.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

#[test]
fn rules_that_are_too_many_for_the_send_buffer_name_the_limit_and_what_is_needed() {
    let outside = Namespace::new("outside");
    let backends: Vec<_> = (1..=4)
        .map(|host| format!("10.2.0.{host}:2-65535"))
        .collect();
    let forward = format!("tcp/1-65534={}", backends.join(","));
    let limit = fs::read_to_string("/proc/sys/net/core/wmem_max").expect("a sysctl");
    let limit: usize = limit.trim_end().parse().expect("a number");
    let outcome = in_user_namespace(nodefwd([forward])).finish(&outside);
    let stderr = &outcome.expect_exit(1).stderr;
    expect_parts(
        stderr,
        [format!(
            "net.core.wmem_max = {limit} allows {} of them",
            2 * limit - 32
        )],
    );
    let bytes = number_after(stderr, "too many rules for one message: ");
    let needed = number_after(stderr, "sysctl -w net.core.wmem_max=");
    assert!(bytes > 2 * limit - 32, "{stderr}");
    assert!((bytes..bytes + 2).contains(&(2 * needed - 32)), "{stderr}");
}
