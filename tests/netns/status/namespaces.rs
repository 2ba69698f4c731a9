//! `--all-namespaces`: every network namespace of the host, each once.

use std::collections::HashSet;
use std::fs;
use std::process;

use serde_json::Value;

use super::output::expect_metrics;
use super::ownership;
use crate::fixture::{Namespace, Nodefwd, Process, expect_parts, nodefwd};

/// Other tests run meanwhile, and have instances too.
fn name(test: &str) -> String {
    format!("{test}-{}", process::id())
}

fn forwarder(name: &str) -> Nodefwd {
    nodefwd(["--name", name, "tcp/80=10.2.0.11"])
}

/// Starts it as the container of a pod is: in a network namespace that only its processes have, under a host
/// name.
fn in_pod(call: &Nodefwd, pod: &str, node: &Namespace) -> Process {
    const SCRIPT: &str = "printf '%s\\n' \"$0\" >/proc/sys/kernel/hostname && \
        echo 1 >/proc/sys/net/ipv4/ip_forward && exec \"$@\"";
    let container = ["unshare", "--net", "--uts", "sh", "-c", SCRIPT, pod];
    call.clone().wrapped(&container).start(node)
}

fn all(name: &str, arguments: &[&str], node: &Namespace) -> String {
    let call = nodefwd(["status", "--all-namespaces", name]).args(arguments);
    call.finish(node).expect_success()
}

/// The namespaces in which instances of this name are shown.
fn namespaces(name: &str, node: &Namespace) -> Vec<Option<String>> {
    let text = all(name, &["--format=json"], node);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let instances = document["instances"].as_array().expect("a list");
    let netns = instances.iter().map(|instance| {
        assert_eq!(instance["name"], name);
        assert_eq!(instance["options"]["listen"], "local");
        instance["netns"].as_str().map(str::to_owned)
    });
    netns.collect()
}

#[test]
fn named_namespaces_and_those_of_pods_are_shown_once() {
    let name = name("everywhere");
    let [here, there] = ["here", "there"].map(Namespace::forwarding);
    let _instances = [&here, &there].map(|node| forwarder(&name).start(node));
    let _pod = in_pod(&forwarder(&name), "svclb-web-x7k2p", &there);
    let there = there.name().to_owned();
    let pod = "svclb-web-x7k2p".to_owned();
    let mut expected = [None, Some(there.clone()), Some(pod.clone())];
    expected.sort();
    assert_eq!(namespaces(&name, &here), expected);

    let text = all(&name, &[], &here);
    let owned = ownership();
    expect_parts(
        &text,
        [
            format!("{name}: table inet nodefwd-{name}, {owned}"),
            format!("{name} in {there}: table inet nodefwd-{name}, {owned}"),
            format!("{name} in {pod}: table inet nodefwd-{name}, {owned}"),
        ],
    );
    let metrics = all(&name, &["--format=prometheus"], &here);
    expect_metrics(&here, &metrics);
    let info = format!("nodefwd_instance_info{{forwarder=\"{name}\"");
    expect_parts(
        &metrics,
        [
            format!("{info}}} 1\n"),
            format!("{info},netns=\"{there}\"}} 1\n"),
            format!("{info},netns=\"{pod}\"}} 1\n"),
            "\nnodefwd_instances 3\n".to_owned(),
        ],
    );
}

#[test]
fn pods_of_the_same_name_are_told_apart() {
    let name = name("twins");
    let node = Namespace::forwarding("node");
    let _pods = [(); 2].map(|()| in_pod(&forwarder(&name), "twin", &node));
    let found = namespaces(&name, &node);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_ne!(found[0], found[1]);
    for netns in found {
        let netns = netns.expect("a name");
        assert!(netns.starts_with("twin (net:["), "{netns}");
    }
    let metrics = all(&name, &["--format=prometheus"], &node);
    expect_metrics(&node, &metrics);
}

/// A container's root chooses its host name: here one that a terminal obeys, what is shown in its place, and what
/// another would get that is told apart.
#[test]
fn pods_whose_names_look_the_same_are_told_apart() {
    let name = name("lookalikes");
    let node = Namespace::forwarding("node");
    let names = ["alike\u{1b}[2J", "alike (net:[1])", "alike\\u{1b}[2J"];
    let _pods = names.map(|pod| in_pod(&forwarder(&name), pod, &node));
    let found = namespaces(&name, &node);
    assert_eq!(found.len(), names.len(), "{found:?}");
    for (netns, pod) in found.iter().flatten().zip(names) {
        assert!(netns.starts_with(&format!("{pod} (net:[")), "{found:?}");
    }
    let metrics = all(&name, &["--format=prometheus"], &node);
    expect_metrics(&node, &metrics);
    let infos = metrics
        .lines()
        .filter(|line| line.starts_with("nodefwd_instance_info"));
    assert_eq!(
        infos.collect::<HashSet<_>>().len(),
        names.len(),
        "{metrics}"
    );
    for shown in [metrics, all(&name, &[], &node)] {
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}

/// As CNI's libraries name the namespaces of pods, and as a name whose namespace is gone is left behind.
#[test]
fn a_pods_name_goes_before_one_that_is_made_up() {
    let name = name("cni");
    let node = Namespace::forwarding("node");
    let pod = in_pod(&forwarder(&name), "pod-of-cni", &node);
    let made_up = format!("cni-{name}");
    let attach = ["netns", "attach", &made_up, &pod.id().to_string()];
    node.succeed("ip", &attach);
    let stale_name = format!("{name}-stale");
    let stale = format!("/run/netns/{stale_name}");
    fs::write(&stale, "").expect("written");
    let found = namespaces(&name, &node);
    let call = nodefwd(["status", "--all-namespaces"]);
    let stderr = call.finish(&node).stderr;
    assert!(!stderr.contains(&stale_name), "{stderr}");
    fs::remove_file(stale).expect("removed");
    node.succeed("ip", &["netns", "delete", &made_up]);
    assert_eq!(found, [Some("pod-of-cni".to_owned())]);
}

#[test]
fn one_without_any_name_is_known_by_its_process() {
    let name = name("nameless");
    let node = Namespace::forwarding("node");
    const SCRIPT: &str = "echo 1 >/proc/sys/net/ipv4/ip_forward && exec \"$@\"";
    let call = forwarder(&name).wrapped(&["unshare", "--net", "sh", "-c", SCRIPT, "sh"]);
    let forwarder = call.start(&node);
    let expected = format!("process {} (nodefwd)", forwarder.id());
    assert_eq!(namespaces(&name, &node), [Some(expected)]);
}

#[test]
fn without_the_right_to_enter_namespaces_it_says_so() {
    let node = Namespace::forwarding("node");
    let call = nodefwd(["status", "--all-namespaces"]);
    let outcome = call
        .wrapped(&["setpriv", "--bounding-set=-sys_admin"])
        .finish(&node);
    expect_parts(
        &outcome.expect_exit(1).stderr,
        ["--all-namespaces", "CAP_SYS_ADMIN"],
    );
    let unknown = nodefwd(["status", "--all-namespaces", "no-such-instance"]);
    let stderr = unknown.finish(&node).expect_exit(1).stderr;
    expect_parts(&stderr, ["no instance 'no-such-instance'"]);
    let probe = nodefwd(["status", "--all-namespaces", "--ready"]);
    probe.finish(&node).expect_exit(2);
}
