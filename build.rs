//! Links libmnl and libnftnl, and a release without what it does not need; names version, commit and target.

use std::process::Command;
use std::{env, fs};

/// Besides x86-64, where rustc does it by itself: the architectures whose glibc has what a
/// position-independent static program starts with (rcrt1.o), which armhf's and ppc64el's have not. On s390x
/// GNU ld 2.44 has no short form of relative relocations: they take 119 KB there.
const STATIC_PIE: [&str; 4] = ["aarch64", "riscv64", "s390x", "x86"];

fn main() {
    let directory = variable("CARGO_MANIFEST_DIR") + "/.cargo";
    if env::var_os("CARGO_FEATURE_STATIC").is_some() {
        // A locally installed libmnl.a lives here: Debian 12 ships none (tests/setup.sh brings it).
        println!("cargo::rustc-link-search=native=/usr/local/lib");
        // libnftnl.a needs libmnl.a after it. GNU ld reads archives once and in order, so it is named
        // once more at the end; `-l:` takes the archive even where a shared library stands beside it.
        println!("cargo::rustc-link-arg=-l:libmnl.a");
        let is_static = variable("CARGO_CFG_TARGET_FEATURE").contains("crt-static");
        let is_gnu = variable("CARGO_CFG_TARGET_ENV") == "gnu";
        if is_static && is_gnu && variable("PROFILE") == "release" {
            // Some functions of the C library are replaced (left_out in src/netlink/sys.rs).
            println!("cargo::rustc-link-arg-bins=-Wl,-z,muldefs");
        }
        if is_static && is_gnu && STATIC_PIE.contains(&&*variable("CARGO_CFG_TARGET_ARCH")) {
            println!("cargo::rustc-link-arg-bins=-specs={directory}/static-pie.specs");
        }
    }
    if variable("PROFILE") == "release" {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{directory}/no-unwind.ld");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=.cargo");
    name_version();
}

/// A variable that cargo sets.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// Sets what `--version` says, and the commit alone, which is empty if it is not known.
fn name_version() {
    let version = variable("CARGO_PKG_VERSION");
    let target = variable("TARGET");
    let revision = commit().unwrap_or_default();
    let commit = match revision.as_str() {
        "" => String::new(),
        revision => format!("commit {revision}, "),
    };
    println!("cargo::rustc-env=NODEFWD_VERSION={version} ({commit}{target})");
    println!("cargo::rustc-env=NODEFWD_REVISION={revision}");
}

/// The commit that this is built from, as far as it is known: given by whoever builds a copy without a
/// repository, such as an image; written by cargo into a published crate; or that of the repository.
fn commit() -> Option<String> {
    const GIVEN: &str = "NODEFWD_COMMIT";
    const PACKAGED: &str = ".cargo_vcs_info.json";
    println!("cargo::rerun-if-env-changed={GIVEN}");
    let given = env::var(GIVEN).ok().filter(|commit| !commit.is_empty());
    let packaged = || {
        let text = fs::read_to_string(PACKAGED).ok()?;
        let after = text.split_once("\"sha1\": \"")?.1;
        Some(after.split_once('"')?.0.to_owned())
    };
    let commit = given.or_else(packaged).or_else(checked_out)?;
    let is_known = commit.len() >= 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_known.then(|| commit[..12].to_owned())
}

/// The commit of the repository in this very folder, not of one around it.
fn checked_out() -> Option<String> {
    for name in ["HEAD", "logs/HEAD", "packed-refs"] {
        let path = format!(".git/{name}");
        if fs::exists(&path).is_ok_and(|exists| exists) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    fs::exists(".git").ok().filter(|exists| *exists)?;
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "rev-parse", "HEAD"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
