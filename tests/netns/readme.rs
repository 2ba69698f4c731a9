//! README.md: its commands run, its options and messages are the program's, and so are its rules.

use std::fs;
use std::path::Path;
use std::process::Command;

use ::nodefwd::cli::Cli;
use clap::CommandFactory;
use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Outcome, Process, nodefwd, program};

const README: &str = include_str!("../../README.md");

/// Commands that are not run here, and why.
const ELSEWHERE: [(&str, &str); 19] = [
    ("cargo build --release", "tests/run.sh does it"),
    ("nodefwd render", "wants arguments"),
    ("nodefwd check", "wants arguments"),
    ("nft -f", "wants a file; the encoders' tests have one"),
    ("systemctl status", "tests/service.sh asks for its words"),
    ("systemd-analyze security", "tests/service.sh does it"),
    ("modprobe nf_tables", "would change the machine's kernel"),
    (
        "modprobe nft_chain_nat",
        "would change the machine's kernel",
    ),
    (
        "podman build -t localhost/nodefwd:0.1.0 .",
        "tests/image.sh does it",
    ),
    (
        "podman save -o nodefwd.tar localhost/nodefwd:0.1.0",
        "wants the image",
    ),
    ("podman tag", "wants the image"),
    (
        "install -D nodefwd.tar /var/lib/rancher/k3s/agent/images/nodefwd.tar",
        "wants a node of k3s",
    ),
    ("k3s crictl images", "wants a node of k3s"),
    (
        "kubectl exec … -- nodefwd status",
        "wants a cluster; tests/image.sh does the same",
    ),
    (
        "kubectl -n kube-system get daemonset -l svccontroller.k3s.cattle.io/svcname -o wide",
        "wants a cluster",
    ),
    (
        "kubectl -n kube-system logs -l svccontroller.k3s.cattle.io/svcname --all-containers | grep ready",
        "wants a cluster",
    ),
    (
        "kubectl -n kube-system delete pod -l svccontroller.k3s.cattle.io/svcname",
        "wants a cluster",
    ),
    ("tests/demo.sh", ".ci/run does it"),
    ("tests/run.sh", "this is a part of it"),
];

/// Code of several words that is no command.
const NO_COMMANDS: [&str; 6] = [
    "--format json",
    "--format prometheus",
    "enable-servicelb: true",
    "externalTrafficPolicy: Local",
    "fib daddr type local",
    "status --ready",
];

/// Where the chapter begins that tests/service.sh runs.
const SERVICE: &str = "As a service of systemd";

/// README, taken apart.
#[derive(Default)]
struct Readme {
    /// Lines of shell, without comments; but not what tests/service.sh runs.
    shell: Vec<String>,
    /// `code` in the text; but not the messages.
    code: Vec<String>,
    /// What the troubleshooting is keyed by.
    messages: Vec<String>,
}

impl Readme {
    fn parse() -> Self {
        let mut readme = Readme::default();
        let mut block = None;
        let mut chapter = "";
        let mut text = String::new();
        for line in README.lines() {
            if let Some(language) = line.strip_prefix("```") {
                block = block.is_none().then_some(language);
                continue;
            }
            if line.starts_with("## ") || line.starts_with(SERVICE) {
                chapter = line;
            }
            match (block, line.split_once(" | ")) {
                (Some("sh"), _) if !chapter.starts_with(SERVICE) => {
                    let command = line.split(" #").next().unwrap_or(line);
                    readme.shell.push(command.trim().to_owned());
                }
                (Some(_), _) => {}
                (None, Some((message, remedy))) if chapter == "## Troubleshooting" => {
                    readme.messages.extend(code(message));
                    readme.code.extend(code(remedy));
                }
                (None, _) => text = text + line + "\n",
            }
        }
        readme.code.extend(code(&text));
        readme
    }

    /// All that somebody could type.
    fn commands(&self) -> Vec<&str> {
        let typed = |code: &&str| code.contains(' ') && !NO_COMMANDS.contains(code);
        let inline = self.code.iter().map(String::as_str).filter(typed);
        self.shell
            .iter()
            .map(String::as_str)
            .chain(inline)
            .collect()
    }
}

/// The code in a text, each on one line.
fn code(text: &str) -> Vec<String> {
    let spans = text.split('`').skip(1).step_by(2);
    spans
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

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
    let subcommand = words.next().and_then(|word| cli.find_subcommand(word));
    let process = start(node, command);
    match (program, subcommand) {
        (Some("nodefwd"), None) => {
            process.wait_for_line("ready");
            process.stop(Signal::SIGTERM)
        }
        (Some("nodefwd" | "nft" | "sysctl"), _) => process.finish(),
        _ => panic!("have README's '{command}' run here, or say in ELSEWHERE why not"),
    }
}

#[test]
fn every_command_runs_or_has_a_reason_not_to() {
    let readme = Readme::parse();
    let commands = readme.commands();
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
    for command in elsewhere {
        assert!(
            commands.contains(&command),
            "README has no '{command}' any more"
        );
    }
    for code in NO_COMMANDS {
        assert!(
            readme.code.iter().any(|found| found == code),
            "README has no '{code}' any more"
        );
    }
}

#[test]
fn forwards_files_and_json_are_what_it_says() {
    let version = env!("CARGO_PKG_VERSION");
    for image in README.split("localhost/nodefwd:").skip(1) {
        assert!(
            image.starts_with(version),
            "the image's version is {version}"
        );
    }
    for block in README.split("```json\n").skip(1) {
        let (json, _) = block.split_once("```").expect("its end");
        serde_json::from_str::<serde_json::Value>(json).expect("JSON");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = README
        .split("](")
        .skip(1)
        .filter_map(|link| link.split(')').next());
    let links = links.map(str::to_owned);
    for code in Readme::parse().code.into_iter().chain(links) {
        if ["tests/", "benches/", "deploy/"]
            .iter()
            .any(|folder| code.starts_with(folder))
        {
            assert!(root.join(&code).exists(), "README names {code}");
        }
        if code.starts_with("tcp/") || code.starts_with("udp/") {
            nodefwd(["render", &code]).finish_here().expect_success();
        }
    }
}

#[test]
fn the_rules_are_those_that_are_printed() {
    let (before, after) = README
        .split_once("` prints:\n\n```text\n")
        .expect("the rules");
    let (rules, _) = after.split_once("```").expect("their end");
    let command = before.rsplit('`').next().expect("the command");
    let node = Namespace::new("node");
    let printed = run(&node, command).expect_success();
    assert_eq!(printed.replace('\t', "    "), rules);
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

/// What stands for a value in a message is three dots in README.
#[test]
fn the_messages_are_in_the_program() {
    let program = source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let program = program.replace("{family}", "IPv4") + &program.replace("{family}", "IPv6");
    let pieces = program.split('{').map(|piece| match piece.split_once('}') {
        Some((name, rest)) if !name.contains(char::is_whitespace) => format!("…{rest}"),
        _ => format!("{{{piece}"),
    });
    let program = pieces.collect::<Vec<_>>().concat();
    for message in Readme::parse().messages {
        let message = message.replace("nodefwd-…", "…");
        assert!(
            program.contains(&message),
            "the program never says '{message}'"
        );
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
