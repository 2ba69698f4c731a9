//! What the program is made of: crates from one registry, one version of each, under licences that it may have.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Licences whose code may be part of a program under the GPL, version 2 or later.
const LICENCES: [&str; 4] = ["GPL-2.0-or-later", "MIT", "BSD-2-Clause", "Unicode-3.0"];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// All packages for this platform, of which none is fetched.
fn packages() -> Vec<Value> {
    let target = option_env!("CARGO_BUILD_TARGET").unwrap_or("x86_64-unknown-linux-gnu");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--format-version=1"]);
    cargo.args(["--filter-platform", target]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 20, "{packages:?}");
    packages.clone()
}

/// Whether each part of the expression offers a licence that fits. Parentheses stand around alternatives only.
fn is_free(expression: &str) -> bool {
    let fits = |part: &str| {
        let part = part.trim_matches(['(', ')']).replace('/', " OR ");
        part.split(" OR ")
            .any(|licence| LICENCES.contains(&licence.trim()))
    };
    expression.split(" AND ").all(fits)
}

#[test]
fn licences_fit_that_of_the_program() {
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(is_free(licence), "{}: licence {licence}", package["name"]);
    }
}

#[test]
fn a_licence_that_does_not_fit_is_found() {
    for fits in [
        "MIT",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ] {
        assert!(is_free(fits), "{fits}");
    }
    for fails in [
        "Apache-2.0",
        "MIT AND CC-BY-NC-4.0",
        "none",
        "(Zlib OR MIT) AND SSPL-1.0",
    ] {
        assert!(!is_free(fails), "{fails}");
    }
}

#[test]
fn crates_come_from_the_public_registry() {
    for package in packages() {
        let is_own = package["name"] == env!("CARGO_PKG_NAME");
        assert!(
            is_own || package["source"] == REGISTRY,
            "{}: {}",
            package["name"],
            package["source"]
        );
    }
}

#[test]
fn no_crate_is_there_in_two_versions() {
    let mut names = BTreeSet::new();
    for package in packages() {
        let name = package["name"].to_string();
        assert!(names.insert(name), "{} is there twice", package["name"]);
    }
}
