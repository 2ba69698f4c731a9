//! Compares generated files with what generates them: the man page and the shells' completion scripts
//! with the command line's definitions, benches/README.md with the measured figures.

use std::io::Write;
use std::path::Path;
use std::{env, fs, io, iter, process};

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, CommandFactory, ValueHint};
use clap_complete::{Generator, generate, shells};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use nodefwd::cli::Cli;

#[test]
fn the_man_page_is_up_to_date() {
    let page = man_page().expect("written to memory");
    keep("deploy/nodefwd.8", page.as_bytes());
}

#[test]
fn the_completion_scripts_are_up_to_date() {
    let changed = |shell, changes: &[(&str, &str)]| {
        let change = |script: String, (from, to): &(&str, &str)| {
            assert!(script.contains(from), "no {from}");
            script.replace(from, to)
        };
        changes.iter().fold(shell, change)
    };
    let bash = changed(script(shells::Bash), &BASH);
    keep("deploy/completions/nodefwd.bash", bash.as_bytes());
    let fish = changed(script(shells::Fish), &FISH) + FISH_NAMES;
    keep("deploy/completions/nodefwd.fish", fish.as_bytes());
    let zsh = changed(script(shells::Zsh), &ZSH);
    keep("deploy/completions/_nodefwd", zsh.as_bytes());
    // The command is the first argument: tried with zsh 5.9.
    assert!(zsh.contains("case $line[1] in\n            (run)"));
}

/// What the generator does not write: `status` has the names of the instances. Any process may name a table,
/// and bash expands the words that it is given, so only names that the program takes are offered.
const BASH: [(&str, &str); 2] = [
    (
        "        nodefwd__subcmd__status)\n            opts=\"",
        "        nodefwd__subcmd__status)\n            opts=\"$(_nodefwd_names) ",
    ),
    (
        "_nodefwd() {\n",
        r"_nodefwd_names() {
    nodefwd -q status 2>/dev/null | sed -n 's/^\([A-Za-z0-9._-]\{1,\}\): table inet .*/\1/p'
}

_nodefwd() {
",
    ),
];

/// An option whose value is being written makes the generator's function fail, and its values are not offered.
const FISH: [(&str, &str); 1] = [(
    "2>/dev/null\n    or return\n",
    "2>/dev/null\n    or return 0\n",
)];

const FISH_NAMES: &str = r#"
function __fish_nodefwd_names
    nodefwd -q status 2>/dev/null | string match -rg '^([A-Za-z0-9._-]+): table inet '
end

complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -f -a "(__fish_nodefwd_names)"
"#;

const ZSH: [(&str, &str); 2] = [
    (
        r"'::name -- The instance to look at \[default\: all\]:'",
        r"'::name -- The instance to look at \[default\: all\]:_nodefwd_names'",
    ),
    (
        "_nodefwd() {\n",
        r#"_nodefwd_names() {
    compadd -- ${(f)"$(nodefwd -q status 2>/dev/null | sed -n 's/^\([A-Za-z0-9._-]\{1,\}\): table inet .*/\1/p')"}
}

_nodefwd() {
"#,
    ),
];

#[test]
fn the_page_of_the_benchmarks_is_up_to_date() {
    let mut report = process::Command::new("/usr/bin/python3");
    report.args(["-B", "benches/report.py"]);
    report.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = report.output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    keep("benches/README.md", &output.stdout);
}

/// A snapshot, so that every change is seen.
#[test]
fn the_help_texts_are_up_to_date() {
    keep("tests/help.txt", help().as_bytes());
}

/// A line of one word is the rest of a paragraph that is a word too long.
#[test]
fn the_help_texts_leave_no_word_alone_on_a_line() {
    const WIDTH: usize = 100;
    let text = help();
    for (before, line) in text.lines().zip(text.lines().skip(1)) {
        let word = line.trim();
        let is_rest = before.len() + 1 + word.len() > WIDTH && !word.contains(' ');
        assert!(word.is_empty() || !is_rest, "{before}\n{line}");
    }
}

/// `nodefwd --help`, and that of each command.
fn help() -> String {
    let commands = Cli::command();
    let names = commands.get_subcommands().map(Command::get_name);
    let calls = names.map(|name| vec![name, "--help"]);
    let texts = iter::once(vec!["--help"]).chain(calls).map(|call| {
        let mut nodefwd = process::Command::new(env!("CARGO_BIN_EXE_nodefwd"));
        let output = nodefwd.args(&call).env_remove("COLUMNS").output();
        let text = String::from_utf8(output.expect("nodefwd").stdout).expect("UTF-8");
        format!("$ nodefwd {}\n{text}\n", call.join(" "))
    });
    texts.collect()
}

#[test]
fn the_man_page_is_well_formed() {
    let mut groff = process::Command::new("groff");
    groff.args(["-man", "-Tutf8", "-ww", "-z", "deploy/nodefwd.8"]);
    groff.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = groff.output().expect("groff, which tests/run.sh brings");
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{warnings}");
}

/// Has bash complete the last word of a command line that it reads from its arguments.
const COMPLETE: &str = r#"
    source <("$1" completions bash)
    complete -p nodefwd
    COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
    _nodefwd nodefwd "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
    echo "${COMPREPLY[*]}"
"#;

#[test]
fn bash_completes_the_command_line() {
    for (line, expected) in [
        ("nodefwd st", "status"),
        ("nodefwd --d", "--dest-ips --dest-proto --dest-port --drain"),
        ("nodefwd --o", "--output"),
        ("nodefwd render --balance ro", "round-robin"),
        ("nodefwd status --format p", "prometheus"),
    ] {
        let mut bash = process::Command::new("bash");
        bash.args(["-euc", COMPLETE, "bash", env!("CARGO_BIN_EXE_nodefwd")]);
        bash.args(line.split(' '));
        let output = bash.output().expect("bash");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.lines().last(), Some(expected), "{line}: {output:?}");
    }
}

/// Fails the test unless the file holds this; with REGENERATE in the environment, writes it first.
#[track_caller]
fn keep(file: &str, text: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if env::var_os("REGENERATE").is_some() {
        fs::write(&path, text).expect("a file");
    }
    assert!(
        fs::read(&path).is_ok_and(|kept| kept == text),
        "{file} is out of date; write it with: REGENERATE=1 cargo test --test generated up_to_date"
    );
}

fn script(shell: impl Generator) -> String {
    let mut program = offered(&Cli::command()).version(env!("CARGO_PKG_VERSION"));
    let mut script = Vec::new();
    generate(shell, &mut program, "nodefwd", &mut script);
    String::from_utf8(script).expect("UTF-8")
}

/// The same command without its hidden options, which the scripts would offer. Beside commands it has no
/// arguments of its own: zsh's script would take the command for one of them, and offer commands after it.
fn offered(command: &Command) -> Command {
    // clap wants names that live for ever.
    let name: &'static str = command.get_name().to_owned().leak();
    let has_commands = command.has_subcommands();
    let is_hidden = |arg: &Arg| arg.is_hide_set() || has_commands && arg.is_positional();
    let shown = command.get_arguments().filter(|arg| !is_hidden(arg));
    Command::new(name)
        .about(command.get_about().cloned().unwrap_or_default())
        .disable_help_subcommand(true)
        .args(shown.cloned().map(with_values))
        .subcommands(command.get_subcommands().map(offered))
}

/// Adds the values to offer; clap takes any, since the program reads them itself.
fn with_values(arg: Arg) -> Arg {
    let boolean = arg.get_value_names().is_some_and(|names| names == ["BOOL"]);
    let values: &[_] = match arg.get_id().as_str() {
        _ if boolean => &["true", "false"],
        "balance" => &["random", "round-robin", "source"],
        "listen" => &["local", "any"],
        "fast_path" => &["off", "auto"],
        "dest_proto" => &["tcp", "udp", "sctp"],
        "log_format" => &["text", "json"],
        _ if !arg.get_possible_values().is_empty() || !arg.get_action().takes_values() => {
            return arg;
        }
        // A shell offers file names otherwise.
        _ => return arg.value_hint(ValueHint::Other),
    };
    arg.value_parser(PossibleValuesParser::new(values))
}

/// Defines the apostrophe; clap_mangen writes it before each part of the page.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// What the definitions do not say: roff, and comments that begin with .\".
const NOTES: &str = include_str!("../deploy/nodefwd.8.in");

fn man_page() -> io::Result<String> {
    let mut program = Cli::command().subcommand_value_name("COMMAND");
    program.build();
    let man = Man::new(program.clone()).section("8");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    section("SH", "COMMANDS").to_writer(&mut page)?;
    for command in program.get_subcommands() {
        write_command(&mut page, &program, command)?;
    }
    notes(&program, "SH").to_writer(&mut page)?;
    for line in NOTES.lines().filter(|line| !line.starts_with(".\\\"")) {
        writeln!(page, "{line}")?;
    }
    let mut see_also = section("SH", "SEE ALSO");
    see_also.text([
        bold("nft"),
        roman("(8), "),
        bold("systemd.service"),
        roman("(5)"),
    ]);
    see_also.to_writer(&mut page)?;
    let page = String::from_utf8(page).expect("UTF-8");
    Ok(PREAMBLE.to_owned() + &page.replace(PREAMBLE, "").replace(" \n", "\n"))
}

/// What a command does, and those of its options and notes that the program does not have.
fn write_command(page: &mut Vec<u8>, program: &Command, command: &Command) -> io::Result<()> {
    let mut about = section("SS", command.get_name());
    about.text([roman(command.get_about().expect("words").to_string())]);
    about.to_writer(page)?;

    let of_program = |arg: &Arg| {
        program
            .get_arguments()
            .any(|other| other.get_id() == arg.get_id())
    };
    let own = command.get_arguments().filter(|arg| !of_program(arg));
    let own = Command::new("own").disable_help_flag(true).args(own);
    let mut options = Vec::new();
    Man::new(own).render_options_section(&mut options)?;
    let options = String::from_utf8(options).expect("UTF-8");
    page.extend(options.replace(".SH OPTIONS\n", "").into_bytes());

    // A note below the short help is the program's own.
    match command.get_after_help() {
        None => notes(command, "SS").to_writer(page),
        Some(_) => Ok(()),
    }
}

/// The notes below the help; indented lines are not filled.
fn notes(command: &Command, level: &str) -> Roff {
    let notes = command.get_after_long_help().or(command.get_after_help());
    let notes = notes.map(ToString::to_string).unwrap_or_default();
    let mut page = section("PP", "");
    let mut fills = true;
    for line in notes.lines() {
        if fills == line.starts_with(' ') {
            fills = !fills;
            page.extend([section(if fills { "fi" } else { "nf" }, "")]);
        }
        match line {
            "" => page.extend([section("PP", "")]),
            "Examples:" | "Exit status:" => {
                page.extend([section(level, &line.trim_end_matches(':').to_uppercase())]);
            }
            _ => {
                page.text([roman(line)]);
            }
        }
    }
    page
}

fn section(level: &str, title: &str) -> Roff {
    let mut page = Roff::new();
    page.control(level, (!title.is_empty()).then_some(title));
    page
}
