//! tests/setup.sh on other distributions than Debian: it says what to install, with their package manager.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Package managers, and how the command begins and ends that builds nodefwd there.
const ELSEWHERE: [(&str, &str, &str); 4] = [
    ("dnf", "dnf install ", " libmnl-devel libnftnl-devel"),
    ("zypper", "zypper install ", " libmnl-devel libnftnl-devel"),
    ("pacman", "pacman -S --needed ", " libmnl libnftnl"),
    ("apk", "apk add ", " libmnl-dev libnftnl-dev"),
];

/// What tests/setup.sh says where there is no other program than bash, dirname and these.
fn said_with(programs: &[&str]) -> String {
    let name = format!("setup-{}", programs.concat());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a folder");
    let found = env::var_os("PATH").expect("PATH");
    for needed in ["bash", "dirname"] {
        let mut paths = env::split_paths(&found).map(|path| path.join(needed));
        let program = paths.find(|path| path.exists()).expect(needed);
        symlink(program, folder.join(needed)).expect("a link");
    }
    for program in programs {
        let path = folder.join(program);
        fs::write(&path, "#!/bin/sh\nexit 1\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup.sh");
    let mut bash = Command::new(folder.join("bash"));
    let output = bash
        .arg(script)
        .env("PATH", &folder)
        .output()
        .expect("bash");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, b"");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn each_package_manager_has_its_command() {
    for (manager, begins, ends) in ELSEWHERE {
        let said = said_with(&[manager]);
        let (_, command) = said.split_once("build nodefwd here: ").expect(&said);
        let (packages, then) = command.split_once(" && ").expect(&said);
        assert!(packages.starts_with(begins), "{said}");
        assert!(packages.ends_with(ends), "{said}");
        let readme = include_str!("../README.md");
        assert!(readme.contains(&format!("`{}`", then.trim_end())), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn without_any_it_names_what_is_needed() {
    let said = said_with(&[]);
    assert!(
        said.contains("libmnl and libnftnl with their headers"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}
