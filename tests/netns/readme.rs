//! The documents: their commands run, and their options, messages and rules are the program's.

mod parts;
mod recipes;

use std::fs;
use std::path::Path;
use std::process::Command;

use ::nodefwd::cli::Cli;
use clap::CommandFactory;
use nix::sys::signal::Signal;

use self::parts::{DOCUMENTS, Parts, SERVICE, blocks, one_line};
use crate::fixture::{Namespace, Outcome, Process, nodefwd, program};

const README: &str = include_str!("../../README.md");
const DEPLOY: &str = include_str!("../../deploy/README.md");
const BENCHES: &str = include_str!("../../benches/README.md");
/// Commands that are not run here, and why.
const ELSEWHERE: [(&str, &str); 47] = [
    ("deploy/sbom.sh FILE", "tests/package.sh does it"),
    (
        "nodefwd tcp/443=home.example.org:8443",
        "wants a name server, which other tests have",
    ),
    (
        "deploy/image.sh -- --build-arg FEATURES=static,names",
        "tests/image.sh builds it without",
    ),
    (
        "tests/architectures.sh arm64 armhf",
        "boots kernels of other machines",
    ),
    (
        "deploy/image.sh -- --build-arg BASE=docker.io/library/debian@sha256:…",
        "wants a registry; tests/image.sh builds it",
    ),
    ("cargo test", "this is a part of it"),
    ("tests/kernels.sh 6.1 -- --ignored vrf", "boots a kernel"),
    (
        "tests/kernels.sh 6.1 -- --ignored modules",
        "boots another kernel",
    ),
    (
        "tests/kernels.sh 6.12 -- --ignored fast_path",
        "boots another kernel",
    ),
    ("benches/run.sh --quick", "takes a minute"),
    ("tests/demo.sh", ".ci/run does it"),
    ("tests/run.sh", "this is a part of it"),
    ("man nodefwd", "wants the page installed"),
    ("nodefwd render", "wants arguments"),
    ("nodefwd check", "wants an instance that runs"),
    ("nft -f", "wants a file; the encoders' tests have one"),
    ("systemctl status", "tests/service.sh asks for its words"),
    (
        "cargo install --path . --no-default-features --features completions,names",
        "tests/package.sh does it",
    ),
    (
        "nodefwd reload",
        "wants an instance with a file, which other tests have",
    ),
    ("systemctl restart nodefwd@web", "tests/service.sh does it"),
    (
        "nodefwd check --name web --replace --env-file FILE",
        "wants a file",
    ),
    ("systemctl reload", "tests/service.sh does it"),
    ("systemctl edit", "opens an editor"),
    ("systemctl reload nodefwd@web", "tests/service.sh does it"),
    ("systemd-analyze security", "tests/service.sh does it"),
    ("kubectl describe pod", "wants a cluster"),
    ("modprobe nf_tables", "changes the machine's kernel"),
    (
        "modprobe -a nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_fib_inet nft_numgen nft_hash nf_conntrack_netlink tcp_diag udp_diag",
        "changes the machine's kernel: recipes.rs does it in another one",
    ),
    ("ausearch -m avc -ts recent", "wants SELinux"),
    (
        "bridge link set dev PORT hairpin on",
        "check prints it with a port, and its tests run it",
    ),
    (
        "ip route replace local ADDRESS dev IFACE table local mtu MTU",
        "wants an address; clamp_mss.rs runs it",
    ),
    ("modprobe nft_chain_nat", "changes the machine's kernel"),
    ("deploy/image.sh", "tests/image.sh does it"),
    (
        r#"podman run --rm -v "$PWD:/nodefwd" -w /nodefwd docker.io/library/debian:trixie-slim deploy/release.sh"#,
        "wants a registry; tests/release.sh makes it in a chroot",
    ),
    (
        "deploy/image.sh amd64 arm64 s390x ppc64le",
        "tests/image.sh builds for others",
    ),
    (
        r"printf 'FROM localhost/nodefwd:0.1.0\nENV NODEFWD_STRICT=true NODEFWD_DRAIN=20\n' | podman build -t localhost/nodefwd:0.1.0-own -",
        "tests/image.sh does it",
    ),
    (
        "podman manifest push --all localhost/nodefwd:0.1.0 oci-archive:FILE:NAME",
        "wants the image",
    ),
    (
        "install -D target/nodefwd.tar /var/lib/rancher/k3s/agent/images/nodefwd.tar",
        "wants a node of k3s",
    ),
    ("k3s crictl images", "wants a node of k3s"),
    ("systemctl restart k3s", "wants a node of k3s"),
    (
        "kubectl exec … -- nodefwd status",
        "wants a cluster; tests/image.sh does the same",
    ),
    ("kubectl exec … -- nodefwd check", "wants a cluster"),
    (
        "kubectl -n kube-system get daemonset -l svccontroller.k3s.cattle.io/svcname -o wide",
        "wants a cluster",
    ),
    (
        "kubectl -n kube-system logs -l svccontroller.k3s.cattle.io/svcname --all-containers --prefix --tail=-1 | grep ready",
        "wants a cluster",
    ),
    (
        "kubectl -n kube-system delete pod -l svccontroller.k3s.cattle.io/svcname",
        "wants a cluster",
    ),
    (
        "nft list ruleset",
        "shows other programs' rules, which other tests see",
    ),
    (
        "nft flush ruleset",
        "leaves nodefwd's table alone, which other tests see",
    ),
];

/// Code of several words that is no command.
const NO_COMMANDS: [&str; 12] = [
    "--image target/nodefwd.tar",
    "Permission denied",
    "nft list table",
    "--format json",
    "--format prometheus",
    "--log-format json",
    "--listen 192.168.1.1",
    "enable-servicelb: true",
    "externalTrafficPolicy: Local",
    "fib daddr type local",
    "hostUsers: false",
    "ready: …",
];

/// Starts a command with bash in this namespace, in the place of bash.
fn start(node: &Namespace, command: &str) -> Process {
    let program = program();
    let folder = program.parent().expect("a folder").display();
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("exec env {command}")])
        .env_clear();
    bash.env("PATH", format!("{folder}:/usr/sbin:/usr/bin:/sbin:/bin"));
    node.spawn(bash)
}

/// Runs a command as its reader would: a forwarder until it is ready.
fn run(node: &Namespace, command: &str) -> Outcome {
    let cli = Cli::command();
    let mut words = command.split(' ').skip_while(|word| word.contains('='));
    let program = words.next();
    let first = words.next();
    let subcommand = first.and_then(|word| cli.find_subcommand(word));
    let process = start(node, command);
    match (program, subcommand) {
        (Some("nodefwd"), None) if first != Some("--version") => {
            process.wait_for_line("ready");
            process.stop(Signal::SIGTERM)
        }
        (Some("nodefwd" | "ss" | "sysctl"), _) => process.finish(),
        _ => panic!("have the documents' '{command}' run here, or say in ELSEWHERE why not"),
    }
}

#[test]
fn every_command_runs_or_has_a_reason_not_to() {
    let parts = Parts::of_all();
    let commands = parts.commands(&NO_COMMANDS);
    let node = Namespace::forwarding("node");
    // One for `status` to show.
    let _other = nodefwd(["udp/9=10.0.0.9"]).start(&node);
    let elsewhere = ELSEWHERE.map(|(command, _)| command);
    for command in commands
        .iter()
        .filter(|command| !elsewhere.contains(command))
    {
        run(&node, command).expect_success();
    }
    let gone = elsewhere.iter().filter(|it| !commands.contains(**it));
    let gone = gone.chain(
        NO_COMMANDS
            .iter()
            .filter(|it| parts.code.iter().all(|code| code != *it)),
    );
    let gone: Vec<_> = gone.collect();
    assert!(gone.is_empty(), "no document has {gone:?} any more");
    let service = include_str!("../service.sh");
    for section in SERVICE {
        let run = format!("'{section}'");
        assert!(service.contains(&run), "tests/service.sh omits {section}");
    }
}

#[test]
fn the_first_commands_print_what_is_shown() {
    let node = Namespace::new("node");
    let commands = blocks(README, "sh")[0].lines();
    let printed = commands.map(|line| {
        let command = line.split(" #").next().unwrap_or(line).trim();
        let outcome = run(&node, command).expect_exit(0);
        let lines = outcome.stdout + &outcome.stderr;
        lines.lines().next().unwrap_or_default().to_owned()
    });
    let timeless = |line: String| match line.split_once(" after ") {
        Some((line, time)) if time.ends_with('s') => line.to_owned(),
        _ => line,
    };
    let printed: Vec<_> = printed.map(timeless).collect();
    let shown = blocks(README, "text")[0].lines().map(str::to_owned);
    assert_eq!(printed, shown.map(timeless).collect::<Vec<_>>());
}

/// Where the status has figures, README has others.
#[test]
fn the_status_looks_as_shown() {
    let node = Namespace::forwarding("node");
    let _instance = nodefwd(["tcp/80=10.0.0.5:8080"]).start(&node);
    let printed = run(&node, "nodefwd status").expect_success();
    let is_figure = |word: &str| {
        let unit = word.trim_end_matches(['s', 'm', 'h']);
        !unit.is_empty() && unit.bytes().all(|byte| byte.is_ascii_digit())
    };
    let words = |text: &str| {
        let lines = text.lines().map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            words.retain(|word| !is_figure(word));
            words.join(" ")
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(words(&printed), words(blocks(README, "text")[1]));
}

#[test]
fn forwards_files_and_json_are_what_they_say() {
    let version = env!("CARGO_PKG_VERSION");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, document) in DOCUMENTS {
        for image in document.split("localhost/nodefwd:").skip(1) {
            assert!(
                image.starts_with(version),
                "the image's version is {version}"
            );
        }
        for json in blocks(document, "json") {
            serde_json::from_str::<serde_json::Value>(json).expect("JSON");
        }
        let links = document.split("](").skip(1);
        let links = links.filter_map(|link| link.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.to_owned(),
                _ => fs::read_to_string(root.join(folder).join(file)).unwrap_or_default(),
            };
            // GitHub numbers the links to headings of the same name.
            let headings = target.lines().filter(|line| line.starts_with('#'));
            let named = headings.filter(|line| anchor(line) == section).count();
            assert!(
                !target.is_empty() && (section.is_empty() || named == 1),
                "{link} in {folder}/ is missing or ambiguous"
            );
        }
        for code in Parts::of_markdown(document).code {
            if ["tests/", "benches/", "deploy/", "src/"]
                .iter()
                .any(|start| code.starts_with(start))
            {
                let file = code.split(' ').next().unwrap_or_default();
                assert!(root.join(file).exists(), "{folder}/README.md names {code}");
            }
            if code.starts_with("tcp/") || code.starts_with("udp/") {
                nodefwd(["render", &code]).finish_here().expect_success();
            }
        }
    }
}

/// How a link names a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || " -".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// README has the short way, deploy/README.md all of it.
#[test]
fn both_pages_swap_klipper_lb_in_the_same_way() {
    let (_, k3s) = README.split_once("\n## On k3s").expect("the chapter");
    let (k3s, _) = k3s.split_once("\n## ").expect("its end");
    let blocks = blocks(k3s, "sh");
    assert!(!blocks.is_empty());
    for command in blocks.iter().flat_map(|block| block.lines()) {
        assert!(
            DEPLOY.contains(command),
            "deploy/README.md differs: {command}"
        );
    }
}

#[test]
fn the_figures_are_those_of_the_benchmarks() {
    let summary = BENCHES.split("\n\n").nth(2).expect("the summary");
    assert!(
        one_line(README).contains(&one_line(summary)),
        "README does not quote: {summary}"
    );
}

#[test]
fn the_rules_are_those_that_are_printed() {
    let (before, _) = DEPLOY.split_once("` prints:\n\n```text\n").expect("rules");
    let command = before.rsplit('`').next().expect("the command");
    let node = Namespace::new("node");
    let printed = run(&node, command).expect_success();
    let shown = blocks(DEPLOY, "text");
    assert_eq!(Some(&*printed.replace('\t', "    ")), shown.last().copied());
}

#[test]
fn the_options_are_all_of_them() {
    let cli = Cli::command();
    for option in cli.get_arguments().filter(|option| !option.is_hide_set()) {
        let Some(variable) = option.get_env() else {
            continue;
        };
        let flag = option
            .get_long()
            .map_or("arguments".to_owned(), |flag| format!("`--{flag}`"));
        let row = format!("| `{}` | {flag} |", variable.to_string_lossy());
        assert!(README.contains(&row), "README has no row '{row}'");
    }
}

/// What stands for a value in a message is three dots in the documents.
#[test]
fn the_messages_are_in_the_program() {
    let program = source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let program = program.replace("{family}", "IPv4") + &program.replace("{family}", "IPv6");
    let pieces = program.split('{').map(|piece| match piece.split_once('}') {
        Some((name, rest)) if !name.contains(char::is_whitespace) => format!("…{rest}"),
        _ => format!("{{{piece}"),
    });
    let program = pieces.collect::<Vec<_>>().concat();
    let messages = Parts::of_all().messages;
    assert!(messages.len() > 40, "only {} messages", messages.len());
    for message in messages {
        let message = message.replace("nodefwd-…", "…");
        assert!(
            program.contains(&message),
            "the program never says '{message}'"
        );
    }
}

/// README's troubleshooting is a part of the man page's.
#[test]
fn the_man_page_has_every_message_of_readme() {
    let man = Parts::of_man().messages;
    for message in Parts::of_markdown(README).messages {
        assert!(man.contains(&message), "the man page has no '{message}'");
    }
}

/// All Rust code below a folder, without comments and tests.
fn source(path: &Path) -> String {
    if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).expect("a source file");
        let code = text.lines().take_while(|line| *line != "mod tests {");
        let code = code.filter(|line| !line.trim_start().starts_with("//"));
        return code.collect::<Vec<_>>().join("\n");
    }
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    files
        .map(|file| source(&file.path()))
        .collect::<Vec<_>>()
        .join("\n")
}
