//! `--env-file`: variables from a file, in systemd's form.

use crate::fixture::{Nodefwd, Outcome, TempFile, expect_parts, nodefwd};
use std::ffi::OsStr;

fn with_file<A: AsRef<OsStr>>(file: &TempFile, arguments: impl IntoIterator<Item = A>) -> Nodefwd {
    nodefwd(arguments).env("NODEFWD_ENV_FILE", file.path())
}

fn rendered(call: Nodefwd) -> String {
    call.finish_here().expect_success()
}

#[test]
fn a_file_sets_what_the_variables_set() {
    let file = TempFile::new(
        "# web\nNODEFWD_FORWARDS=\"tcp/80=10.2.0.11:8080 \\\n  udp/53=10.2.0.12\"\nNODEFWD_NAME='web'\nSRC_RANGES = 10.1.0.0/24\n",
    );
    let from_file = rendered(with_file(&file, ["render"]));
    let arguments = ["render", "tcp/80=10.2.0.11:8080", "udp/53=10.2.0.12"];
    let options = ["--name=web", "--src-ranges=10.1.0.0/24"];
    assert_eq!(from_file, rendered(nodefwd(arguments).args(&options)));
    let flag = format!("--env-file={}", file.path().display());
    assert_eq!(from_file, rendered(nodefwd(["render", &flag])));
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/1=10.2.0.11\nNODEFWD_NAME=file\n");
    let table_is = |name: &str, rules: &str| {
        let table = format!("table inet nodefwd-{name} ");
        expect_parts(rules, [table.as_str()]);
    };
    table_is("file", &rendered(with_file(&file, ["render"])));
    let environment = || with_file(&file, ["render"]).env("NODEFWD_NAME", "environment");
    table_is("environment", &rendered(environment()));
    table_is("flag", &rendered(environment().args(&["--name=flag"])));
    let forward = rendered(with_file(&file, ["render", "tcp/2=10.2.0.12"]));
    expect_parts(&forward, ["10.2.0.12"]);
    assert!(!forward.contains("10.2.0.11"), "{forward}");
}

/// An environment's variable holds 128 KiB at most (MAX_ARG_STRLEN in execve(2)).
#[test]
fn a_value_may_be_larger_than_an_environment_holds() {
    let ranges = (0..10_000).map(|n| format!("10.{}.{}.0/25 ", n / 256, n % 256));
    let text: String = ranges.collect();
    assert!(text.len() > 128 << 10);
    let file = TempFile::new(format!(
        "NODEFWD_FORWARDS=tcp/80=10.2.0.11\nSRC_RANGES={text}"
    ));
    let rules = rendered(with_file(&file, ["render"]));
    expect_parts(&rules, ["10.0.0.0/25", "10.39.15.0/25"]);
}

fn expect_rejected(outcome: Outcome, parts: &[&str]) {
    let outcome = outcome.expect_exit(2);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    expect_parts(&outcome.stderr, parts.iter().copied());
}

#[test]
fn errors_name_the_file_and_the_line() {
    let file = TempFile::new(
        "\nNODEFWD_FORWARDS=tcp/80=10.2.0.11\n\nNODEFWD_LISTEN=10.1.0.1 \\\n nowhere/\n",
    );
    let line = format!(
        "{}, line 4: NODEFWD_LISTEN (--listen)",
        file.path().display()
    );
    for command in ["run", "check", "render"] {
        let call = with_file(&file, [command]).without_net_admin();
        expect_rejected(call.finish_here(), &[&line, "'nowhere/'"]);
    }
    // What the file does not say is wrong elsewhere.
    let call = with_file(&file, ["render"]).env("NODEFWD_LISTEN", "elsewhere/");
    let outcome = call.finish_here();
    assert!(!outcome.stderr.contains("line "), "{outcome:?}");
    expect_rejected(outcome, &["NODEFWD_LISTEN (--listen)", "'elsewhere/'"]);
}

#[test]
fn a_file_that_cannot_be_read_is_rejected() {
    for (path, reason) in [
        ("/nonexistent/web.env", "No such file"),
        ("/proc", "Is a directory"),
        ("/dev/zero", "is larger than 64 MiB"),
    ] {
        let option = "NODEFWD_ENV_FILE (--env-file)";
        let call = nodefwd(["--env-file", path]).without_net_admin();
        expect_rejected(call.finish_here(), &[option, path, reason]);
    }
}

#[test]
fn lines_that_assign_nothing_are_a_warning() {
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\nexport NODEFWD_NAME=web\n");
    let outcome = with_file(&file, ["render"]).finish_here().expect_exit(0);
    let warning = format!("warning: {}, line 2: ignored", file.path().display());
    expect_parts(&outcome.stderr, [warning.as_str()]);
    expect_parts(&outcome.stdout, ["table inet nodefwd-tcp-80 "]);
    // Another kind of file.
    let forwards = "\nNODEFWD_FORWARDS=tcp/80=10.2.0.11\n";
    let file = TempFile::new("nonsense\n".repeat(20_000) + forwards);
    let outcome = with_file(&file, ["render"]).finish_here().expect_exit(0);
    let path = file.path().display();
    let more = format!("warning: {path}, line 9: ignored, like 19991 more: is it the right file?");
    assert_eq!(outcome.stderr.lines().last(), Some(&*more));
    assert_eq!(outcome.stderr.lines().count(), 9);
}

#[test]
fn variables_that_a_file_cannot_set_are_a_warning() {
    let names = ["NODEFWD_LOG_FORMAT", "RUST_LOG", "NODEFWD_ENV_FILE"];
    let lines = names.map(|name| format!("{name}=json\n")).concat();
    let file = TempFile::new(format!("NODEFWD_FORWARDS=tcp/80=10.2.0.11\n{lines}"));
    let outcome = with_file(&file, ["render"]).finish_here().expect_exit(0);
    for (number, name) in (2..).zip(names) {
        let warning = format!(
            "warning: {}, line {number}: {name} is ignored: set it in the environment",
            file.path().display()
        );
        expect_parts(&outcome.stderr, [warning]);
    }
}
